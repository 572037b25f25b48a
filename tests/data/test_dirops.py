from __future__ import annotations

import pytest

from espnet2_legonn.data.datadir import DataDir, validate
from espnet2_legonn.data.dirops import combine, copy, relabel, subset, text_names
from espnet2_legonn.data.perturb import perturb
from espnet2_legonn.errors import DataError


@pytest.fixture
def whole():
    return {
        "wav.scp": "c-1 c1.wav\nc-2 c2.wav\n",
        "text": "c-1 x\nc-2 y\n",
        "utt2spk": "c-1 c\nc-2 c\n",
        "text_phn": "c-1 X\nc-2 Y\n",
    }


def test_combine_mixes_segments_and_whole_recordings(tmp_path, write, good, whole):
    notes = combine([write("a", good), write("b", whole)], tmp_path / "ab")
    assert validate(tmp_path / "ab") == 5
    assert DataDir(tmp_path / "ab").table("segments")["c-1"] == "c-1 0 -1"
    assert "left out text_phn: not in every source" in notes and "left out spk2gender: not in every source" in notes
    assert notes[-1].startswith("5 utterances in")


def test_combine_gives_neutral_speeds(tmp_path, write, whole):
    a = write("a", whole)
    perturb(a, tmp_path / "fast", ["1.1"])
    combine([a, tmp_path / "fast"], tmp_path / "both")
    assert DataDir(tmp_path / "both").table("utt2speed") == {
        "c-1": "1.0", "c-2": "1.0", "sp1.1-c-1": "1.1", "sp1.1-c-2": "1.1",
    }  # fmt: skip


def test_combine_refuses_common_utterances_and_contradictions(tmp_path, write, good):
    a = write("a", good)
    b = write("b", {"wav.scp": "r1 other.wav\n", "segments": "d-1 r1 0 1\n", "text": "d-1 x\n", "utt2spk": "d-1 d\n"})
    with pytest.raises(DataError, match="'a-1' is also in an earlier source; copy one with a prefix"):
        combine([a, a], tmp_path / "x")
    with pytest.raises(DataError, match="b/wav.scp: 'r1' is also in an earlier source"):
        combine([a, b], tmp_path / "x")
    with pytest.raises(DataError, match="at least one source"):
        combine([], tmp_path / "x")


@pytest.mark.parametrize(
    ("how", "value", "kept"),
    [
        ("first", 2, ["a-1", "a-2"]), ("last", 1, ["b-1"]), ("utt_list", "b-1 ignored\n", ["b-1"]),
        ("spk_list", "a\n", ["a-1", "a-2"]),
    ],
)  # fmt: skip
def test_subset(tmp_path, write, good, how, value, kept):
    if isinstance(value, str):
        (tmp_path / "list").write_text(value)
        value = tmp_path / "list"
    assert subset(write("d", good), tmp_path / "s", how, value) == len(kept)
    data = DataDir(tmp_path / "s")
    assert list(data.table("text")) == kept
    validate(data.path)  # recordings and speakers went along


def test_subset_by_speakers_takes_them_whole(tmp_path, write, good):
    assert subset(write("d", good), tmp_path / "s", "speakers", 2) in (2, 3)
    speakers = set(DataDir(tmp_path / "s").table("utt2spk").values())
    assert ("a" in speakers) and validate(tmp_path / "s")


def test_subset_faults(tmp_path, write, good):
    folder = write("d", good)
    with pytest.raises(DataError, match="4 utterances asked, there are 3"):
        subset(folder, tmp_path / "s", "first", 4)
    (tmp_path / "list").write_text("a-1\n\nnobody\n")
    with pytest.raises(DataError, match="list:3: 'nobody' is not in"):
        subset(folder, tmp_path / "s", "utt_list", tmp_path / "list")
    with pytest.raises(DataError, match="nofile: no such file"):
        subset(folder, tmp_path / "s", "spk_list", tmp_path / "nofile")
    with pytest.raises(DataError, match="utt2spk is missing; `fix` can make one"):
        subset(write("e", {"text": "a x\n"}), tmp_path / "s", "first", 1)


