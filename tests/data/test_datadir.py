from __future__ import annotations

import pytest

from espnet2_legonn.data.datadir import DataDir, fix, spk2utt, validate, write_datadir
from espnet2_legonn.errors import DataError


def faults_of(path, **options):
    with pytest.raises(DataError) as caught:
        validate(path, **options)
    return "\n".join(caught.value.faults)


def test_valid_directories(write, good):
    assert validate(write("speech", good)) == 3
    translation = {"src_text": "a x\nb y\n", "text": "a p\nb q\n", "utt2spk": "a a\nb b\n"}
    assert validate(write("mt", translation)) == 2
    cased = {"text.tc.de": "a x\n", "text.tc.en": "a p\n", "utt2spk": "a a\n"}
    assert validate(write("cased", cased)) == 1


def test_missing_directory():
    with pytest.raises(DataError, match="nowhere: no such data directory"):
        DataDir("nowhere")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("text", "a-1 x\na-1 y\na-2 z\nb-1 w\n", "text:2: 'a-1' occurs twice: it repeats line 1; ids must be unique"),
        ("text", "a-2 x\na-1 y\nb-1 w\n", "text:2: 'a-1' is not sorted: it follows 'a-2'"),
        ("text", "a-1 x\na-2\nb-1 w\n", "text:2: 'a-2' has empty text"),
        ("text", "a-1 x\na-2 y\u00a0z\nb-1 w\n", "text:2: 'a-2' has unprintable or unusual .*U\\+00A0"),
        ("text", "a-1 x\nb-1 w\n", "utt2spk:2: 'a-2' is not in text"),
        ("text", "a-1 x\na-2 y\nb-1 w\nb-2 v\n", "text:4: 'b-2' is not in utt2spk"),
        ("text", "a-1 x\na-2 \udcff\nb-1 w\n", "text:2: not UTF-8"),
        ("utt2spk", "a-1 a\na-2 a b\nb-1 b\n", "utt2spk:2: 'a-2': 2 fields expected, 3 found"),
        ("utt2spk", "a-1 z\na-2 z\nb-1 b\n", "'b-1': speaker 'b' sorts before the previous one, 'z'"),
        ("spk2utt", "a a-1\nb b-1\n", "spk2utt:1: 'a' does not agree with utt2spk"),
        ("spk2utt", "a a-1 a-2\n", "spk2utt: speaker 'b' of utt2spk is missing"),
        ("segments", "a-1 r1 0 1\na-2 r9 0 1\nb-1 r2 0 1\n", "'a-2': recording 'r9' is not in wav.scp"),
        ("segments", "a-1 r1 0 1\na-2 r1 2 1\nb-1 r2 0 1\n", "segments:2: 'a-2': segment '2' to '1' s"),
        ("segments", "a-1 r1 0 1\na-2 r1 0 x\nb-1 r2 0 1\n", "segments:2: 'a-2': segment '0' to 'x' s"),
        ("segments", "a-1 r1 0 1\na-2 r1 1\nb-1 r2 0 1\n", "segments:2: 'a-2': 4 fields expected, 3 found"),
        ("wav.scp", "r1 r1.wav\nr2 r2.wav\nr3 x\n", "wav.scp:3: recording 'r3' is used by no segment"),
        ("wav.scp", "r1\nr2 r2.wav\n", "wav.scp:1: 'r1': no value after the key"),
        ("reco2dur", "r1 0.5\nr2 3\n", "segments:2: 'a-2' ends at 1.0 s, 'r1' lasts 0.50 s"),
        ("reco2dur", "r1 5\nr2 -3\n", "reco2dur:2: 'r2': '-3' is not a positive number"),
        ("text_phn", "", "text_phn: empty file"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_line(write, good, file, content, message):
    with pytest.raises(DataError, match=message):
        validate(write("d", good | {file: content}))


@pytest.mark.parametrize(
    ("gone", "message", "option"),
    [
        ("utt2spk", "utt2spk is missing; `fix` can make one", None),
        ("text", "no text .*--no_text", "text"),
        ("wav.scp", "neither wav.scp nor src_text.*--no_wav", "wav"),
    ],
)
def test_missing_tables(write, good, gone, message, option):
    del good[gone]
    folder = write("d", good)
    with pytest.raises(DataError, match=message):
        validate(folder)
    if option:
        assert validate(folder, **{option: False}) == 3


def test_all_faults_come_together(write, good):
    text = faults_of(write("d", good | {"text": "b-1 x\na-1\n", "utt2spk": "a-1 a\na-2\nb-1 b\n"}))
    for part in ("text:2: 'a-1' is not sorted", "text:2: 'a-1' has empty", "utt2spk:2: 'a-2': 2 fields", "not in text"):
        assert part in text


def test_options_silence_their_fault(write, good):
    swapped = good | {"utt2spk": "a-1 z\na-2 z\nb-1 b\n", "spk2utt": "b b-1\nz a-1 a-2\n", "spk2gender": "b f\nz m\n"}
    assert validate(write("d", swapped), spk_sort=False) == 3
    assert validate(write("e", good | {"text": "a-1 x\na-2\nb-1 y\n"}), allow_empty_text=True) == 3


def test_durations_are_compared_with_segments(write, good):
    def seconds(spec):
        if spec == "r2.wav":
            raise DataError("cannot decode")
        return 0.5

    text = faults_of(write("d", good), durations=seconds)
    assert "segments:2: 'a-2' ends at 1.0 s, 'r1' lasts 0.50 s" in text
    assert "wav.scp:2: 'r2': cannot decode" in text


def test_fix_sorts_intersects_and_keeps_a_backup(write, good):
    files = good | {
        "text": "b-1 on a mat\na-1 the cat\na-2\nc-1 gone\n",
        "segments": good["segments"] + "b-2 r9 0 1\n",
        "utt2spk": "a-1 a\na-1 b\na-2 a\nb-1 b\nb-2 b\n",
    }
    folder = write("d", files)
    report = fix(folder)
    assert validate(folder) == 2
    assert (folder / "text").read_text() == "a-1 the cat\nb-1 on a mat\n"
    assert (folder / "spk2utt").read_text() == "a a-1\nb b-1\n"
    assert (folder / ".backup" / "text").read_text() == files["text"]
    told = str(report)
    for part in (
        "kept 2 utterances", "dropped 1: empty text in text (a-2)", "not in text (a-2)", "rewrote text",
        "dropped 1: not in segments, utt2spk (c-1)", "dropped 1: repeated in utt2spk, first line kept (a-1)",
        "dropped 1: not in text, wav.scp (b-2)",
    ):  # fmt: skip
        assert part in told, part
    assert "rewrote" not in str(fix(folder))  # nothing left to do


def test_fix_cures_line_ends_and_makes_utt2spk(write):
    folder = write("d", {"src_text": "b x\r\na y\n", "text": "b p\na q\nc \udcff\n"})
    told = str(fix(folder))
    assert validate(folder) == 2
    assert "text:3: not UTF-8" in told and "src_text:1: Windows" in told and "made utt2spk from text" in told


def test_fix_can_keep_empty_text(write, good):
    folder = write("d", good | {"text": "a-1 x\na-2\nb-1 y\n"})
    fix(folder, allow_empty_text=True)
    assert (folder / "text").read_text() == "a-1 x\na-2\nb-1 y\n"


def test_fix_refuses_to_empty_a_directory(write, good):
    folder = write("d", good | {"text": "z x\n"})
    with pytest.raises(DataError, match="no utterance is in all of"):
        fix(folder)
    assert (folder / "text").read_text() == "z x\n"
    with pytest.raises(DataError, match="is it a data directory"):
        fix(write("e", {"spk2gender": "a m\n"}))


def test_writing_removes_tables_of_an_earlier_run(tmp_path, write, good):
    folder = write("d", good)
    (folder / "notes").write_text("mine")
    write_datadir(folder, {"utt2spk": {"u": "s"}, "text": {"u": "x"}})
    assert sorted(p.name for p in folder.iterdir()) == ["notes", "spk2utt", "text", "utt2spk"]
    with pytest.raises(DataError, match="no utterance left to write"):
        write_datadir(tmp_path / "n", {"utt2spk": {}})
    assert dict(spk2utt({"b": "s", "a": "s"})) == {"s": "a b"}


def test_tables_lists_the_faults_of_all(write):
    folder = write("d", {"text": "a 1\na 2\n", "utt2spk": "\n"})
    with pytest.raises(DataError, match=r"text:2: 'a' occurs twice[^\n]*\n[^\n]*utt2spk:1: no key"):
        DataDir(folder).tables()
