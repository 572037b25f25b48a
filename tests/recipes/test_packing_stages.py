"""Stages 14 and 15 of legonn.sh, and --download_model: what goes up comes down and decodes to the same text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.packs.card import read_card
from espnet2_legonn.packs.files import zip_pack
from tests.corpora.text_recipes import new_recipe, run
from tests.zoo.toys import build, pair

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {"u1": "k l", "u2": "m n k", "u3": "n"}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with one test set and one trained experiment."""
    folder = new_recipe(tmp_path)
    (folder / "dump" / "raw" / "test").mkdir(parents=True)
    for name, rows in (("src_text", TEXTS), ("text", dict.fromkeys(TEXTS, "a b")), ("utt2spk", {u: u for u in TEXTS})):
        (folder / "dump" / "raw" / "test" / name).write_text("".join(f"{k} {v}\n" for k, v in rows.items()))
    about = {"description": "toys", "license": "MIT", "training_data": ["toys"], "language": ["xx"]}
    (folder / "conf" / "card.yaml").write_text(yaml.safe_dump(about))
    build(pair()).save(folder / "exp" / "legonn_toy")
    return folder


def stages(recipe: Path, *options: str) -> str:
    sets = "--input text --src_lang xx --train_set train --valid_set valid --test_sets test --metrics wer"
    command = f'. ./path.sh; legonn.sh {sets} --inference_nj 1 "$@"'
    return run(recipe, "bash", "-c", command, "run.sh", *options)


def test_up_and_down(recipe: Path, tmp_path: Path) -> None:
    place = tmp_path / "inventory"
    place.mkdir()
    upload = ["--skip_upload", "false", "--inventory", str(place)]
    stages(recipe, "--stage", "14", "--legonn_exp", "exp/legonn_toy", "--upload_args", "--dry_run", *upload)
    packs = recipe / "exp" / "legonn_toy" / "packs"
    assert {p.name for p in packs.glob("*.zip")} == {"toy.zip", "toy_encoder.zip", "toy_decoder.zip"}
    assert list(place.iterdir()) == []  # a dry run
    stages(recipe, "--stage", "15", "--legonn_exp", "exp/legonn_toy", *upload)
    assert sum(p.suffix == ".zip" for p in place.rglob("*")) == 3

    said = stages(recipe, "--stage", "12", "--stop_stage", "13", "--download_model", str(packs / "toy.zip"))
    assert "stages 10 and 11 are left out" in said
    text = (recipe / "exp" / "toy" / "decode" / "test" / "text").read_text()
    wanted = LegoNN.from_pretrained(recipe / "exp" / "legonn_toy")(list(TEXTS.values()))
    assert [line.partition(" ")[2].strip() for line in text.splitlines()] == wanted
    assert (recipe / "exp" / "toy" / "RESULTS.md").is_file()
    # Another pack of that name is not taken for the first.
    other = zip_pack(LegoNN.from_pretrained(packs / "toy_decoder").save(tmp_path / "other"), tmp_path / "2" / "toy.zip")
    for archive, folders in ((other, 2), (packs / "toy.zip", 2)):
        stages(recipe, "--stage", "99", "--download_model", str(archive))
        assert len(list((recipe / "exp").glob("toy*"))) == folders
    assert sorted(read_card(p.parent).name for p in recipe.glob("exp/toy*/card.yaml")) == ["other", "toy"]
