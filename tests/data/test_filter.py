from __future__ import annotations

import pytest

from espnet2_legonn.data.datadir import DataDir
from espnet2_legonn.data.filter import Limits, filter_dir, pieces
from espnet2_legonn.data.vocab import make_bpe
from espnet2_legonn.errors import DataError


@pytest.fixture
def speech(write):
    return write(
        "speech",
        {
            "utt2num_samples": "a 50\nb 100\nc 2000\nd 2100\ne 500\n",
            "text": "a x\nb y\nc z\nd w\ne\n",
            "utt2spk": "a s\nb s\nc s\nd s\ne t\n",
            "feats_type": "raw\n",
        },
    )


@pytest.fixture
def pairs(write):
    return write(
        "mt",
        {
            "src_text": "a 1 2 3\nb 1 2 3 4\nc 1\nd 1 2\ne 1 2 3 4 5 6\n",
            "text": "a 1 2\nb 1 2\nc 1 2\nd\ne 1 2 3 4 5 6\n",
            "utt2spk": "".join(f"{u} {u}\n" for u in "abcde"),
        },
    )


def test_durations_and_empty_text(tmp_path, speech):
    limits = Limits(fs=1000, min_wav_duration=0.1, max_wav_duration=2.0)
    report = filter_dir(speech, tmp_path / "out", limits)
    assert list(DataDir(tmp_path / "out").table("text")) == ["b", "c"]  # bounds are inclusive
    assert str(report).split("\n") == [
        "kept 2 of 5 utterances", "dropped 1: empty text (0.00 h, 10.5 % of the audio)",
        "dropped 1: longer than 2 s (0.00 h, 44.2 % of the audio)",
        "dropped 1: shorter than 0.1 s (0.00 h, 1.1 % of the audio)",
    ]  # fmt: skip
    assert (tmp_path / "out" / "feats_type").read_text() == "raw\n"
    assert (tmp_path / "out" / "spk2utt").read_text() == "s b c\n"


def test_ratio_goes_both_ways_and_lengths_hold_for_both_sides(tmp_path, pairs):
    report = filter_dir(pairs, tmp_path / "out", Limits(max_tokens=5, max_ratio=1.5))
    assert list(DataDir(tmp_path / "out").table("text")) == ["a"]
    assert dict(report.reasons) == {"length ratio above 1.5": 2, "empty text": 1, "src_text longer than 5 tokens": 1}
    report = filter_dir(pairs, tmp_path / "out", Limits(min_tokens=2), texts=["src_text"])
    assert dict(report.reasons) == {"src_text shorter than 2 tokens": 1}


def test_phonemes_are_checked_for_emptiness_only(tmp_path, write):
    folder = write("d", {"text": "a x\nb y\n", "text_phn": "a P P P P\nb\n", "utt2spk": "a a\nb b\n"})
    assert dict(filter_dir(folder, tmp_path / "out", Limits(max_tokens=2)).reasons) == {"empty text_phn": 1}


def test_lengths_in_pieces(tmp_path, pairs):
    make_bpe([pairs / "text"], 12, tmp_path / "v")
    assert pieces(tmp_path / "v" / "bpe.model")("1 2") >= 2
    with pytest.raises(DataError, match="none.model: no such sentencepiece model"):
        pieces(tmp_path / "none.model")


def test_faulty_requests(tmp_path, speech, pairs):
    with pytest.raises(DataError, match="limits of duration need --fs and utt2num_samples"):
        filter_dir(speech, tmp_path / "out", Limits(max_wav_duration=2))
    with pytest.raises(DataError, match=r"--max_ratio must be >= 1 and needs a pair.*missing: \['src_text'\]"):
        filter_dir(speech, tmp_path / "out", Limits(max_ratio=1.5))
    with pytest.raises(DataError, match="--max_ratio must be >= 1"):
        filter_dir(pairs, tmp_path / "out", Limits(max_ratio=0.5))
    with pytest.raises(DataError, match="no utterance is within the limits\nkept 0 of 5"):
        filter_dir(speech, tmp_path / "out", Limits(min_tokens=9))
    assert not (tmp_path / "out").exists()


def test_an_utterance_without_a_count_is_a_fault(tmp_path, write):
    folder = write("d", {"utt2num_samples": "a 100\n", "text": "a x\nb y\n", "utt2spk": "a a\nb b\n"})
    with pytest.raises(DataError, match="utt2spk:2: 'b' is not in utt2num_samples"):
        filter_dir(folder, tmp_path / "out", Limits(fs=1000, min_wav_duration=0.01))
