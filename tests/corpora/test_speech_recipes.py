"""The recipes of TED-LIUM and Europarl-ST as a user runs them, on invented corpora; compositions with tiny models."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("av", reason="m4a is written and read with PyAV (extra corpora)")

from espnet2_legonn.data.datadir import DataDir, validate
from tests.corpora import fixtures_europarl_st, fixtures_swbd, fixtures_tedlium, fixtures_wmt19_de_en
from tests.corpora.text_recipes import copy_recipes, run
from tests.corpora.tiny import tiny
from tests.corpora.tiny_speech import shrink

QUICK = ("--nj", "1", "--inference_nj", "1")
WRITE: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "tedlium2": ("TEDLIUM2", fixtures_tedlium.write),
    "europarl_st": ("EUROPARL_ST", fixtures_europarl_st.write),
}


def wer(exp: Path, *place: str) -> float:
    """The word error rate that stage 13 left."""
    return json.loads(exp.joinpath("decode", "test", *place, "score_wer", "result.json").read_text())["value"]


@pytest.mark.parametrize("corpus", sorted(WRITE))
def test_stages_1_to_5(corpus: str, tmp_path: Path) -> None:
    variable, write = WRITE[corpus]
    recipe = copy_recipes(tmp_path, corpus)
    told = run(recipe, "./run.sh", *QUICK, "--stop_stage", "5", **{variable: write(tmp_path)})
    assert "sha256" in told and "Successfully finished" in told
    assert validate(recipe / "dump/raw/train_sp") == 3 * validate(recipe / "data/train"), "at three speeds"
    for name in ("train_sp", "dev", "test"):
        raw = recipe / "dump/raw" / name
        assert validate(raw) == len(DataDir(raw).table("text_phn")) >= 6
    tokens = recipe / "data/en_token_list"
    assert len((tokens / "bpe_unigram2000/tokens.txt").read_text().split("\n")) > 20
    phones = (tokens / "phn/tokens.txt").read_text().split()
    assert phones[0] == "<blank>" and {"DH", "T"} <= set(phones) and not any(p[-1].isdigit() for p in phones)


@pytest.mark.parametrize("corpus", sorted(WRITE))
def test_without_the_corpus(corpus: str, tmp_path: Path) -> None:
    variable, _ = WRITE[corpus]
    told = run(copy_recipes(tmp_path, corpus), "./run.sh", "--stop_stage", "1", fails=True, **{variable: ""})
    assert f"set {variable}=DIR" in told


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
@pytest.mark.parametrize(("corpus", "system"), [("tedlium2", "phonemes"), ("europarl_st", "three_modules")])
def test_stages_10_to_13(corpus: str, system: str, tmp_path: Path) -> None:
    variable, write = WRITE[corpus]
    recipe = copy_recipes(tmp_path, corpus)
    shrink(recipe, f"train_{system}")
    run(
        recipe, "./run.sh", *QUICK, "--stop_stage", "13", "--legonn_config", f"conf/train_{system}.yaml",
        **{variable: write(tmp_path)},
    )  # fmt: skip
    exp = recipe / "exp" / f"legonn_{system}"
    assert wer(exp) > 0 and wer(exp, "interfaces", "pronunciation") > 0
    assert (exp / "decode/test/interfaces/phoneme_recognizer/score_per/result.json").is_file()
    assert (exp / "RESULTS.md").is_file()


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_compositions(tmp_path: Path) -> None:
    """Tables IV, V and VI: everything is trained, plugged and fine-tuned; a second run does nothing."""
    recipe = copy_recipes(tmp_path, "europarl_st", "wmt19_de_en")
    donor = tmp_path / "egs2/wmt19_de_en/legonn1"
    shrink(recipe, "train_baseline", "train_phonemes", "finetune")
    tiny(donor, "legonn_lc_rm", "beam_conv_lc_rm", folder="conf_tiny")
    configs = [f"conf_tiny/train_{name}_lc_rm.yaml" for name in ("legonn", "beam_conv")]
    (donor / "data/de_token_list").mkdir(parents=True)
    (donor / "data/de_token_list/bpe_bpe32000").symlink_to("bpe_bpe150")  # the name in the configurations
    corpora = {variable: write(tmp_path / name) for name, (variable, write) in WRITE.items()}
    corpora["WMT19_DE_EN"] = fixtures_wmt19_de_en.write(tmp_path / "wmt19")
    common = ["--ngpu", "0", "--nj", "1", "--mt_args", "--src_nbpe 150 --average_window 0"]
    four = ["./run_compose_europarl.sh", *common, "--mt_configs", " ".join(configs)]
    three = ["./run_three_modules.sh", *common, "--mt_config", configs[0]]
    for command, table, rows in ((four, "IV", 4), (three, "V", 4)):
        run(recipe, *command, **corpora)
        text = (recipe / "exp" / f"table_{table}.md").read_text()
        first, last = text.split("### Table VI")
        assert len(re.findall(r"^\|[^|]+\|\d+\.\d\|\d+\.\d\|[+-]", first, re.M)) == rows, text
        assert "not run" not in first, text
        assert last.count("not run") == (4 if table == "IV" else 2)  # Table III is another recipe's
    exp = recipe / "exp"
    texts = [(exp / f"legonn_plug_{n}/decode/test/interfaces/pronunciation/text").read_text() for n in ("two", "three")]
    assert texts[0] == texts[1]
    before = {p: p.stat().st_mtime_ns for p in exp.rglob("result.json")}
    told = run(recipe, *three, **corpora)
    assert told.count("scored before") == 7 and before == {p: p.stat().st_mtime_ns for p in exp.rglob("result.json")}


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_a_trained_model_can_be_given(tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "europarl_st")
    shrink(recipe, "train_phonemes", "train_three_modules", "finetune")
    corpus = fixtures_europarl_st.write(tmp_path)
    train = ("./run.sh", *QUICK, "--stop_stage", "11", "--legonn_config", "conf/train_three_modules.yaml")
    run(recipe, *train, EUROPARL_ST=corpus)
    whole = "exp/legonn_three_modules"
    given = ["--baseline", whole, "--encoder", f"{whole}#phoneme_recognizer,pronunciation"]
    given += ["--decoder", f"{whole}#decoder", "--beam_conv_decoder", f"{whole}#decoder", "--finetune", "false"]
    run(recipe, "./run_compose_europarl.sh", "--ngpu", "0", "--nj", "1", *given, EUROPARL_ST=corpus)
    assert wer(recipe / "exp/legonn_plug_wemb") == wer(recipe / "exp/legonn_baseline") > 0


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_low_resource(tmp_path: Path) -> None:
    """Table XI: encoders of a part of the data, without length control, before decoders of all of it."""
    recipe = copy_recipes(tmp_path, "swbd")
    shrink(recipe, *(f"train_{name}" for name in ("baseline", "encoder", "wemb", "beam_conv")))
    corpus = fixtures_swbd.write_corpus(tmp_path / "SWBD", count=3)
    prepare = ("./run.sh", *QUICK, "--local_data_opts", "--dev 8 --max_duplicates 3", "--stop_stage", "5")
    run(recipe, *prepare, SWBD=corpus)
    run(recipe, "./run_low_resource.sh", "--ngpu", "0", "--nj", "1", "--shares", "30", SWBD=corpus)
    assert 8 <= validate(recipe / "data/train_nodup_30") < validate(recipe / "data/train_nodup") / 2
    text = (recipe / "exp/table_XI.md").read_text()
    # four systems, SWB and CH of 30 %; those of 10 % were not asked for
    assert text.count("not run") == 8 and len(re.findall(r"\|\d+\.\d( \([^|]+\))?\|[+-]", text)) == 8, text
    config = (recipe / "exp/legonn_plug_wemb_30/config.yaml").read_text()
    assert "length_control: null" in config and "max_length" not in config
