"""WMT14 En-De on a fixture: the given preparation and the raw one, and the recipe's stages."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from subword_nmt.apply_bpe import BPE

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.data.vocabulary import Vocabulary
from legonn_corpora import wmt14_en_de
from tests.corpora import fixtures_wmt14_en_de as fixture
from tests.corpora.text_recipes import copy_recipes, run
from tests.corpora.tiny import COMPOSE, tiny
from tests.says import Says

SETS = ["newstest2011", "newstest2012", "newstest2013", "newstest2014", "newstest2015", "newstest2016"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture.write_given(tmp_path_factory.mktemp("wmt14"))


def test_given_text_with_its_bpe_undone(corpus: Path, tmp_path: Path, says: Says) -> None:
    said = says(wmt14_en_de.main, [str(corpus), "--out", str(tmp_path)])
    assert "wmt14: 240 lines, kept 237\n  dropped 1: empty target\n  dropped 1: length ratio above 1.5\n" in said
    assert "  dropped 1: longer than 250 tokens\n" in said and said.count("6 segments from") == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given", *SETS, "train_en_de"]
    text = read_table(tmp_path / "train_en_de" / "text")
    assert "wmt14-00000011" not in text and not any("@@" in t for t in text.values())
    raw = read_table(tmp_path / "newstest2014" / "text.raw")
    assert len(raw) == 6 and all(t.endswith(".") and not t.endswith(" .") for t in raw.values())


def test_merges_split_undone_text_as_it_was_given(corpus: Path, tmp_path: Path) -> None:
    wmt14_en_de.main([str(corpus), "--out", str(tmp_path / "undone")])
    wmt14_en_de.main([str(corpus), "--out", str(tmp_path / "kept"), "--bpe", "kept"])
    vocab = Vocabulary(
        ("<blank>", "<unk>", "a", "<sos/eos>"), "bpe", bpemodel=(tmp_path / "kept/given/bpe.32000").read_bytes()
    )
    for name in ("src_text", "text"):
        undone = read_table(tmp_path / "undone" / "train_en_de" / name)
        kept = read_table(tmp_path / "kept" / "train_en_de" / name)
        assert list(kept) == list(undone) and any("@@ " in t for t in kept.values())
        assert all(" ".join(vocab.split(undone[key])) == kept[key] for key in kept)


def test_raw_preparation(tmp_path: Path, says: Says) -> None:
    corpus = fixture.write_raw(tmp_path / "raw")
    said = says(wmt14_en_de.main, [str(corpus), "--preparation", "raw", "--out", str(tmp_path / "data")])
    for name in ("commoncrawl", "europarl-v7", "news-commentary"):
        assert f"{name}: 60 lines, kept 59\n  dropped 1: document boundary\n" in said
    text = read_table(tmp_path / "data" / "train_en_de" / "src_text")
    assert len(text) == 177 and any("public @-@ transport" in t for t in text.values())
    assert not any("\u00a0" in t or "\r" in t for t in text.values())


def test_everything_missing_is_named(tmp_path: Path, says: Says) -> None:
    (tmp_path / "train.tok.clean.bpe.32000.en").write_text("a\n")
    said = says(wmt14_en_de.main, [str(tmp_path), "--out", str(tmp_path / "data")], 2)
    assert "wmt14 needs train.tok.clean.bpe.32000.en and train.tok.clean.bpe.32000.de" in said
    (tmp_path / "train.tok.clean.bpe.32000.de").write_text("a\n")
    said = says(wmt14_en_de.main, [str(tmp_path), "--out", str(tmp_path / "data")], 2)
    assert all(f"test set {name} needs {name}.tok.bpe.32000.en and" in said for name in SETS) and "6 faults" in said


def test_malformed_corpus(corpus: Path, tmp_path: Path, says: Says) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(corpus, bad)
    with open(bad / "train.tok.clean.bpe.32000.en", "ab") as stream:
        stream.write(b"\xe4 broken\nand one more\n")
    said = says(wmt14_en_de.main, [str(bad), "--out", str(tmp_path / "data")], 2)
    assert "train.tok.clean.bpe.32000.en:241: not UTF-8" in said
    assert "train.tok.clean.bpe.32000.de: 240 lines, the other side has 242" in said and "2 faults" in said


def test_stages_1_to_5(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt14_en_de")
    said = run(recipe, "./run.sh", "--stop_stage", "5", WMT14_EN_DE=corpus)
    assert "bpe vocabulary of" in said and "slots/unit" in said
    vocab = Vocabulary.from_files(
        recipe / "data/joint_token_list/bpe_bpe32000/tokens.txt",
        "bpe",
        recipe / "data/joint_token_list/bpe_bpe32000/bpe.model",
    )
    text = read_table(recipe / "dump/raw/newstest2014/text")
    assert len(text) == 6 and not any(vocab.unk_id in vocab.encode(t) for t in text.values())
    assert all(vocab.decode(vocab.encode(t)) == t for t in text.values())
    bpe = BPE(io.StringIO((corpus / "bpe.32000").read_text()))
    assert all(" ".join(vocab.split(t)) == bpe.process_line(t) for t in text.values())


def test_stages_1_to_5_of_raw_text(tmp_path: Path) -> None:
    recipe = copy_recipes(tmp_path, "wmt14_en_de")
    corpus = fixture.write_raw(tmp_path / "corpus")
    said = run(recipe, "./run.sh", "--stop_stage", "5", "--local_data_opts", "--preparation raw", WMT14_EN_DE=corpus)
    assert "kept 177 of 177 utterances" in said and "dump/raw/train_en_de/src_text" in said
    assert (recipe / "data/joint_token_list/bpe_bpe32000/bpe.model").is_file()


@pytest.mark.slow
def test_baselines_and_swap_with_tiny_models(corpus: Path, tmp_path: Path) -> None:
    """Tables I and VII to X, Figure 4. To save time, all is plugged for one seed, and a copy of it is the second."""
    recipe = copy_recipes(tmp_path, "wmt14_en_de")
    conf = tiny(recipe, "legonn", "beam_conv", "encoder", "baseline", "no_ctc")
    sets = ("--test_sets", "newstest2013 newstest2014")
    said = run(recipe, "./run_baselines.sh", "--conf", conf, *COMPOSE, *sets, "--seeds", "1", WMT14_EN_DE=corpus)
    results = (recipe / "exp" / "legonn_legonn_seed1" / "RESULTS.md").read_text()
    assert "compounds:split" in results and "detok:moses-de" in results and "Interfaces" in results
    tables = (recipe / "exp" / "TABLES_en_de.md").read_text()
    assert tables in said and "|28.3|" in tables and "|34.3|not run|" in tables
    (first, *_) = [line for line in tables.splitlines() if line.startswith("|Encoder + WEmb decoder|27.2|")]
    assert "not run" not in first

    assert re.search(r"\|translation, WEmb LegoNN, BLEU\|2\.51\|\d+\.\d\d\|[+-]", tables)

    options = ("--conf", conf, *COMPOSE, "--test_sets", "newstest2013 newstest2014", "--baseline_swap", "true")
    said = run(recipe, "./run_swap.sh", *options, "--seeds", "1", WMT14_EN_DE=corpus)
    others = {f"{k}_{d}" for k in ("isolated", "architecture") for d in ("legonn", "beam_conv")}
    assert {p.name for p in (recipe / "exp").glob("legonn_*_1_1")} == {f"legonn_{kind}_1_1" for kind in others}
    assert all(f"{kind}: " in said for kind in others)

    for system in ("legonn", "beam_conv", "no_ctc", "baseline"):
        shutil.copytree(recipe / "exp" / f"legonn_{system}_seed1", recipe / "exp" / f"legonn_{system}_seed2")
    shared = recipe.parents[1] / "TEMPLATE" / "legonn1" / "composition.sh"
    lines, others = shared.read_text().splitlines(keepends=True), re.compile(r' *plug "?(architecture|isolated)_')
    assert sum(map(bool, map(others.match, lines))) == 4
    shared.write_text("".join(line for line in lines if not others.match(line)))
    said = run(recipe, "./run_swap.sh", *options, "--seeds", "1 2", WMT14_EN_DE=corpus)
    assert said.count("scored before") == 2 and "trained without CTC" in said
    assert len(list((recipe / "exp").glob("legonn_seed_*_[12]_[12]"))) == 8
    assert "hidden states are no interface" in said, "the ordinary model, by force"
    means = {p.parent.name: json.loads(p.read_text())["of"] for p in (recipe / "exp/mean").glob("seed_*/result.json")}
    means = {name: of for name, of in means.items() if not name.endswith("_reference")}
    assert {name: len(of) for name, of in means.items()} == {
        "seed_legonn": 4, "seed_beam_conv": 4, "seed_baseline": 4,
        "seed_legonn_newstest2014": 2, "seed_beam_conv_newstest2014": 2, "seed_baseline_newstest2014": 2,
        "seed_no_ctc_newstest2014": 2,
    }  # fmt: skip
    assert "|29.2|" in (recipe / "exp" / "TABLES_swap.md").read_text()
