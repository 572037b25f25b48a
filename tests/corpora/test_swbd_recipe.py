"""The recipe of Switchboard as a user runs it, on an invented corpus; tiny models; eval2000 through glm filtering."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from espnet2_legonn.data.datadir import DataDir, validate
from tests.corpora.fixtures_swbd import write_corpus
from tests.corpora.text_recipes import copy_recipes, run
from tests.corpora.tiny_speech import shrink

QUICK = ("--nj", "1", "--inference_nj", "1", "--local_data_opts", "--dev 8 --max_duplicates 3")
UNITS = ("[laughter]", "[noise]", "[vocalized-noise]")


def test_stages_1_to_5(tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "swbd")
    told = run(recipe, "./run.sh", *QUICK, "--stop_stage", "5", SWBD=write_corpus(tmp_path / "SWBD", count=3))
    assert "swbd: train_nodev: 46" in told and "eval2000: segments: 32" in told and told.count("sha256") >= 12
    sizes = {name: validate(recipe / "dump/raw" / name) for name in ("train_nodup_sp", "train_dev", "eval2000")}
    nodup = validate(recipe / "data/train_nodup")
    assert sizes == {"train_nodup_sp": 3 * nodup, "train_dev": 8, "eval2000": 24} and 30 < nodup < 46
    samples = DataDir(recipe / "dump/raw/eval2000").table("utt2num_samples")
    assert int(samples["en_9001-A_000050-000275"]) == pytest.approx(2.45 * 16000, abs=2), "widened, at 16 kHz"
    for units in (100, 2000):
        tokens = (recipe / f"data/en_token_list/bpe_unigram{units}/tokens.txt").read_text().split("\n")
        assert tokens[0] == "<blank>" and len(tokens) > 50 and set(UNITS) <= set(tokens)


def test_without_the_corpus(tmp_path: Path) -> None:
    told = run(copy_recipes(tmp_path, "swbd"), "./run.sh", "--stop_stage", "1", fails=True, SWBD="")
    assert "set SWBD=DIR" in told


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
@pytest.mark.parametrize("system", ["wemb", "baseline", "beam_conv", "encoder"])
def test_stages_10_to_13(system: str, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "swbd")
    shrink(recipe, f"train_{system}")
    config = f"conf/train_{system}.yaml"
    words = (*QUICK, "--stop_stage", "13", "--speed_perturb_factors", "", "--legonn_config", config)
    corpus = write_corpus(tmp_path / "SWBD", count=3)
    run(recipe, "./run.sh", *words, SWBD=corpus)
    exp = recipe / "exp" / f"legonn_{system}"
    decoded = exp / "decode/eval2000"
    folders = [decoded] if system == "baseline" else [decoded, decoded / "interfaces/encoder"]
    for folder in folders:
        found = {v: json.loads((folder / f"score_wer_{v}/result.json").read_text()) for v in ("hub5", "swb", "ch")}
        assert [r["n"] for r in found.values()] == [32, 16, 16]
        assert found["hub5"]["errors"] == found["swb"]["errors"] + found["ch"]["errors"] > 0
    results = (exp / "RESULTS.md").read_text()
    assert all(f"|decode/eval2000 ({variant})|" in results for variant in ("hub5", "swb", "ch"))
    first = json.loads((decoded / "score_wer_hub5/result.json").read_text())
    run(recipe, "./run.sh", *words, "--stage", "13", "--local_score_opts", "--scorer python", SWBD=corpus)
    again = json.loads((decoded / "score_wer_hub5/result.json").read_text())
    assert again == {**first, "scorer": "python"}


def pretend(exp: Path, name: str, swb: float, loss: float | None = None) -> None:
    """An experiment that was trained and scored: CallHome is 10 worse, the interface 3."""
    decoded = exp / f"legonn_{name}" / "decode/eval2000"
    for folder, more in ((decoded, 0.0), (decoded / "interfaces/encoder", 3.0)):
        for part, value in (("swb", swb + more), ("ch", swb + more + 10)):
            (folder / f"score_wer_{part}").mkdir(parents=True)
            result = {"metric": "wer", "value": value}
            (folder / f"score_wer_{part}" / "result.json").write_text(json.dumps(result))
    if loss is not None:
        stats = {1: {"valid": {"ctc_encoder": 9.0}}, 2: {"valid": {"ctc_encoder": loss}}}
        torch.save({"reporter": {"stats": stats}}, exp / f"legonn_{name}" / "checkpoint.pth")


def test_tables_and_bars_of_what_was_scored(tmp_path: Path) -> None:
    """Tables II and IX and Figure 4 are means over seeds and pairs of them; nothing is trained or plugged again."""
    recipe = copy_recipes(tmp_path, "swbd")
    exp = recipe / "exp"
    (recipe / "dump/raw/train_dev").mkdir(parents=True)
    (recipe / "dump/raw/train_dev/text").write_text("a b\n")
    for seed in (1, 2):
        pretend(exp, f"wemb_seed{seed}", 8.0 + 0.2 * seed, 0.5 + 0.1 * seed)
        pretend(exp, f"baseline_seed{seed}", 8.0)
    told = run(recipe, "./run_baselines.sh", "--seeds", "1 2", "--systems", "baseline wemb")
    assert told.count("scored before") == 4
    tables = (exp / "TABLES_swbd.md").read_text()
    assert "|Encoder + WEmb decoder|8.4|8.3|-0.1|18.2|18.3|+0.1|" in tables
    assert "|speech, WEmb LegoNN, WER|0.60|0.65|+0.05|11.6|11.3|-0.3|24.2|21.3|-2.9|" in tables

    pretend(exp, "beam_conv_seed1", 8.0)
    pretend(exp, "beam_conv_seed2", 8.0)
    for a, b in ((1, 2), (2, 1), (1, 1), (2, 2)):
        for kind in ("architecture_wemb", "architecture_beam_conv", "isolated_wemb", "isolated_beam_conv"):
            pretend(exp, f"{kind}_{a}_{b}", 10.0)
        if a != b:
            pretend(exp, f"seed_wemb_{a}_{b}", 8.3)
            pretend(exp, f"seed_beam_conv_{a}_{b}", 8.0)
            pretend(exp, f"seed_baseline_{a}_{b}", 100.0)
    told = run(recipe, "./run_swap.sh", "--seeds", "1 2", "--baseline_swap", "true")
    for line in (
        "seed_wemb_swb: 8.30, mean of 2, 100.0 % of 8.30",
        "seed_baseline_swb: 100.00, mean of 2, 8.0 % of 8.00",
        "isolated_beam_conv_swb: 10.00, mean of 4, 80.0 % of 8.00",
    ):
        assert line in told, told


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_baselines_and_swap(tmp_path: Path) -> None:
    """Table II, the speech half of Table IX, and Figure 4. To save time, copies of the first seed are the second."""
    recipe = copy_recipes(tmp_path, "swbd")
    systems = ("baseline", "encoder", "beam_conv", "wemb")
    shrink(recipe, *(f"train_{system}" for system in systems))
    corpus = write_corpus(tmp_path / "SWBD", count=3)
    run(recipe, "./run.sh", *QUICK, "--stop_stage", "5", SWBD=corpus)
    run(recipe, "./run_baselines.sh", "--nj", "1", "--ngpu", "0", "--seeds", "1", SWBD=corpus)
    exp = recipe / "exp"
    for system in systems:
        shutil.copytree(exp / f"legonn_{system}_seed1", exp / f"legonn_{system}_seed2")
    told = run(recipe, "./run_baselines.sh", "--nj", "1", "--ngpu", "0", "--seeds", "1 2", SWBD=corpus)
    assert told.count("scored before") == 8 and "mean of 2" in told
    two, nine = (exp / "TABLES_swbd.md").read_text().split("### Table IX")
    assert len(re.findall(r"\|\d+\.\d\|\d+\.\d\|[+-]", two)) == 8 and nine.count("not run") == 6
    assert re.search(r"\|speech, WEmb LegoNN, WER\|0\.60\|\d+\.\d\d\|[+-]", nine)

    options = ("--nj", "1", "--ngpu", "0", "--seeds", "1 2", "--baseline_swap", "true")
    shared = recipe.parents[1] / "TEMPLATE/legonn1/composition.sh"  # other places are plugged for one seed only
    text, changed = re.subn(r'^( *)(plug "?(arch|isol))', r"\1seeds=1\n\1\2", shared.read_text(), flags=re.M)
    assert changed == 4
    shared.write_text(text)
    told = run(recipe, "./run_swap.sh", *options, SWBD=corpus)
    plugs = {p.name.removeprefix("legonn_") for p in exp.glob("legonn_*_[12]_[12]")}
    assert plugs == {f"seed_{s}_{pair}" for s in ("wemb", "beam_conv", "baseline") for pair in ("1_2", "2_1")} | {
        f"{kind}_{decoder}_1_1" for kind in ("architecture", "isolated") for decoder in ("wemb", "beam_conv")
    }
    assert "hidden states are no interface" in told and told.count("100.0 % of") >= 6, "a copy is no other model"
