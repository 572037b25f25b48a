"""No step runs on a directory that is not valid, and none makes one smaller in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from espnet2_legonn.data.checks import number, row_fault, text_fault
from espnet2_legonn.data.datadir import DataDir, fix, restrict, validate
from espnet2_legonn.data.dirops import combine, copy, subset
from espnet2_legonn.data.filter import Limits, filter_dir
from espnet2_legonn.data.format_wav import Options, format_wav
from espnet2_legonn.data.perturb import perturb
from espnet2_legonn.errors import DataError

STEPS: dict[str, Callable[[Path, Path], object]] = {
    "format": lambda source, dest: format_wav(source, dest, Options()),
    "filter": lambda source, dest: filter_dir(source, dest, Limits()),
    "copy": copy,
    "subset": lambda source, dest: subset(source, dest, "first", 1),
    "perturb": lambda source, dest: perturb(source, dest, ["0.9"]),
    "combine": lambda source, dest: combine([source], dest),
}
# What is wrong: file, content, and the beginning of the fault.
WRONG = {
    "a table with fewer rows": ("text", "a-1 x\nb-1 y\n", "utt2spk:2: 'a-2' is not in text"),
    "a table with more rows": ("text", "a-1 x\na-2 y\nb-1 z\nb-2 z\n", "text:4: 'b-2' is not in utt2spk"),
    "a short row": ("segments", "a-1\na-2 r1 0 1\nb-1 r2 0 1\n", "segments:1: 'a-1': 4 fields expected, 1 found"),
    "a long row": ("utt2spk", "a-1 a b\na-2 a\nb-1 b\n", "utt2spk:1: 'a-1': 2 fields expected, 3 found"),
    "a negative start": ("segments", "a-1 r1 -0.5 1\na-2 r1 0 1\nb-1 r2 0 1\n", "segments:1: 'a-1': segment '-0.5'"),
    "a negative end": ("segments", "a-1 r1 0 -0.5\na-2 r1 0 1\nb-1 r2 0 1\n", "segment '0' to '-0.5'"),
    "a decimal comma": ("segments", "a-1 r1 0,5 1,9\na-2 r1 0 1\nb-1 r2 0 1\n", "write a decimal point, not a comma"),
    "no number": ("segments", "a-1 r1 nan 1\na-2 r1 0 inf\nb-1 r2 0 1_0\n", "segments:3: 'b-1': segment '0' to '1_0'"),
    "an endless segment": ("segments", "a-1 r1 0 1\na-2 r1 0 inf\nb-1 r2 0 1\n", "segment '0' to 'inf'"),
    "beyond the recording": ("reco2dur", "r1 0.3\nr2 1\n", "segments:1: 'a-1' ends at 0.4 s, 'r1' lasts 0.30 s"),
    "an unknown recording": ("segments", "a-1 r9 0 1\na-2 r1 0 1\nb-1 r2 0 1\n", "recording 'r9' is not in wav.scp"),
    "an id with a path": ("wav.scp", "r/1 x\nr1 x\nr2 y\n", "wav.scp:1: 'r/1': an id names files"),
    "a speaker with a path": ("utt2spk", "a-1 a/b\na-2 a/b\nb-1 b\n", "utt2spk:1: 'a-1': 'a/b': an id names files"),
    "an invisible id": ("text", "a-1\u200b x\na-2 y\nb-1 z\n", "text:1: 'a-1<U+200B>': an id holds U+200B"),
    "a byte-order mark": ("text", "\ufeffa-1 x\na-2 y\nb-1 z\n", "text:1: starts with a byte-order mark"),
    "a carriage return": ("text", "a-1 x\ra-2 y\na-2 y\nb-1 z\n", "text:1: a carriage return inside the line"),
    "no NFC": ("text", "a-1 e\u0301\na-2 y\nb-1 z\n", "text:1: 'a-1' is not Unicode NFC"),
    "odd white space": ("text", "a-1 x\u3000y\na-2 y\nb-1 z\n", "text:1: 'a-1' has unprintable or unusual"),
    "half a sample": ("utt2num_samples", "a-1 1.5\na-2 1\nb-1 1\n", "'1.5' is not a positive number of samples"),
    "a speed": ("utt2speed", "a-1 9\na-2 1\nb-1 1\n", "utt2speed:1: 'a-1': '9' is not a speed from 0.5 to 2"),
    "a foreign speaker": ("spk2gender", "a m\nb f\nz f\n", "spk2gender:3: 'z' is no speaker of utt2spk"),
    "nothing": ("text", "", "text: empty file"),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize(("file", "content", "message"), WRONG.values(), ids=WRONG)
def test_no_step_runs_on_a_faulty_directory(tmp_path, write, good, step, file, content, message):
    source = write("d", good | {file: content})
    with pytest.raises(DataError) as of_validate:
        validate(source, spk_sort=False)  # Kaldi's order of speakers does not matter to any step
    with pytest.raises(DataError) as of_step:
        step(source, tmp_path / "out")
    assert any(message in fault for fault in of_validate.value.faults)
    assert set(of_step.value.faults) == set(of_validate.value.faults), "the same checks"
    assert not (tmp_path / "out").exists()


def test_validate_wants_order(write, good):
    """The steps sort what they read (test_archives.py); ``validate`` says what is in the files."""
    with pytest.raises(DataError, match="text:2: 'a-1' is not sorted"):
        validate(write("d", good | {"text": "a-2 x\na-1 y\nb-1 z\n"}), spk_sort=False)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_directory_without_utt2spk_is_not_valid(tmp_path, write, good, step):
    with pytest.raises(DataError, match="utt2spk is missing; `fix` can make one"):
        step(write("d", {name: good[name] for name in ("wav.scp", "segments", "text")}), tmp_path / "o")


def test_nothing_becomes_smaller_without_a_word():
    with pytest.raises(DataError, match="text: no line for 1 utterances that other tables have: 'b'"):
        restrict({"utt2spk": {"a": "s", "b": "s"}, "text": {"a": "x"}}, ["a", "b"])
    assert restrict({"utt2spk": {"a": "s", "b": "s"}, "text": {"a": "x"}}, ["a"])["text"] == {"a": "x"}


def test_prefixes_make_ids(tmp_path, write, good):
    for prefix, message in (("a b-", "U\\+0020|holds"), ("x/", "an id names files"), ("y" * 199, "at most 200 bytes")):
        with pytest.raises(DataError, match=message):
            copy(write(f"d{len(prefix)}", good), tmp_path / "c", utt_prefix=prefix)
        assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("text", ["1_000", "inf", "-inf", "nan", "0x10", "١", "1,5", "", "1e", "1e999", " 1"])
def test_what_is_no_number(text):
    assert number(text) != number(text)
    assert row_fault("reco2dur", f"{text}") is not None


def test_numbers():
    assert [number(t) for t in ("1", "1.", ".5", "-1", "+2e-1")] == [1, 1, 0.5, -1, 0.2]
    assert row_fault("segments", "r 0 -1") is None and row_fault("segments", "r 0.5 -1.0") is None


def test_letters_are_joined_where_their_script_joins_them():
    assert text_fault("می\u200cخواهم") is None  # Persian
    assert text_fault("क्\u200dष") is None  # Hindi
    assert "U+200C" in str(text_fault("ca\u200ct")) and "U+200B" in str(text_fault("می\u200bخ"))
    assert text_fault("\u1112\u1161\u11ab") is not None and text_fault("한") is None
    assert text_fault("e\u0301", nfc=False) is None


def test_raw_references_are_as_they_were_published(write):
    files = {"text": "a x\n", "src_text": "a y\n", "text.raw": "a x\u00a0e\u0301\n", "utt2spk": "a a\n"}
    assert validate(write("d", files)) == 1


@pytest.mark.parametrize("name", ["text.orig", "text.bak", "text~", "src_text.old", "text.en.save", "utt2spk.orig"])
def test_copies_that_people_leave_are_no_tables(write, good, name):
    folder = write("d", good | {name: "a-1 x\n"})
    assert validate(folder) == 3
    assert fix(folder).kept == 3 and name not in DataDir(folder).names()


def test_the_first_backup_stays(write, good):
    folder = write("d", good | {"text": "a-1 x\na-2 y\nb-1 z\n", "segments": good["segments"] + "c r1 0 1\n"})
    told = str(fix(folder))
    assert f"the files as they were are in {folder / '.backup'}" in told
    assert "are in" not in str(fix(folder)) and not (folder / ".backup.2").exists()  # nothing changed
    (folder / "text").write_text("a-1 x\nb-1 z\n")
    assert f"are in {folder / '.backup.2'}" in str(fix(folder))
    assert (folder / ".backup" / "segments").read_text().endswith("c r1 0 1\n")
    assert (folder / ".backup" / "text").read_text() == "a-1 x\na-2 y\nb-1 z\n"
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == [".backup", ".backup.2"]


def test_fix_drops_what_is_no_id(write, good):
    folder = write("d", {"text": "a x\nb/c y\n", "src_text": "a p\nb/c q\n"})
    told = str(fix(folder))
    assert validate(folder) == 1 and "in text" in told and "dropped 1: an id names files" in told and "(b/c)" in told
