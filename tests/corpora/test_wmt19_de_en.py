"""WMT19 De-En on a fixture: two treatments from one download, and the recipe's stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn.data.tables import read_table
from legonn_corpora import wmt19_de_en
from tests.corpora import fixtures_wmt19_de_en as fixture
from tests.corpora.fixtures_parallel import sentences, side, write_lines
from tests.corpora.text_recipes import copy_recipes, run
from tests.corpora.tiny import STAGES, tiny
from tests.says import Says


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture.write(tmp_path_factory.mktemp("wmt19"))


def test_both_treatments(corpus: Path, tmp_path: Path, says: Says) -> None:
    said = says(wmt19_de_en.main, [str(corpus), "--out", str(tmp_path)])
    assert "commoncrawl: 60 lines, kept 59\n  dropped 1: length ratio above 1.5\n" in said
    assert "europarl-v9: 60 lines, kept 58\n  dropped 1: document boundary\n  dropped 1: empty target\n" in said
    assert said.count("all: 300 lines, kept 295\n") == 2
    tok, rm = (read_table(tmp_path / f"train_{t}" / "text") for t in ("lc_tok", "lc_rm"))
    assert list(tok) == list(rm), "the same pairs"
    assert any("( see annex 3 )" in t for t in tok.values()) and not any("(" in t or "." in t for t in rm.values())
    assert all(t == t.lower() for t in [*tok.values(), *rm.values()])
    assert len(read_table(tmp_path / "newstest2019_lc_rm" / "text.raw")) == 8


def test_faults_of_all_corpora_at_once(tmp_path: Path, says: Says) -> None:
    corpus = fixture.write(tmp_path / "c")
    (corpus / "wikititles-v1.de-en.tsv.gz").unlink()
    (corpus / "newstest2019-deen-ref.en.sgm").unlink()
    said = says(wmt19_de_en.main, [str(corpus), "--out", str(tmp_path / "data")], 2)
    assert "wikititles-v1 needs wikititles-v1.de-en.tsv (or .gz)" in said and "test set newstest2019 needs" in said
    corpus = fixture.write(tmp_path / "c")
    write_lines(corpus / "europarl-v9.de-en.tsv.gz", ["a\tb", "only one side", "a\tb\tc"])
    write_lines(corpus / "commoncrawl.de-en.en", ["short"])
    said = says(wmt19_de_en.main, [str(corpus), "--out", str(tmp_path / "data")], 2)
    assert "europarl-v9.de-en.tsv.gz:2: no TAB" in said and "europarl-v9.de-en.tsv.gz:3: 3 columns" in said
    assert "commoncrawl.de-en.en: 1 lines, the other side has 60" in said and "3 faults" in said
    assert not (tmp_path / "data" / "train_lc_tok").exists()


def test_stages_1_to_5_of_the_joint_vocabulary(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt19_de_en", "wmt16_ro_en")
    ro_en = tmp_path / "egs2" / "wmt16_ro_en" / "legonn1" / "dump" / "raw" / "train_ro_en"
    rows = sentences(60, 5)
    for name, language in (("src_text", "ro"), ("text", "en")):
        write_lines(ro_en / name, [f"u{i:02d} {line.lower()}" for i, line in enumerate(side(rows, language))])
    opts = f"--train dump/raw/train_lc_tok/text dump/raw/train_lc_tok/src_text {ro_en}/text {ro_en}/src_text"
    said = run(
        recipe, "./run.sh", "--stop_stage", "5", "--vocab_opts", f"{opts} --size 300 --model_type bpe",
        WMT19_DE_EN=corpus,
    )  # fmt: skip
    assert "bpe vocabulary of 300 units" in said
    assert all(name in said for name in ("train_lc_tok/src_text", "train_ro_en/text")), "one report of all corpora"


@pytest.mark.slow
def test_stages_to_13_beside_speech_with_a_tiny_model(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt19_de_en")
    lines = [f"u{i:02d} {line.lower()}" for i, line in enumerate(side(sentences(200, 5), "en"))]
    table = write_lines(tmp_path / "europarl", lines)
    vocab = tmp_path / "europarl_vocab"
    command = f". ./path.sh; python3 -m espnet2_legonn.bin.legonn vocab {vocab} --train {table} --size 120"
    run(recipe, "bash", "-c", command)
    conf = tiny(recipe, "legonn_lc_rm")
    options = ["--treatment", "lc_rm", "--src_nbpe", "150", "--legonn_config", f"{conf}/train_legonn_lc_rm.yaml"]
    source = recipe / "data" / "de_token_list"
    source.mkdir(parents=True)
    (source / "bpe_bpe32000").symlink_to("bpe_bpe150")  # the name in the configuration
    run(recipe, "./run.sh", *options, *STAGES, WMT19_DE_EN=corpus, EUROPARL_VOCAB=vocab)
    results = (recipe / "exp" / "legonn_legonn_lc_rm" / "RESULTS.md").read_text()
    assert "newstest2019_lc_rm" in results and "tok:13a" in results
