"""WMT16 Ro-En on a fixture, and the composition with De-En (Tables III and VI) from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.files.configs import read_config
from legonn_corpora import wmt16_ro_en
from tests.corpora import fixtures_wmt16_ro_en as fixture
from tests.corpora import fixtures_wmt19_de_en
from tests.corpora.text_recipes import copy_recipes, run
from tests.corpora.tiny import COMPOSE, TRAINING, tiny, write
from tests.says import Says


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture.write(tmp_path_factory.mktemp("wmt16"))


def test_given_text_with_its_bpe_undone(corpus: Path, tmp_path: Path, says: Says) -> None:
    said = says(wmt16_ro_en.main, [str(corpus), "--out", str(tmp_path)])
    assert (
        "wmt16: 200 lines, kept 198\n  dropped 1: length ratio above 1.5\n  dropped 1: longer than 80 tokens\n" in said
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["newsdev2016", "newstest2016", "train_ro_en"]
    text = read_table(tmp_path / "train_ro_en" / "src_text")
    assert not any("@@" in t for t in text.values()) and any("ă" in t for t in text.values())


def test_malformed(corpus: Path, tmp_path: Path, says: Says) -> None:
    bad = fixture.write(tmp_path / "bad")
    (bad / "dev" / "dev.bpe.ro").unlink()
    (bad / "train" / "corpus.bpe.en").unlink()
    said = says(wmt16_ro_en.main, [str(bad), "--out", str(tmp_path / "data")], 2)
    assert "test set newsdev2016 needs dev.bpe.ro and dev.bpe.en" in said
    assert "wmt16 needs corpus.bpe.ro and corpus.bpe.en (or .gz); only corpus.bpe.ro is there" in said


def test_stages_1_to_5_with_a_given_vocabulary(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt16_ro_en")
    run(recipe, "./run.sh", "--stop_stage", "4", WMT16_RO_EN=corpus)
    joint = tmp_path / "egs2" / "wmt19_de_en" / "legonn1" / "data" / "joint_token_list" / "bpe_bpe41000"
    tables = "dump/raw/train_ro_en/text dump/raw/train_ro_en/src_text"
    make = f"python3 -m espnet2_legonn.bin.legonn vocab {joint} --train {tables} --size 200 --model_type bpe"
    run(recipe, "bash", "-c", f". ./path.sh; {make}")
    said = run(recipe, "./run.sh", "--stage", "5", "--stop_stage", "5", WMT16_RO_EN=corpus)
    assert "bpe vocabulary of 200 units" in said and "0.000" in said
    own = recipe / "data" / "joint_token_list" / "bpe_bpe41000"
    assert all((own / n).read_bytes() == (joint / n).read_bytes() for n in ("tokens.txt", "bpe.model"))


@pytest.mark.slow
def test_tables_3_and_6_with_tiny_models(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt16_ro_en", "wmt19_de_en")
    de_en = tmp_path / "egs2" / "wmt19_de_en" / "legonn1"
    conf = tiny(recipe, "encoder", "baseline")
    assert tiny(de_en, "legonn", "beam_conv") == conf
    finetune = read_config(recipe / "conf" / "finetune.yaml")
    write(recipe / conf / "finetune.yaml", {**finetune, **TRAINING})
    for folder, option in ((de_en, "--size 41000"),):
        script = folder / "run.sh"
        script.write_text(script.read_text().replace(option, "--size 300"))
    data = fixtures_wmt19_de_en.write(tmp_path / "wmt19")
    variables = {"WMT16_RO_EN": corpus, "WMT19_DE_EN": data}
    said = run(recipe, "./run_compose_ro_en.sh", "--conf", conf, *COMPOSE, **variables)
    for name in ("baseline", "encoder", "ro_en_wemb", "ro_en_beam_conv", "ro_en_wemb_tuned"):
        results = (recipe / "exp" / f"legonn_{name}" / "RESULTS.md").read_text()
        assert "newstest2016" in results and "tok:none" in results
    tables = (recipe / "exp" / "TABLES_ro_en.md").read_text()
    assert tables in said and "|35.0|" in tables and "|35.5|" in tables and tables.count("not run") == 4
    again = run(recipe, "./run_compose_ro_en.sh", "--conf", conf, *COMPOSE, "--skip_data_prep", "true", **variables)
    assert again.count("scored before") == 7 and tables in again
