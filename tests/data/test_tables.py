from __future__ import annotations

import pytest

from espnet2_legonn.data.tables import (
    Faults,
    atomic_text,
    is_text,
    read_table,
    scan_table,
    split_fields,
    table_kind,
    write_table,
)
from espnet2_legonn.errors import DataError


def test_written_sorted_by_bytes_and_read_back(tmp_path):
    table = {"é": "x", "b": "two words", "B": "", "a-1": "y", "a": "z", "\U0001f600": "q", "\uff5e": "r"}
    write_table(tmp_path / "t", table)
    keys = [line.split(b" ")[0] for line in (tmp_path / "t").read_bytes().split(b"\n")[:-1]]
    assert keys == sorted(k.encode() for k in table)
    assert read_table(tmp_path / "t") == table


def test_only_newline_ends_a_line_and_only_blanks_separate(tmp_path):
    (tmp_path / "t").write_bytes("a  x\u2028y\u00a0z \nb\ttab\n".encode())
    assert read_table(tmp_path / "t") == {"a": "x\u2028y\u00a0z", "b": "tab"}
    assert split_fields("p\u00a0q r\ts") == ["p\u00a0q", "r", "s"]
    assert split_fields("") == []


def test_faults_carry_line_numbers_and_are_reported_together(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa 1\nb \xff\n\n c\nd 2\r\na 3\n")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t")
    expected = ["byte-order mark", "not UTF-8 (byte 3)", "no key", "no key", "Windows line end", "'a' occurs twice"]
    for line, words in enumerate(expected, start=1):
        assert any(f"t:{line}: " in fault and words in fault for fault in caught.value.faults), words
    rows = scan_table(tmp_path / "t", Faults())
    assert [(r.line, r.key, r.value) for r in rows] == [(1, "a", "1"), (5, "d", "2"), (6, "a", "3")]


def test_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing: no such file"):
        read_table(tmp_path / "nothing")


def test_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    write_table(tmp_path / "t", {"a": "1"})
    with pytest.raises(RuntimeError), atomic_text(tmp_path / "t") as stream:
        stream.write("half")
        raise RuntimeError
    assert read_table(tmp_path / "t") == {"a": "1"}
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wav.scp", "reco"), ("reco2dur", "reco"), ("spk2utt", "spk"), ("utt2speed", "utt"),
        ("segments", "utt"),
        ("text.lc.rm.en", "utt"), ("src_text", "utt"), ("text_phn", "utt"), ("feats_type", None),
        ("text.bak", None), ("text.gz", None), ("README.md", None),
    ],
)  # fmt: skip
def test_kinds(name, kind):
    assert table_kind(name) == kind
    assert is_text(name) == (name.startswith(("text", "src_text")) and kind == "utt")
