"""`legonn vocab`: made, adopted and existing vocabularies, and how they fit corpora."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from pathlib import Path

import pytest

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data import vocab_report
from espnet2_legonn.data.given_vocab import adopt, read_list
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from tests.says import Says

MERGES = "#version: 0.2\na p\nap p\np l\npl a\nn s</w>\npla ns</w>\no v\n"
WORDS = "approved plans"
PIECES = "app@@ r@@ ov@@ e@@ d plans"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A list with counts and merges, as subword-nmt writes them, and two tables."""
    (tmp_path / "bpe.32000").write_text(MERGES)
    (tmp_path / "vocab.bpe.32000").write_text("app@@ 4\nr@@ 4\nov@@ 3\ne@@ 2\nd 2\nplans 1\n")
    (tmp_path / "text").write_text("u1 approved plans\nu2 plans plans\nu3 plank\n")
    (tmp_path / "src_text").write_text("u1 plans\nu2 plans plans plans\nu3 d\n")
    return tmp_path


def adopted(given: Path) -> Vocabulary:
    return adopt(given / "vocab.bpe.32000", given / "v", "bpe", given / "bpe.32000")


def test_merges_of_subword_nmt_as_given(given: Path) -> None:
    vocab = adopted(given)
    assert vocab.tokens == ("<blank>", "<unk>", "app@@", "r@@", "ov@@", "e@@", "d", "plans", "<sos/eos>")
    assert vocab.split(WORDS) == PIECES.split() and vocab.decode(vocab.encode(WORDS)) == WORDS
    assert vocab.decode([2, 3]) == "appr", "a hypothesis may end inside a word"
    again = pickle.loads(pickle.dumps(vocab))
    assert again.split(WORDS) == PIECES.split()
    assert (given / "v" / "bpe.model").read_text() == MERGES


def test_merges_without_a_head_are_read_as_version_01(given: Path) -> None:
    (given / "old").write_text(MERGES.split("\n", 1)[1])
    vocab = adopt(given / "vocab.bpe.32000", given / "v", "bpe", given / "old")
    assert vocab.bpemodel.startswith(b"#version: 0.1\n") and vocab.split("app")


def test_damaged_vocabularies(given: Path) -> None:
    (given / "bad").write_text("#version: 0.2\na b c\n")
    with pytest.raises(DataError, match="damaged merges of subword-nmt"):
        adopt(given / "vocab.bpe.32000", given / "v", "bpe", given / "bad")
    (given / "list").write_text("a 1\nb 2 3\na 4\n")
    with pytest.raises(DataError) as caught:
        read_list(given / "list")
    assert caught.value.faults == [
        f"{given}/list:2: 3 fields; a unit, and perhaps its count, are expected",
        f"{given}/list:3: 'a' stands in line 1 already",
    ]
    with pytest.raises(DataError, match="unit bpe: merges or a sentencepiece model go with unit bpe"):
        adopt(given / "vocab.bpe.32000", given / "v", "bpe")
    (given / "empty").write_text("<s>\n</s>\n")
    with pytest.raises(DataError, match="no unit in this list"):
        read_list(given / "empty")


def test_fixed_list_of_words(given: Path) -> None:
    (given / "words").write_text("plans\napproved\n")
    vocab = adopt(given / "words", given / "w", "word")
    assert vocab.encode("approved plank") == [3, 1] and not (given / "w" / "bpe.model").exists()


