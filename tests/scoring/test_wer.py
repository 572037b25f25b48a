"""Alignment counts against sclite's, joins by id, files written, intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.wer import count_errors, score_error_rate

# (ref, hyp, corr, sub, del, ins): counts printed by sclite 2.10 (Debian sctk) for these pairs
SCLITE = [
    ("a b c", "a b c", 3, 0, 0, 0),
    ("a b c", "", 0, 0, 3, 0),
    ("", "a b", 0, 0, 0, 2),
    ("", "", 0, 0, 0, 0),
    ("a b c d", "a x c", 2, 1, 1, 0),
    ("a b c", "x y", 0, 2, 1, 0),
    ("the cat sat", "the fat cat sat down", 3, 0, 0, 2),
    ("a b", "b a", 1, 0, 1, 1),
    ("a b c d", "b c d a", 3, 0, 1, 1),
    ("x a b c d e", "a b c d e y", 5, 0, 1, 1),
    # 10 errors, where the Levenshtein distance is 9: sclite's costs prefer words kept
    ("1 0 0 2 3 5 3 3 1 2", "3 5 2 4 1 1 0 5 1", 4, 1, 5, 4),
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(("ref", "hyp", "corr", "sub", "dele", "ins"), SCLITE)
def test_counts_are_sclites(ref: str, hyp: str, corr: int, sub: int, dele: int, ins: int) -> None:
    counts = count_errors(ref.split(), hyp.split())
    assert (counts.corr, counts.sub, counts.dele, counts.ins) == (corr, sub, dele, ins)
    assert counts.sentence_errors == int(ref != hyp)
    assert counts.ref == len(ref.split())


def test_joins_by_id_and_totals(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", "s1-a one two three", "s2-a four", "s1-b", "s2-b (aside) [noise] five")
    hyp = write(tmp_path / "hyp", "s2-b (aside) [noise] five", "s1-b six", "s2-a", "s1-a one too three")
    spk = write(tmp_path / "utt2spk", "s1-a s1", "s1-b s1", "s2-a s2", "s2-b s2", "other s9")
    report = score_error_rate(ref, hyp, utt2spk=spk)
    assert list(report.utterances) == ["s1-a", "s1-b", "s2-a", "s2-b"]
    assert report.utterances["s2-b"].errors == 0, "brackets and parentheses are words like any other"
    assert [(c.ref, c.errors) for c in report.speakers.values()] == [(3, 2), (4, 1)]
    report.write(tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    expected = {
        "metric": "wer",
        "unit": "%",
        "errors": 3,
        "ref_words": 7,
        "sub": 1,
        "del": 1,
        "ins": 1,
        "corr": 5,
    }
    expected |= {"sentences": 4, "sentence_errors": 3, "ci_unit": "speaker", "ci_units": 2, "missing": 0}
    assert expected.items() <= result.items()
    assert result["value"] == pytest.approx(300 / 7)
    assert result["ci_low"] == pytest.approx(25) and result["ci_high"] == pytest.approx(200 / 3)


def test_result_txt_is_read_by_espnets_grep(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", "a x y", "b z")
    hyp = write(tmp_path / "hyp", "a x q", "b z")
    report = score_error_rate(ref, hyp, utt2spk=write(tmp_path / "utt2spk", "a long-speaker", "b q"))
    report.write(tmp_path)
    report.write(tmp_path)  # replaced, not appended
    lines = (tmp_path / "result.txt").read_text().splitlines()
    averages = [line.replace("|", " ").split() for line in lines if "Avg" in line]
    assert averages == [["Sum/Avg", "2", "3", "66.7", "33.3", "0.0", "0.0", "33.3", "50.0"]]
    assert ["long-speaker", "1", "2", "50.0"] in [line.replace("|", " ").split()[:4] for line in lines]
    assert "  a 1 1 0 0" in lines
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "result"))) == [
        "result.json",
        "result.txt",
    ]


def test_cer_counts_spaces_once_and_per_counts_tokens(tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref", "u ab  c"), write(tmp_path / "hyp", "u abc")
    assert score_error_rate(ref, hyp, "cer").as_json()["ref_words"] == 4
    assert score_error_rate(ref, hyp, "cer").total.errors == 1
    phones = write(tmp_path / "phn", "u AH0 B IY1")
    assert score_error_rate(phones, write(tmp_path / "p", "u AH0 P IY1"), "per").value == pytest.approx(
        100 / 3
    )


def test_lowercase_is_asked_for(tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref", "u Über A"), write(tmp_path / "hyp", "u über a")
    assert score_error_rate(ref, hyp).value == 100
    assert score_error_rate(ref, hyp, lowercase=True).value == 0


def test_missing_and_extra_ids_are_all_listed(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", "a x", "b y", "c z")
    hyp = write(tmp_path / "hyp", "c z", "d w", "e v")
    with pytest.raises(DataError) as caught:
        score_error_rate(ref, hyp)
    assert len(caught.value.faults) == 4
    for text in (
        "hypothesis d has no reference",
        "hypothesis e has",
        "no hypothesis for a",
        "no hypothesis for b",
    ):
        assert text in str(caught.value)
    with pytest.raises(DataError, match="hypothesis d has no reference"):
        score_error_rate(ref, hyp, missing="empty")


def test_missing_as_empty_counts_deletions_and_says_so(tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref", "a x y", "b z"), write(tmp_path / "hyp", "b z")
    report = score_error_rate(ref, hyp, missing="empty")
    assert (report.total.dele, report.absent) == (2, ("a",))
    assert report.as_json()["missing"] == 1
    assert "1 utterance(s) had no hypothesis and count as deleted:\n  a\n" in report.as_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a x\na y\n", r"ref:2: 'a' occurs twice: it repeats line 1; ids must be unique"),
        (b"a x\n\nb y\n", r"ref:2: no key at the start of the line .a blank line"),
        (b"a x\nb \xff\n", r"ref:2: not UTF-8"),
        (b"", r"ref: the file is empty"),
        (b"a\nb\n", r"no reference holds a single token"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "ref").write_bytes(content)
    with pytest.raises(DataError, match=message):
        score_error_rate(tmp_path / "ref", write(tmp_path / "hyp", "a x", "b y"))


def test_other_faults(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", "a x", "b y")
    with pytest.raises(DataError, match="nowhere: no such file"):
        score_error_rate(ref, tmp_path / "nowhere")
    with pytest.raises(DataError, match="metric 'ter' is none of wer, cer, per"):
        score_error_rate(ref, ref, "ter")
    spk = write(tmp_path / "utt2spk", "a s one")
    with pytest.raises(DataError, match=r"a needs exactly one speaker.*\n.*no speaker for b"):
        score_error_rate(ref, ref, utt2spk=spk)


def test_interval_is_seeded_and_covers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(400) < 0.1
    ref = write(tmp_path / "ref", *(f"u{i:03d} w w w w w" for i in range(400)))
    hyp = write(tmp_path / "hyp", *(f"u{i:03d} w w w w {'v' if wrong[i] else 'w'}" for i in range(400)))
    report = score_error_rate(ref, hyp)
    assert report.interval == score_error_rate(ref, hyp).interval
    assert report.interval != score_error_rate(ref, hyp, seed=1).interval
    # One error in 5 words with probability p: the standard error is 20 * sqrt(p (1 - p) / n) points.
    half = 1.96 * 20 * np.sqrt(wrong.mean() * (1 - wrong.mean()) / 400)
    assert report.interval.low == pytest.approx(report.value - half, abs=0.12)
    assert report.interval.high == pytest.approx(report.value + half, abs=0.12)


def test_speakers_widen_the_interval_and_one_unit_has_none(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *(f"s{i % 4}-{i:02d} w" for i in range(40)))
    hyp = write(tmp_path / "hyp", *(f"s{i % 4}-{i:02d} {'v' if i % 4 == 0 else 'w'}" for i in range(40)))
    spk = write(tmp_path / "spk", *(f"s{i % 4}-{i:02d} s{i % 4}" for i in range(40)))
    one = write(tmp_path / "one", *(f"s{i % 4}-{i:02d} all" for i in range(40)))
    by_utterance, by_speaker = (
        score_error_rate(ref, hyp).interval,
        score_error_rate(ref, hyp, utt2spk=spk).interval,
    )
    assert by_speaker.high - by_speaker.low > 2 * (by_utterance.high - by_utterance.low)
    single = score_error_rate(ref, hyp, utt2spk=one)
    assert (single.as_json()["ci_low"], single.as_json()["ci_high"]) == (None, None)
    assert "no interval (1 speaker: at least 2 are needed)" in single.as_text()
