"""Every configuration of every recipe: a chain that can be built, and training options that training takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchaudio

from espnet2_legonn import LegoNN
from espnet2_legonn.bin.legonn_inference import get_parser
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.model.description import ModuleConfig, parse
from tests.corpora.text_recipes import ROOT

EGS2 = ROOT / "egs2"
# base*.yaml is inherited, train_lm.yaml and what is in espnet/ is for ESPnet's tasks.
OTHERS = ("card.yaml", "claims.yaml", "lengths.yaml", "train_lm.yaml")
FOUND = sorted(p for p in EGS2.glob("*/legonn1/conf/**/*.yaml") if p.name not in OTHERS and p.parent.name != "espnet")
ALL = [p for p in FOUND if not p.name.startswith(("base", "plan"))]
TRAIN = [p for p in ALL if p.name.startswith("train_")]
FINETUNE = [p for p in ALL if p.name.startswith("finetune")]
DECODE = [p for p in ALL if p.name.startswith("decode")]
# Large enough for BeamConv's 200 best.
SMALL = {"tokens": ["<blank>", "<unk>", *(f"t{i}" for i in range(300)), "<sos/eos>"], "unit": "word"}


def name(path: Path) -> str:
    return f"{path.relative_to(EGS2).parts[0]}-{path.parent.name}-{path.stem}"


def chain_of(path: Path) -> dict[str, Any]:
    data = read_config(path)
    return {key: data[key] for key in ("vocabs", "modules")}


def test_configurations_are_found() -> None:
    assert len(TRAIN) >= 71 and len(FINETUNE) >= 4 and len(DECODE) >= 10
    assert set(ALL) == {*TRAIN, *FINETUNE, *DECODE}, "a name that no test here knows"
    assert {p.relative_to(EGS2).parts[0] for p in TRAIN} >= {
        "TEMPLATE", "an4", "europarl_st", "multi30k", "swbd", "tedlium2", "wmt14_en_de", "wmt16_ro_en", "wmt19_de_en",
    }  # fmt: skip


def on_no_device(path: Path, monkeypatch: pytest.MonkeyPatch) -> LegoNN:
    """The chain of a configuration with small vocabularies, without memory: the paper's chains are large."""
    filters = torchaudio.transforms.MelSpectrogram

    def on_cpu(*args: Any, **options: Any) -> Any:  # it looks at its filters
        with torch.device("cpu"):
            return filters(*args, **options)

    monkeypatch.setattr(torchaudio.transforms, "MelSpectrogram", on_cpu)
    data = chain_of(path)
    for vocab, entry in data["vocabs"].items():
        kept = {key: entry[key] for key in ("language", "normalization") if key in entry}
        data["vocabs"][vocab] = {**SMALL, "unit": "phn" if entry["unit"] == "phn" else "word", **kept}
    for module in data["modules"]:
        control = module.get("length_control")
        if control and "slots_per_token" in control:
            control["ratio"] = 1  # stage 11 derives it from the data
    with torch.device("meta"):
        return LegoNN.from_config(data)


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_chain(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as it stands, then built with small vocabularies."""
    data = chain_of(path)
    parse(data)
    assert len(on_no_device(path, monkeypatch)) == len(data["modules"])


WARM = [p for p in TRAIN if "_warm" in p.stem]
# Experiments whose names are not those of their configurations, and where these are.
DONORS = {
    "ted": "train_phonemes{suffix}.yaml",
    "lc_rm_wemb": "train_legonn_lc_rm{suffix}.yaml",
    "legonn": "train_legonn{suffix}.yaml",
    "phonemes": "train_phonemes{suffix}.yaml",
}


def test_warm_configurations_are_found() -> None:
    assert {p.relative_to(EGS2).parts[0] for p in WARM} == {"europarl_st", "multi30k", "wmt16_ro_en"}
    assert all("init" in m for p in WARM for m in chain_of(p)["modules"]) and len(WARM) == 12


def written(path: Path, module: ModuleConfig) -> tuple[str, str]:
    """Which units a module of a configuration ends in; their folder's name tells them apart."""
    vocab = chain_of(path)["vocabs"][module.target.vocab]
    return vocab["tokens"].split("/")[-2], vocab["language"]


@pytest.mark.parametrize("path", WARM, ids=name)
def test_a_warm_start_fits_its_donor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken has the shapes of the donor's configuration, and ends in the same units; the input may differ."""
    own, texts = on_no_device(path, monkeypatch), path.read_text(encoding="utf-8")
    suffix = "_1gpu" if path.stem.endswith("_1gpu") else ""
    started = [config for config in own.configs if config.donor is not None]
    assert len(started) == len(own), "every module starts from something"
    for config in started:
        folder, _, part = config.donor.source.partition("#")
        tag = Path(folder).name.removeprefix("legonn_")
        recipe = (path.parents[2 if suffix else 1] / Path(folder).parent.parent).resolve()
        file = DONORS.get(tag, f"train_{tag}.yaml").format(suffix=suffix)
        source = recipe / "conf" / ("tuning" if suffix else "") / file
        donor = on_no_device(source, monkeypatch)[part]
        mine, theirs = (
            {k.split(".", 2)[2]: v.shape for k, v in chain.state_dict().items()} for chain in (own[config.name], donor)
        )
        takes = config.donor.takes
        assert {k: v for k, v in mine.items() if takes(k)} == {k: v for k, v in theirs.items() if takes(k)}
        assert written(path, config) == written(source, donor.configs[0])
        assert config.donor.left == (["input"] if config.input.type == "tokens" else [])
        assert bool(config.freeze) is (config.decodes and "frozen" in path.stem)
    command = next(line for line in texts.splitlines() if "./run.sh" in line and path.name in line)
    assert command.startswith("#   ")


@pytest.fixture(scope="module")
def task_parser() -> Any:
    from espnet2_legonn.training.task import LegoNNTask

    return LegoNNTask.get_parser()


@pytest.mark.parametrize("path", [*TRAIN, *FINETUNE], ids=name)
def test_training_options(path: Path, task_parser: Any, tmp_path: Path) -> None:
    """ESPnet takes every option; optimiser and scheduler take theirs."""
    from espnet2.tasks.abs_task import optim_classes, scheduler_classes

    args = task_parser.parse_args(["--config", str(path), "--output_dir", str(tmp_path)])
    given = read_config(path)
    assert all(getattr(args, key) == value for key, value in given.items() if not isinstance(value, list | dict))
    optimizer = optim_classes[args.optim]([torch.nn.Parameter(torch.zeros(1))], **args.optim_conf)
    if args.scheduler is not None:
        scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)


@pytest.mark.parametrize("path", DECODE, ids=name)
def test_options_of_decoding(path: Path) -> None:
    known = vars(get_parser().parse_args([]))
    assert set(read_config(path)) <= set(known)