def test_a_vocabulary_of_ours_stays_as_it_is(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vocab", str(given / "one"), "--train", str(given / "text"), "--size", "24"]) == 0
    capsys.readouterr()
    options = ["--list", str(given / "one/tokens.txt"), "--model", str(given / "one/bpe.model")]
    assert main(["vocab", str(given / "two"), *options]) == 0
    for name in ("tokens.txt", "bpe.model"):
        assert (given / "one" / name).read_bytes() == (given / "two" / name).read_bytes()


def test_report_by_hand(given: Path) -> None:
    """u3 is p@@ l@@ a@@ n@@ k: 5 unknown units. Steps 2, 4, 2 (with the end) give 4, 8, 4 slots at ratio 2."""
    vocab = adopted(given)
    text = vocab_report.Text(given / "text", given / "src_text")
    fit = vocab_report.fit(vocab, text, vocab_report.Lengths(Fraction(2), 100, vocab))
    pieces = [len(vocab.split(t)) for t in ("approved plans", "plans plans", "plank")]
    assert (fit.lines, fit.words, fit.tokens) == (3, 5, sum(pieces))
    assert fit.unknown_words == 1 and fit.unknown_tokens == pieces[2]
    assert fit.oov_rate == pieces[2] / sum(pieces) and fit.fertility == sum(pieces) / 5
    assert fit.slots_per_token == 16 / sum(pieces)
    # u1 has 6 units in 4 slots; u2 has 2 and a repeat in 8; u3 has unknowns in a row: each needs a blank between.
    assert fit.infeasible == 2
    capped = vocab_report.fit(vocab, text, vocab_report.Lengths(Fraction(2), 2, vocab))
    assert capped.infeasible == 3 and capped.slots_per_token == 6 / sum(pieces)


def test_speech_inputs_have_the_steps_of_the_model(tmp_path: Path) -> None:
    import torch

    from espnet2_legonn.model.parts.frames import ConvSubsampling
    from espnet2_legonn.model.parts.speech import LogMel

    vocab = Vocabulary(("<blank>", "<unk>", "a", "<sos/eos>"), "word")
    log_mel, conv = LogMel(), ConvSubsampling(80, 8, (1, 1))
    lengths = vocab_report.Lengths(Fraction(1), 1000, vocab)
    for samples in (1, 400, 512, 672, 16000, 123457):
        expected = int(conv.steps(log_mel.frames(torch.tensor(samples))))
        assert lengths.steps("utt2num_samples", str(samples)) == expected


def test_table_and_json(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adopted(given)
    corpora = ["--on", f"{given}/text,{given}/src_text", str(given / "src_text")]
    assert main(["vocab", str(given / "v"), *corpora]) == 0
    said = capsys.readouterr()
    table = said.out.splitlines()
    assert "% of the tokens are <unk>, more than 5 %" in said.err
    assert table[0].startswith("bpe vocabulary of 9 units, sha256 ")
    assert table[1].split()[:4] == ["corpus", "lines", "words", "units"] and len(table) == 4
    assert table[3].split()[-2:] == ["-", "-"], "no inputs, no slots"
    assert main(["vocab", str(given / "v"), *corpora, "--json", "--ratio", "1/1.5"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ratio"] == "2/3" and [c["lines"] for c in report["corpora"]] == [3, 3]
    assert report["corpora"][1]["slots_per_token"] is None and report["corpora"][0]["infeasible"] == 2


def test_joint_vocabulary_of_several_corpora(given: Path, says: Says) -> None:
    tables = [str(given / "text"), str(given / "src_text")]
    table = says(main, ["vocab", str(given / "j"), "--train", *tables, "--size", "24", "--model_type", "bpe"])
    assert all(name in table for name in tables) and table.count("0.000") == 2


def test_faults_of_the_command(given: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    for options, fault in (
        (["--train", str(given / "text")], "unit bpe needs --size N"),
        (["--ratio", "0"], "--ratio 0: a positive number"),
        ([], "no such token list"),
        (["--list", str(given / "nowhere"), "--unit", "word"], "nowhere: no such file"),
    ):
        assert fault in says(main, ["vocab", str(given / "new"), *options], 2)
    adopted(given)
    (given / "short").write_text("u1 plans\n")
    assert main(["vocab", str(given / "v"), "--on", f"{given}/text,{given}/short"]) == 2
    assert "short: no line for u2, which" in capsys.readouterr().err
