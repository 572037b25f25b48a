"""Reading parallel text: shapes, malformed corpora with every fault at once, treatments, data directories."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from espnet2_legonn.data.datadir import validate
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError
from legonn_corpora import parallel, prepare
from legonn_corpora.parallel import Corpus, EvalSet, File
from legonn_corpora.prepare import Published, Recipe, write_test, write_training
from legonn_corpora.treatment import Treatment, moses, undo_bpe
from tests.corpora.fixtures_parallel import sentences, side, write_lines, write_sgm, write_zip

PLAIN = Recipe(Treatment("undone", "de"), Treatment("undone", "en"))


def tsv(folder: Path, *lines: str | bytes) -> Corpus:
    return Corpus("c", "tsv", (File(write_lines(folder / "c.tsv", lines)),))


def pair(folder: Path, left: list[str | bytes], right: list[str | bytes]) -> Corpus:
    return Corpus("c", "pair", (File(write_lines(folder / "c.de", left)), File(write_lines(folder / "c.en", right))))


# ---- malformed corpora


def test_malformed_tsv_lists_every_fault(tmp_path: Path) -> None:
    corpus = tsv(tmp_path, "a\tb", "no tab", "a\tb\tc", b"\xff\tb", "\t", "", "d\te")
    with pytest.raises(DataError) as caught:
        write_training([corpus], PLAIN, tmp_path / "out")
    assert caught.value.faults == [
        f"{tmp_path}/c.tsv:2: no TAB, so one side is missing; source<TAB>target is expected",
        f"{tmp_path}/c.tsv:3: 3 columns; source<TAB>target is expected",
        f"{tmp_path}/c.tsv:4: not UTF-8 (byte 1); convert the file with iconv",
    ]
    assert not (tmp_path / "out").exists(), "found before anything is written"


def test_malformed_lines_can_be_listed_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tsv(tmp_path, "a\tb", "no tab", "d\te")
    write_training([corpus], PLAIN, tmp_path / "out", skip_malformed=True)
    assert list(read_table(tmp_path / "out" / "text").values()) == ["b", "e"]
    assert "c.tsv:2: no TAB" in (tmp_path / "out" / "malformed.txt").read_text()
    assert "skipped 1 malformed lines" in capsys.readouterr().out


def test_sides_of_unlike_length(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"c\.en: 2 lines, the other side has 4; from line 3 on a side is missing"):
        write_training([pair(tmp_path, ["a", "b", "c", "d"], ["A", "B"])], PLAIN, tmp_path / "out")
    with pytest.raises(DataError, match=r"c\.de: 1 lines, the other side has 3"):
        write_training([pair(tmp_path, ["a"], ["A", b"\xe9", "C"])], PLAIN, tmp_path / "out")


def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    write_lines(tmp_path / "x.de", ["a"])
    files = parallel.catalogue(tmp_path)
    with pytest.raises(DataError) as caught:
        parallel.pick(files, {"x": [("x.de", "x.en")], "y": [("y.tsv",), ("y.de", "y.en")]}, tmp_path)
    assert "x needs x.de and x.en (or .gz); only x.de is there" in caught.value.faults[0]
    assert "y needs y.tsv or y.de and y.en" in caught.value.faults[1]
    with pytest.raises(DataError, match="no such folder; the recipe's README"):
        parallel.catalogue(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'<seg id="1">a\n<seg id="2">b</seg>\n', r"t\.sgm:1: a <seg> without </seg>"),
        (b'<doc>\n<seg id="1">\xff</seg>\n', r"t\.sgm:2: not UTF-8"),
        (b"<doc></doc>\n", r"t\.sgm: no <seg>"),
    ],
)
def test_damaged_sgm(tmp_path: Path, text: bytes, fault: str) -> None:
    (tmp_path / "t.sgm").write_bytes(text)
    with pytest.raises(DataError, match=fault):
        parallel.read_sgm(File(tmp_path / "t.sgm"))


def test_test_set_of_unlike_length(tmp_path: Path) -> None:
    for name, lines in (("n-deen-src.de.sgm", ["a", "b"]), ("n-deen-ref.en.sgm", ["A"])):
        write_sgm(tmp_path / name, lines, "src", "n", ("de", "en"))
    ways = [(s, t, True) for s, t in parallel.sgm_names("n", "de", "en")]
    with pytest.raises(DataError, match=r"ref\.en\.sgm: 1 segments, .*src\.de\.sgm has 2"):
        parallel.read_test(parallel.catalogue(tmp_path), "n", ways, tmp_path)
    with pytest.raises(DataError, match="test set m needs m-deen-src.de.sgm and m-deen-ref.en.sgm or "):
        ways = [(s, t, True) for s, t in parallel.sgm_names("m", "de", "en")]
        parallel.read_test(parallel.catalogue(tmp_path), "m", ways, tmp_path)


def test_a_download_that_was_cut(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.tsv.gz", [f"a{i}\tb{i}" for i in range(999)])
    path.write_bytes(path.read_bytes()[:-50])
    corpus = Corpus("c", "tsv", (File(path),))
    with pytest.raises(DataError, match=r"c\.tsv\.gz: cut or damaged .*; get it again"):
        write_training([corpus], PLAIN, tmp_path / "out", skip_malformed=True)
    assert not (tmp_path / "out").exists()


def test_a_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "r.zip").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"r\.zip: a damaged zip"):
        parallel.catalogue(tmp_path)


def test_an_empty_segment_of_a_test_set(tmp_path: Path) -> None:
    test = parallel.EvalSet("n", ["a", "b"], ["A", "?"], True, (File(tmp_path / "s"), File(tmp_path / "t")))
    with pytest.raises(DataError, match=r"/t: segment 2 has no words after lc\.rm"):
        write_test(test, Treatment("lc.rm", "de"), Treatment("lc.rm", "en"), tmp_path / "out")


# ---- shapes


def test_gz_zip_and_nested_folders(tmp_path: Path) -> None:
    write_lines(tmp_path / "deep" / "a.tsv.gz", ["x\ty"])
    write_zip(tmp_path / "r.zip", {"inside/r.de": ["x"], "inside/r.en": ["y"]})
    files = parallel.catalogue(tmp_path)
    chosen = parallel.pick(files, {"r": [("r.de", "r.en")], "a": [("a.tsv",)]}, tmp_path)
    assert [(p.key, p.source, p.target) for p in parallel.read(chosen, [])] == [
        ("a-00000001", "x", "y"),
        ("r-00000001", "x", "y"),
    ]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    corpus = pair(tmp_path, ["a\u2028b\r", "c\x0cd"], ["A", "B"])
    assert [p.source for p in parallel.read([corpus], [])] == ["a\u2028b", "c\x0cd"]


def test_sgm_of_all_kinds(tmp_path: Path) -> None:
    rows = [s for s, _, _ in sentences(6, 1)]
    rows[2] = "Müller & Söhne <came>"
    file = File(write_sgm(tmp_path / "t.sgm", rows, "src", "n", ("en", "de")))
    assert parallel.read_sgm(file) == [r.replace("&", "&amp;") for r in rows]
    (tmp_path / "old.sgm").write_text('<DOC>\n<SEG ID=1>broken\n  over lines </SEG><seg id="2">b & c</seg>\n')
    assert parallel.read_sgm(File(tmp_path / "old.sgm")) == ["broken over lines", "b & c"]


# ---- treatments, by the rules of Moses


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("en", "Mr. Smith's public-transport plans (new).", "Mr. Smith &apos;s public @-@ transport plans ( new ) ."),
        ("de", "Die z.B. „grünen“ Pläne, 3,5 %", "Die z.B. &quot; grünen &quot; Pläne , 3,5 %"),
        ("en", "already &amp; &quot;escaped&quot;", "already &amp; &quot; escaped &quot;"),
        ("en", "no\u00a0break [1]", "no break &#91; 1 &#93;"),
    ],
)
def test_moses_tokens(language: str, text: str, tokens: str) -> None:
    assert moses(text, language, True) == tokens


def test_treatments() -> None:
    text = "The city's public-transport plans (see U.S.)!"
    assert Treatment("lc.tok", "en")(text) == "the city &apos;s public @-@ transport plans ( see u.s. ) !"
    assert Treatment("lc.tok", "en", False)(text) == "the city &apos;s public-transport plans ( see u.s. ) !"
    assert Treatment("lc.rm", "en")(text) == "the city's public transport plans see u s"
    assert Treatment("undone", "en")("ap@@ proved  it a@@") == "approved it a"
    assert Treatment("kept", "en")("ap@@ proved  it") == "ap@@ proved it"
    assert undo_bpe("x@@ y@z @@") == "xy@z "
    with pytest.raises(DataError, match=r"unknown text treatment 'lc'; choose one of tc\.tok"):
        Treatment("lc", "en")


# ---- data directories


def test_counts_for_each_filter_and_digests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = " ".join(["w"] * 6)
    corpus = tsv(tmp_path, "a\tb", "\t", "\tb", "a\t", f"{long}\t{long}", "a b\ta b c d", "ä\tb")
    recipe = Recipe(PLAIN.source, PLAIN.target, max_ratio=1.5, max_tokens=5)
    counts = write_training([corpus], recipe, tmp_path / "out")
    reasons = {"document boundary", "empty source", "empty target", "longer than 5 tokens", "length ratio above 1.5"}
    assert dict(counts.dropped["c"]) == dict.fromkeys(reasons, 1) and counts.kept["c"] == 2
    assert list(read_table(tmp_path / "out" / "src_text")) == ["c-00000001", "c-00000007"]
    said = capsys.readouterr().out
    assert "c: 7 lines, kept 2\n  dropped 1: document boundary\n" in said
    for name in ("src_text", "text"):
        digest = hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        assert f"{digest}  {tmp_path / 'out' / name}" in said
    assert validate(tmp_path / "out", wav=False) == 2


def test_a_second_run_overwrites(tmp_path: Path) -> None:
    write_training([tsv(tmp_path, "a\tb", "c\td")], PLAIN, tmp_path / "out")
    write_training([tsv(tmp_path, "x\ty")], PLAIN, tmp_path / "out")
    assert read_table(tmp_path / "out" / "text") == {"c-00000001": "y"}
    assert read_table(tmp_path / "out" / "spk2utt") == {"c-00000001": "c-00000001"}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["spk2utt", "src_text", "text", "utt2spk"]


def test_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHUNK", 7)
    rows = sentences(30, 3)
    corpus = pair(tmp_path, list(side(rows, "de")), list(side(rows, "en")))
    for nj in (1, 2):
        recipe = Recipe(Treatment("lc.tok", "de"), Treatment("lc.tok", "en"), 3.0, 80, nj)
        write_training([corpus], recipe, tmp_path / str(nj))
    assert (tmp_path / "1" / "text").read_bytes() == (tmp_path / "2" / "text").read_bytes()


def test_published_numbers(tmp_path: Path) -> None:
    corpus = tsv(tmp_path, *["a\tb"] * 9)
    write_training([corpus], PLAIN, tmp_path / "out", {"c": Published(100)})  # a fixture
    write_training([corpus], PLAIN, tmp_path / "out", {"c": Published(10, 0.1)})
    with pytest.raises(DataError, match="c: 9 pairs, published are 10; another release\\? --expect c=9"):
        write_training([corpus], PLAIN, tmp_path / "out", {"c": Published(10)})
    assert prepare.expected(["c=9"], {"c": Published(10)})["c"] == Published(9)
    with pytest.raises(DataError, match="--expect c: NAME=N is expected"):
        prepare.expected(["c"], {})


def test_nothing_left_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pair is left"):
        write_training([tsv(tmp_path, "a\t", "\t")], PLAIN, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_ids_are_unique_and_sorted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id a after b"):
        with prepare.Writer(tmp_path / "out") as writer:
            writer.write("b", "x", "y")
            writer.write("a", "x", "y")


def test_gz_of_the_fixture_is_gz(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.gz", ["ä"])
    assert gzip.decompress(path.read_bytes()).decode() == "ä\n"


def test_raw_references_are_kept_but_one_line_each(tmp_path: Path) -> None:
    """Published references hold odd white space; a table's value begins and ends with a visible character."""
    files = (File(tmp_path / "a"), File(tmp_path / "b"))
    test = EvalSet("t", ["a"], ["x\u00a0y\rz \u00a0"], True, files)
    write_test(test, PLAIN.source, PLAIN.target, tmp_path / "out")
    assert read_table(tmp_path / "out" / "text.raw") == {"t-00001": "x\u00a0y z"}
    assert validate(tmp_path / "out", wav=False) == 1