def test_copy_renames_everywhere(tmp_path, write, good):
    assert copy(write("d", good), tmp_path / "c", utt_prefix="x-", spk_prefix="x-") == 3
    data = DataDir(tmp_path / "c")
    assert validate(data.path) == 3
    assert data.table("segments")["x-a-1"] == "x-r1 0.0 0.4"
    assert data.table("wav.scp")["x-r1"] == "r1.wav"
    assert data.table("spk2gender") == {"x-a": "m", "x-b": "f"}
    assert data.table("utt2uniq")["x-a-1"] == "a-1"


def test_relabel_copies_all_but_what_goes_with_the_old_text(tmp_path, write, good):
    folder = write("d", {**good, "text_phn": "a-1 X\na-2 Y\nb-1 Z\n"})
    (folder / "feats_type").write_text("raw\n")
    (tmp_path / "answers").write_text("b-1 new words\na-2\na-1 other\nz-9 of nobody\n")
    assert relabel(folder, tmp_path / "r", tmp_path / "answers") == 2
    data = DataDir(tmp_path / "r")
    assert data.table("text") == {"a-1": "other", "b-1": "new words"} and validate(data.path) == 2
    assert not data.has("text_phn") and data.has("segments") and (data.path / "feats_type").read_text() == "raw\n"


def test_relabel_needs_a_text_of_each(tmp_path, write, good):
    (tmp_path / "answers").write_text("a-1 x\nb-1 y\n")
    with pytest.raises(DataError, match="answers: no text for utterance a-2 of .*/d; decode all of it"):
        relabel(write("d", good), tmp_path / "r", tmp_path / "answers")
    assert not (tmp_path / "r").exists()
    (tmp_path / "answers").write_text("a-1\na-2\nb-1\n")
    with pytest.raises(DataError, match="no utterance left to write"):
        relabel(tmp_path / "d", tmp_path / "r", tmp_path / "answers")


def test_perturb_makes_three_copies(tmp_path, write, good):
    good["utt2num_samples"] = "a-1 1\na-2 2\nb-1 3\n"
    assert perturb(write("d", good), tmp_path / "sp", ["0.9", "1.0", "1.1"]) == 9
    data = DataDir(tmp_path / "sp")
    assert validate(data.path) == 9
    assert data.table("utt2speed")["sp0.9-a-1"] == "0.9" and data.table("utt2speed")["a-1"] == "1.0"
    assert data.table("utt2spk")["sp1.1-b-1"] == "sp1.1-b"
    assert data.table("wav.scp")["sp0.9-r1"] == "r1.wav"  # no pipe
    assert data.table("segments")["sp0.9-a-1"] == "sp0.9-r1 0.0 0.4"  # times of the file on disk
    assert data.table("utt2uniq")["sp0.9-a-1"] == "a-1" and not data.has("utt2num_samples")


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (["fast"], "speed factor 'fast' must be a number from 0.5 to 2"), (["3"], "speed factor '3' must be"),
        (["1.0", "1"], "speed factors repeat: 1.0 1"), ([], "no speed factor given"),
    ],
)  # fmt: skip
def test_perturb_refuses_factors(tmp_path, write, good, factors, message):
    with pytest.raises(DataError, match=message):
        perturb(write("d", good), tmp_path / "sp", factors)


def test_perturb_refuses_unfit_directories(tmp_path, write, good):
    with pytest.raises(DataError, match="wav.scp: needed for speed perturbation"):
        perturb(write("mt", {"text": "a x\n", "utt2spk": "a a\n"}), tmp_path / "x", ["0.9"])
    perturb(write("d", good), tmp_path / "sp", ["0.9"])
    with pytest.raises(DataError, match="already perturbed; start from the original"):
        perturb(tmp_path / "sp", tmp_path / "sp2", ["0.9"])


def test_text_names(write, good):
    data = DataDir(write("d", good | {"text_phn": "a-1 X\n"}))
    assert text_names(data, None) == ["text", "text_phn"]
    with pytest.raises(DataError, match="src_text: no such file"):
        text_names(data, ["src_text"])
    with pytest.raises(DataError, match="utt2spk: not the name of a text table"):
        text_names(data, ["utt2spk"])
