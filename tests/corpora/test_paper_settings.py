"""What recipes of the paper's corpora promise: the paper's settings, readings that docs/recipes.md declares, costs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.files.configs import read_config, sources
from espnet2_legonn.training.schedulers import InverseSquareRootLR
from tests.corpora.text_recipes import ROOT, copy_recipes, run

EGS2 = ROOT / "egs2"
SPEECH, TRANSLATION = ("swbd", "europarl_st", "tedlium2"), ("wmt14_en_de", "wmt16_ro_en", "wmt19_de_en")
DOCS = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def confs(*recipes: str) -> list[Path]:
    found = [p for r in recipes for p in sorted((EGS2 / r / "legonn1/conf").rglob("*.yaml"))]
    return [p for p in found if p.name.startswith(("train_", "finetune"))]


def load(path: Path) -> dict[str, Any]:
    data = read_config(path)
    assert isinstance(data, dict)
    return data


def script(recipe: str, name: str) -> str:
    return (EGS2 / recipe / "legonn1" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", confs(*SPEECH, *TRANSLATION), ids=lambda p: f"{p.parts[-4]}-{p.stem}")
def test_precision_is_said_with_the_cards_it_wants(path: Path) -> None:
    assert load(path)["amp_dtype"] == "bf16"
    texts = "".join(file.read_text(encoding="utf-8") for file in sources(path))
    assert texts.count("amp_dtype: bf16  # Ampere or newer. A V100 takes fp16 and use_amp") == 1
    assert "--amp_dtype fp16 --use_amp true" in DOCS


@pytest.mark.parametrize("name", ["finetune.yaml", "tuning/finetune_1gpu.yaml"])
def test_ro_en_is_fine_tuned_from_1e_6(name: str) -> None:
    """Table XIII's start and appendix A-A's rate and warm-up: 1e-6 to 2.1e-6, in the mean 1.5e-6."""
    options = load(EGS2 / "wmt16_ro_en/legonn1/conf" / name)
    updates = options["max_epoch"] * options["num_iters_per_epoch"] // options["accum_grad"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options["optim_conf"]["lr"])
    scheduler = InverseSquareRootLR(optimizer, **options["scheduler_conf"])
    rates = []
    for _ in range(updates):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert updates == 4000 and rates[0] == pytest.approx(1e-6) and rates[-1] == pytest.approx(2.07e-6, rel=0.01)
    assert sum(rates) / updates == pytest.approx(1.53e-6, rel=0.01)


@pytest.mark.parametrize("recipe", TRANSLATION)
def test_windows_over_all_that_was_kept(recipe: str) -> None:
    """By the search of the test sets; encoders alone have no accuracy by which the best would be kept."""
    said = "--average_candidates 0 --average_config conf/decode.yaml"
    assert said in script(recipe, "run.sh")
    for path in (EGS2 / recipe / "legonn1").glob("run_*.sh"):
        text = path.read_text()
        assert text.count(said) == text.count("--inference_config conf/decode.yaml") > 0
    search = load(EGS2 / recipe / "legonn1/conf/decode.yaml")
    assert (search["beam_size"], search["length_penalty"]) == (5, 0.6)
    for path in confs(recipe):
        options = load(path)
        if len(options.get("modules", [])) == 1:
            assert options["best_model_criterion"] == [["train", "total_count", "max"], ["valid", "loss", "min"]]


@pytest.mark.parametrize("recipe", SPEECH)
def test_three_speeds_and_nothing_left_out_below_20_seconds(recipe: str) -> None:
    text = script(recipe, "run.sh")
    assert (
        '--speed_perturb_factors "0.9 1.0 1.1"' in text and float(re.search(r"max_wav_duration (\d+)", text)[1]) >= 20
    )  # type: ignore[index]
    for path in (EGS2 / recipe / "legonn1").glob("run_*.sh"):
        assert "max_wav_duration" not in path.read_text(), "one limit for all"
    if recipe == "europarl_st":
        assert all(
            'speeds="0.9 1.0 1.1"' in script(recipe, f"run_{n}.sh") for n in ("compose_europarl", "three_modules")
        )
    slots = {m["length_control"]["max_length"] for p in confs(recipe) if p.stem.startswith("train_encoder")
             for m in load(p)["modules"]}  # fmt: skip
    assert slots == ({230} if recipe == "swbd" else {292})


def test_smaller_configurations_say_what_is_smaller() -> None:
    """Ro-En's baseline for one GPU is the paper's model; others have half of the width or of the blocks."""
    folder = EGS2 / "wmt16_ro_en/legonn1/conf"
    small, large = (
        load(folder / name)["modules"] for name in ("tuning/train_baseline_1gpu.yaml", "train_baseline.yaml")
    )
    assert small == large
    for path in confs(*TRANSLATION):
        if "in half the width" in path.read_text():
            (same,) = path.parents[1].glob(f"{path.stem.removesuffix('_1gpu')}.yaml")
            first, second = (load(p)["modules"][0]["body"] for p in (path, same))
            assert first["size"] * 2 == second["size"] and first["num_blocks"] * 2 == second["num_blocks"]
    first, second = (
        load(folder / n)["modules"][0]["body"] for n in ("tuning/train_encoder_1gpu.yaml", "train_encoder.yaml")
    )
    assert first["size"] == second["size"] and 2 * first["num_blocks"] == second["num_blocks"]


@pytest.mark.parametrize(("visible", "found"), [("0,1,2", 3), ("", 0)])
def test_the_gpus_of_the_machine(visible: str, found: int, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt14_en_de")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\nfor i in 0 1 2 3; do echo \"GPU $i: one\"; done\n")
    smi.chmod(0o755)
    path = f"{smi.parent}{os.pathsep}{os.environ['PATH']}"
    told = run(recipe, "./run.sh", "--stage", "99", CUDA_VISIBLE_DEVICES=visible, PATH=path)
    assert f"--ngpu {found}: the GPUs that were found on this machine" in told
    assert "found on this machine" not in run(recipe, "./run.sh", "--stage", "99", "--ngpu", "8")
    scripts = [p for r in (*SPEECH, *TRANSLATION) for p in (EGS2 / r / "legonn1").glob("run_*.sh")]
    assert len(scripts) == 8 and all("\nngpu=auto " in p.read_text() for p in scripts)


def test_the_documented_costs_are_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/recipes.md: the table between its marks is what `legonn cost` prints of the configurations that it names."""
    table = DOCS.split("<!-- legonn cost: 8 GPUs, 32 GB -->\n")[1].split("<!-- end -->")[0]
    rows = re.findall(r"^\|(\w+): (\w+)\|", table, re.M)
    paths = [str(EGS2 / recipe / "legonn1/conf" / f"{name}.yaml") for recipe, name in rows]
    assert len(paths) == 21 and main(["cost", *paths, "--gpus", "8", "--card", "32", "--markdown"]) == 0
    assert capsys.readouterr().out == table


@pytest.mark.parametrize(
    "words",
    [
        "12 trainings", "no hold, decay to 5e-6", "19 of the 80 filters", "halve `batch_bins`", "2.7 to 3",
        "Table XI without length controllers", "has 6 blocks", "unigram model", "at most 250 words", "about 83 h",
        "German in 32,000 units",
        "33 M parameters", "beam 5 and penalty 0.6", "28.6, 28.8, 18.3, 27.1, 27.7", "29.2 for WEmb", "120 against 144",
    ],
)  # fmt: skip
def test_readings_are_declared(words: str) -> None:
    assert words in DOCS.replace("\n", " ")
