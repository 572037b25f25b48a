"""Stage 14: an experiment becomes packs, one for the chain and one for each module; ESPnet's own archives are read."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import CheckpointError, LegoNN
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.packs.card import read_card
from espnet2_legonn.packs.files import verify
from tests.zoo.toys import build, pair

TEXTS = ["k l", "m n k", "n"]


def score(exp: Path, value: float, module: str = "") -> None:
    folder = exp / "decode" / "test" / (f"interfaces/{module}" if module else "") / "score_bleu"
    folder.mkdir(parents=True)
    result = {"metric": "bleu", "value": value, "verbose_score": "", "signature": "sig", "sentences": 3}
    (folder / "result.json").write_text(json.dumps({**result, "ci_low": value - 1, "ci_high": value + 1}))


@pytest.fixture
def exp(tmp_path: Path) -> Path:
    """As stage 11 leaves it: token lists in config.yaml, weights as .pth, a log, scores."""
    folder = tmp_path / "exp" / "legonn_toy"
    folder.mkdir(parents=True)
    chain = build(pair(), 4)
    config: dict[str, Any] = {**pair(), "seed": 7, "max_epoch": 2}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.save({f"chain.{k}": v for k, v in chain.state_dict().items()}, folder / "valid.decoded.ave.pth")
    (folder / "train.log").write_text("1epoch results: total_count=12\n2epoch results: total_count=24\n")
    score(folder, 30.0), score(folder, 20.0, "encoder")
    return folder


def test_a_pack_for_the_chain_and_for_each_module(exp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", str(exp)]) == 0
    out = exp / "packs"
    assert {p.name for p in out.iterdir()} == {
        f"toy{part}{kind}" for part in ("", "_encoder", "_decoder") for kind in ("", ".zip")
    }
    said = capsys.readouterr().out
    assert "before sharing, fill in description, license, training_data, language (--about YAML)" in said
    original = LegoNN.from_pretrained(exp)
    for kind in ("", ".zip"):
        assert LegoNN.from_pretrained(f"{out}/toy{kind}")(TEXTS) == original(TEXTS)
        parts = LegoNN.from_pretrained(f"{out}/toy_encoder{kind}") + LegoNN.from_pretrained(f"{out}/toy_decoder{kind}")
        assert parts(TEXTS) == original(TEXTS)


def test_the_card_knows_scores_and_origin(exp: Path, tmp_path: Path) -> None:
    about = tmp_path / "card.yaml"
    about.write_text("description: toys\nlicense: MIT\ntraining_data: [toys 1.0]\nlanguage: [xx]\ndomain: toys\n")
    main(["pack", str(exp), "-o", str(tmp_path / "out"), "--about", str(about), "--name", "little"])
    card = verify(tmp_path / "out" / "little")
    assert card.missing == [] and card.about.domain == "toys"
    assert [(m.metric, m.value, m.module, m.interval) for m in card.metrics] == [
        ("bleu", 30.0, None, [29.0, 31.0]),
        ("bleu", 20.0, "encoder", [19.0, 21.0]),
    ]
    assert (card.provenance.seed, card.provenance.updates) == (7, 24)
    assert "train_config.yaml" in card.files
    alone = read_card(tmp_path / "out" / "little_encoder")
    figures = [(m.value, m.module, m.composition) for m in alone.metrics]
    assert figures == [(20.0, "encoder", None), (30.0, None, "little")]


@pytest.mark.parametrize("parts", [{}, {"except": ["input"]}])
def test_the_card_knows_where_a_module_started(exp: Path, tmp_path: Path, parts: dict[str, Any]) -> None:
    """The short form of ``init`` and the long one."""
    donor = build(pair(), 2).save(tmp_path / "donor")
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["modules"][0]["init"] = {"from": f"{donor}#encoder", **parts} if parts else f"{donor}#encoder"
    (exp / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    main(["pack", str(exp), "-o", str(tmp_path / "out")])
    card = read_card(tmp_path / "out" / "toy")
    assert [m.parent for m in card.modules] == ["donor#encoder", None]
    (parent,) = card.provenance.parents
    assert (parent.name, parent.sha256, parent.modules) == ("donor", read_card(donor).content_sha256, ["encoder"])


def test_faults_of_the_card(exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = tmp_path / "card.yaml"
    about.write_text("licence: MIT\ntraining_data: toys\n")
    assert main(["pack", str(exp), "--about", str(about)]) == 2
    said = capsys.readouterr().err
    assert "unknown key 'licence' (did you mean 'license'?)" in said and "training_data: must be list" in said
    assert not (exp / "packs").exists()


def test_packs_are_the_same_bytes_again(exp: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        main(["pack", str(exp), "-o", str(tmp_path / name)])
    for path in (tmp_path / "one").glob("*.zip"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_it_decodes_in_another_place(exp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the experiment is needed any more."""
    wanted = LegoNN.from_pretrained(exp)(TEXTS)
    main(["pack", str(exp), "-o", str(tmp_path / "out")])
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "out" / "toy.zip", tmp_path / "elsewhere" / "x.zip")
    shutil.rmtree(exp), shutil.rmtree(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert LegoNN.from_pretrained("x.zip")(TEXTS) == wanted


# -- espnet2.bin.pack --------------------------------------------------------------------------------------------------


def espnet_archive(exp: Path, target: Path, **changes: Any) -> Path:
    """What ``espnet2.bin.pack`` writes of an experiment of ours."""
    meta = {
        "files": {"legonn_model_file": "exp/legonn_toy/valid.decoded.ave.pth"},
        "yaml_files": {"legonn_train_config": "exp/legonn_toy/config.yaml"},
        "espnet": "202511",
        "timestamp": 0.0,
        **changes,
    }
    with zipfile.ZipFile(target, "w") as z:
        z.writestr("meta.yaml", yaml.safe_dump(meta))
        for name in ("config.yaml", "valid.decoded.ave.pth"):
            z.write(exp / name, f"exp/legonn_toy/{name}")
    return target


def test_an_archive_of_espnet(exp: Path, tmp_path: Path) -> None:
    archive = espnet_archive(exp, tmp_path / "espnet.zip")
    with pytest.raises(CheckpointError, match="espnet.zip: no card.yaml, so nothing says .*trust=True.*--trust"):
        LegoNN.from_pretrained(archive)
    assert LegoNN.from_pretrained(archive, trust=True)(TEXTS) == LegoNN.from_pretrained(exp)(TEXTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"legonn_model_file": "../../etc/passwd"}}, "../../etc/passwd is not in the archive"),
        ({"files": {}}, "one entry ..._model_file is needed, found 0"),
        ({"files": None}, "needs files and yaml_files"),
    ],
)
def test_an_archive_of_espnet_that_is_wrong(exp: Path, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        LegoNN.from_pretrained(espnet_archive(exp, tmp_path / "espnet.zip", **changes), trust=True)
    assert message in str(error.value)

