"""Paired bootstrap: differences that are there, that are not, and equivalence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bleu import score_bleu
from espnet2_legonn.scoring.bootstrap import Segments
from espnet2_legonn.scoring.significance import compare
from espnet2_legonn.scoring.wer import score_error_rate


def system(path: Path, error_rate: float, seed: int, utterances: int = 200) -> Path:
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(utterances):
        words = [f"w{i}x{j}" if rng.random() >= error_rate else "wrong" for j in range(10)]
        lines.append(f"u{i:03d} {' '.join(words)}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def ref(tmp_path: Path) -> Path:
    return system(tmp_path / "ref", 0.0, 0)


def wer(ref: Path, error_rate: float, seed: int) -> Segments:
    return score_error_rate(ref, system(ref.parent / f"hyp{seed}", error_rate, seed)).segments


def test_a_real_difference_is_found(ref: Path) -> None:
    result = compare(wer(ref, 0.10, 1), wer(ref, 0.20, 2), margin=0.5)
    assert result.difference == pytest.approx(10, abs=2)
    assert 5 < result.ci[0] < result.difference < result.ci[1]
    assert result.p_value == pytest.approx(1 / 1001)
    assert result.equivalent is False
    assert "NOT shown to be equivalent within +-0.5" in result.as_text()


def test_no_difference_is_not_yet_equivalence(ref: Path) -> None:
    a, b = wer(ref, 0.10, 1), wer(ref, 0.10, 3)
    narrow, wide = compare(a, b, margin=0.2), compare(a, b, margin=5.0)
    assert narrow.p_value > 0.05 and narrow.ci[0] < 0 < narrow.ci[1]
    assert narrow.equivalent is False and wide.equivalent is True
    assert wide.as_text().splitlines()[1].startswith("equivalent within +-5: 90 % interval [")
    assert (narrow.ci, narrow.p_value) == (wide.ci, wide.p_value), "seeded"
    assert compare(a, b).equivalent is None and len(compare(a, b).as_text().splitlines()) == 1


def test_a_system_equals_itself(ref: Path) -> None:
    a = wer(ref, 0.10, 1)
    result = compare(a, a, margin=0.01)
    assert (result.difference, result.p_value, result.equivalent) == (0, 1, True)
    expected = {"units": 200, "difference": 0, "ci_low": 0, "ci_high": 0, "tost_high": 0, "equivalent": True}
    assert expected.items() <= result.as_json().items()


def test_pairing_removes_what_is_common(ref: Path) -> None:
    # B has one word more than A: the paired interval is far narrower than the score's own.
    hyp = system(ref.parent / "a", 0.10, 1)
    rows = hyp.read_text().splitlines()
    other = ref.parent / "b"
    other.write_text("\n".join([*rows[:-1], f"{rows[-1]} more"]) + "\n")
    a, b = score_error_rate(ref, hyp), score_error_rate(ref, other)
    result = compare(a.segments, b.segments)
    assert result.ci[1] - result.ci[0] < (a.interval.high - a.interval.low) / 5


def test_bleu_and_speakers(ref: Path) -> None:
    spk = ref.parent / "utt2spk"
    spk.write_text("".join(f"u{i:03d} s{i % 20}\n" for i in range(200)))
    a = score_bleu([ref], system(ref.parent / "a", 0.10, 1), utt2spk=spk).segments
    b = score_bleu([ref], system(ref.parent / "b", 0.20, 2), utt2spk=spk).segments
    result = compare(a, b)
    assert (result.unit, result.units) == ("speaker", 20)
    assert result.difference == pytest.approx(b.value - a.value) and result.ci[1] < 0


def test_faults_come_together(ref: Path, tmp_path: Path) -> None:
    a = wer(ref, 0.1, 1)
    spk = tmp_path / "spk"
    spk.write_text("".join(f"u{i:03d} all\n" for i in range(200)))
    b = score_bleu([ref], ref, utt2spk=spk).segments
    with pytest.raises(DataError) as caught:
        compare(b, a, margin=0)
    message = str(caught.value)
    assert "A was scored by bleu, system B by wer" in message
    assert "on different references, utterances or settings" in message
    assert "different speakers" in message
    assert "at least 2 speakers, the set has 1" in message
    assert "margin must be above 0 points, got 0" in message


def test_settings_must_agree(ref: Path) -> None:
    with pytest.raises(DataError, match="different references, utterances or settings"):
        compare(score_error_rate(ref, ref).segments, score_error_rate(ref, ref, lowercase=True).segments)
