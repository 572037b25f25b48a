"""What a line, a field and an id are: one definition for every reader, and never another reading than ESPnet's."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from espnet2_legonn.data import given_vocab, tables
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.data.vocab import make_word
from espnet2_legonn.data.vocabulary import read_tokens
from espnet2_legonn.errors import DataError
from espnet2_legonn.files import lines
from espnet2_legonn.recipes.jobs import count_keys
from espnet2_legonn.scoring.tables import Joined
from espnet2_legonn.training.description import total_length

BOM = b"\xef\xbb\xbf"
TABLES: dict[str, Callable[[Path], object]] = {
    "tables": tables.read_table,
    "scoring": lambda path: list(Joined([path], path).pairs()),
    "jobs": count_keys,
    "shapes": total_length,
}
LISTS: dict[str, Callable[[Path], object]] = {
    "plain text": lambda path: list(plain_lines(path)),
    "token list": read_tokens,
    "given list": given_vocab.read_list,
    "vocabulary of plain text": lambda path: make_word([path], path.parent / "v", plain=True),
}


def faults_of(read: Callable[[Path], object], path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    return caught.value.faults


@pytest.mark.parametrize("read", [*TABLES.values(), *LISTS.values()], ids=[*TABLES, *LISTS])
def test_every_reader_refuses_what_is_no_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """A byte-order mark and bytes that are not UTF-8, by file and line, all of them."""
    faults = faults_of(read, tmp_path / "f", BOM + b"a 3\nb 4\nc \xe4\nd \xff\n")
    assert faults[:3] == [
        f"{tmp_path}/f:1: starts with a byte-order mark; remove it",
        f"{tmp_path}/f:3: not UTF-8 (byte 3); convert the file with iconv",
        f"{tmp_path}/f:4: not UTF-8 (byte 3); convert the file with iconv",
    ]


@pytest.mark.parametrize("read", [*TABLES.values(), read_tokens], ids=[*TABLES, "token list"])
def test_a_carriage_return_is_no_part_of_a_table(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """ESPnet ends a line at it: half a value, and a line that nobody wrote."""
    assert f"{tmp_path}/f:2: Windows line end" in faults_of(read, tmp_path / "f", b"a 3\nb 4\r\n")[0]
    assert "f:1: a carriage return inside the line, where ESPnet would end it" in "".join(
        faults_of(read, tmp_path / "f", b"a 3\rx 4\nb 5\n")
    )


def test_windows_line_ends_of_plain_text_are_cured(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("a\u2028b\r\n\n\x0cc\x85\nd".encode())
    assert list(plain_lines(tmp_path / "f")) == ["a\u2028b", "", "\x0cc\x85", "d"]


def test_a_stream_gives_each_line_as_it_comes() -> None:
    stream = iter([b"one\n", b"\xff\n", b"two"])
    scanned = lines.scan(stream, "x")
    assert next(scanned) == (1, "one", ())
    assert next(stream) == b"\xff\n"  # nothing was read ahead


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("u\u00a01", "an id holds U+00A0"), ("u\u30001", "an id holds U+3000"),
        ("u\u200b1", "an id holds U+200B"), ("u\ufeff", "an id holds U+FEFF"), ("u\u034f", "an id holds U+034F"),
        ("u\u3164", "an id holds U+3164"), ("u\x1f", "an id holds U+001F"), ("u\x85v", "an id holds U+0085"),
        ("a/b", "an id names files"), ("a\\b", "an id names files"), ("..", "an id names files"),
        (".", "an id names files"), ("x" * 201, "an id has at most 200 bytes, this one 201"),
        ("ä" * 101, "an id has at most 200 bytes, this one 202"),
    ],
)  # fmt: skip
def test_what_is_no_id(tmp_path: Path, key: str, message: str) -> None:
    assert any(message in fault for fault in faults_of(tables.read_table, tmp_path / "t", f"{key} x\n".encode()))
    assert any(message in fault for fault in faults_of(TABLES["scoring"], tmp_path / "t", f"{key} x\n".encode()))
    with pytest.raises(DataError, match="an id "):
        tables.write_table(tmp_path / "w", {key: "x"})
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("key", ["a", "sp0.9-en_4156-A", "é", "\U0001f600", "x" * 200, "..a", "話者1", "a:b*?"])
def test_what_is_an_id(tmp_path: Path, key: str) -> None:
    tables.write_table(tmp_path / "t", {key: "x"})
    assert tables.read_table(tmp_path / "t") == {key: "x"}


@pytest.mark.parametrize("value", ["x\u00a0", "\u3000x", "\u2028", "a\nb", "a\rb"])
def test_values_that_others_would_read_otherwise_are_neither_read_nor_written(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match="'u': (white space U|a line end inside)"):
        tables.write_table(tmp_path / "t", {"u": value})
    if "\n" not in value:
        faults_of(tables.read_table, tmp_path / "t", f"u {value}\n".encode())


def test_ids_are_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    (fault,) = faults_of(tables.read_table, tmp_path / "t", b"a\x1b[2J x\n")
    assert "'a<U+001B>[2J'" in fault and "\x1b" not in fault


def test_long_ids_with_wide_letters_name_temporary_files(tmp_path: Path) -> None:
    with tables.atomic_text(tmp_path / ("\U0001f600" * 50)) as stream:
        stream.write("x")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_read_here_espnet_reads_alike(tmp_path: Path) -> None:
    """2,000 small files of awkward characters: refused, or the same table."""
    read_text = pytest.importorskip("espnet2.fileio.read_text")
    draw, accepted = random.Random(0), 0
    letters = ["a", "b", "1", " ", " ", "\t", "\r", "\u00a0", "\u3000", "\u2028", "\x85", "\x0c", "\x1c", "é", "\ufeff"]
    for _ in range(2000):
        rows = ["".join(draw.choices(letters, k=draw.randint(0, 6))) for _ in range(draw.randint(1, 3))]
        (tmp_path / "t").write_bytes("".join(f"{row}\n" for row in rows).encode())
        try:
            ours = tables.read_table(tmp_path / "t")
        except DataError:
            continue
        accepted += 1
        assert read_text.read_2columns_text(tmp_path / "t") == ours, rows
    assert accepted > 30


def test_an_empty_line_of_a_list_is_named(tmp_path: Path) -> None:
    """In a token list it would shift no id here and every id in ESPnet."""
    (tmp_path / "t").write_text("<blank>\n<unk>\n\na\n<sos/eos>\n")
    with pytest.raises(DataError, match="t:3: an empty line is no token"):
        read_tokens(tmp_path / "t")
    (tmp_path / "t").write_text("a 1\n\nb 2\n")
    with pytest.raises(DataError, match="t:2: no unit at the start of the line"):
        given_vocab.read_list(tmp_path / "t")
