from __future__ import annotations

import pytest

from espnet2_legonn.data.text import NORMALIZATIONS, normalize, normalize_lines, normalize_table, placed
from espnet2_legonn.errors import DataError


@pytest.mark.parametrize(
    ("raw", "tc", "lc", "rm"),
    [
        ("Hello,  World!", "Hello, World!", "hello, world!", "hello world"),
        ("It\u2019s 'Fine'", "It\u2019s 'Fine'", "it\u2019s 'fine'", "it's fine"),
        ("a\u00a0b\u200bc \ufeffd\te\u2028f", "a bc d e f", "a bc d e f", "a bc d e f"),
        ("o'er dogs' '90s", "o'er dogs' '90s", "o'er dogs' '90s", "o'er dogs 90s"),
        ("\u00c4\u2013B 5\u20ac", "\u00c4\u2013B 5\u20ac", "\u00e4\u2013b 5\u20ac", "\u00e4 b 5"),
        ("e\u0301te\u0301\x00x", "\u00e9t\u00e9 x", "\u00e9t\u00e9 x", "\u00e9t\u00e9 x"),
        ("\u0130stanbul", "\u0130stanbul", "i\u0307stanbul", "i\u0307stanbul"),
        (" \u00a0 ", "", "", ""),
    ],
)  # fmt: skip
def test_normalisations(raw, tc, lc, rm):
    for name, wanted in zip(NORMALIZATIONS, (tc, lc, rm), strict=True):
        assert normalize(raw, name) == wanted
        assert normalize(wanted, name) == wanted  # idempotent


def test_unknown_name():
    with pytest.raises(DataError, match="unknown text normalisation 'upper'; choose one of tc, lc, lc.rm"):
        normalize("x", "upper")


def test_tables_and_plain_files(tmp_path):
    (tmp_path / "text").write_text("b Hi, You\na ...\n")
    assert normalize_table(tmp_path / "text", tmp_path / "text", "lc.rm") == (2, ["a"])
    assert (tmp_path / "text").read_text() == "a\nb hi you\n"
    (tmp_path / "plain").write_bytes("B\u2028b\r\n!\n\nC".encode())
    assert normalize_lines(tmp_path / "plain", tmp_path / "out", "lc.rm") == (4, 2)
    assert (tmp_path / "out").read_text() == "b b\n\n\nc\n"
    assert [text for _, text in placed(tmp_path / "out", plain=True)] == ["b b", "", "", "c"]


def test_unreadable_plain_files(tmp_path):
    with pytest.raises(DataError, match="none: no such file"):
        normalize_lines(tmp_path / "none", tmp_path / "out", "tc")
    (tmp_path / "latin").write_bytes(b"ok\nJos\xe9\n")
    with pytest.raises(DataError, match=r"latin:2: not UTF-8 \(byte 4\)"):
        normalize_lines(tmp_path / "latin", tmp_path / "out", "tc")
    assert not (tmp_path / "out").exists()
