"""Every configuration of every recipe: a chain that can be built, and training options that training takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn_inference import get_parser
from espnet2_legonn.config import parse
from tests.corpora.text_recipes import ROOT

EGS2 = ROOT / "egs2"
ALL = sorted(p for p in EGS2.glob("*/legonn1/conf/**/*.yaml") if p.name not in ("card.yaml", "plan.yaml"))
TRAIN = [p for p in ALL if p.name.startswith("train_")]
FINETUNE = [p for p in ALL if p.name.startswith("finetune")]
DECODE = [p for p in ALL if p.name.startswith("decode")]
# Large enough for BeamConv's 200 best.
SMALL = {"tokens": ["<blank>", "<unk>", *(f"t{i}" for i in range(300)), "<sos/eos>"], "unit": "word"}


def name(path: Path) -> str:
    return f"{path.relative_to(EGS2).parts[0]}-{path.parent.name}-{path.stem}"


def chain_of(path: Path) -> dict[str, Any]:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: data[key] for key in ("vocabs", "modules")}


def test_configurations_are_found() -> None:
    assert (len(TRAIN), len(FINETUNE), len(DECODE)) == (55, 4, 9)
    assert set(ALL) == {*TRAIN, *FINETUNE, *DECODE}, "a name that no test here knows"
    assert {p.relative_to(EGS2).parts[0] for p in TRAIN} >= {
        "an4", "europarl_st", "multi30k", "swbd", "tedlium2", "wmt14_en_de", "wmt16_ro_en", "wmt19_de_en",
    }  # fmt: skip


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_chain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as it stands, then built with small vocabularies; on no device, since the paper's chains are large."""
    filters = torchaudio.transforms.MelSpectrogram

    def on_cpu(*args: Any, **options: Any) -> Any:  # it looks at its filters
        with torch.device("cpu"):
            return filters(*args, **options)

    monkeypatch.setattr(torchaudio.transforms, "MelSpectrogram", on_cpu)
    data = chain_of(path)
    parse(data)
    for vocab, entry in data["vocabs"].items():
        kept = {key: entry[key] for key in ("language", "normalization") if key in entry}
        data["vocabs"][vocab] = {**SMALL, "unit": "phn" if entry["unit"] == "phn" else "word", **kept}
    for module in data["modules"]:
        control = module.get("length_control")
        if control and "slots_per_token" in control:
            control["ratio"] = 1  # stage 11 derives it from the data
        module.pop("init", None)
    with torch.device("meta"):
        chain = LegoNN.from_config(data)
    assert len(chain) == len(data["modules"])


@pytest.fixture(scope="module")
def task_parser() -> Any:
    from espnet2_legonn.tasks.legonn import LegoNNTask

    return LegoNNTask.get_parser()


@pytest.mark.parametrize("path", [*TRAIN, *FINETUNE], ids=name)
def test_training_options(path: Path, task_parser: Any, tmp_path: Path) -> None:
    """ESPnet takes every option; optimiser and scheduler take theirs."""
    from espnet2.tasks.abs_task import optim_classes, scheduler_classes

    args = task_parser.parse_args(["--config", str(path), "--output_dir", str(tmp_path)])
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert all(getattr(args, key) == value for key, value in given.items() if not isinstance(value, list | dict))
    optimizer = optim_classes[args.optim]([torch.nn.Parameter(torch.zeros(1))], **args.optim_conf)
    if args.scheduler is not None:
        scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)


@pytest.mark.parametrize("path", DECODE, ids=name)
def test_options_of_decoding(path: Path) -> None:
    known = vars(get_parser().parse_args([]))
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) <= set(known)
