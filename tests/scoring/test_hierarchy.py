"""The bootstrap over trainings and sentences, against plain loops and against what must follow."""

from __future__ import annotations

import numpy as np
import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.hierarchy import draw_trainings, mean_draws, mean_spread, resampled, spread
from espnet2_legonn.scoring.wer import rates


def segments(rng: np.random.Generator, errors: float, sentences: int = 60) -> Segments:
    words = rng.integers(4, 12, sentences)
    stats = np.stack([rng.binomial(words, errors), words], axis=1)
    return Segments.of("wer", "digest", stats, rates)


def test_a_draw_is_the_mean_of_the_drawn_trainings() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 50))
    picks = draw_trainings(3, 50)
    by_hand = [sum(scores[t, r] for t in picks[r]) / 3 for r in range(50)]
    np.testing.assert_allclose(mean_draws(scores), by_hand)
    assert {int(t) for t in picks.ravel()} == {0, 1, 2} and not (picks == picks[0]).all()


def test_sentences_are_the_same_for_all_systems() -> None:
    """Two systems with equal answers have equal scores in each draw, so their difference has no spread."""
    rng = np.random.default_rng(1)
    one, other = segments(rng, 0.2), segments(rng, 0.3)
    np.testing.assert_array_equal(resampled(one), resampled(one))
    paired, apart = resampled(other) - resampled(one), resampled(other) - np.roll(resampled(one), 1)
    assert paired.std() != apart.std()
    same = mean_spread([0.0, 0.0], np.stack([resampled(one) - resampled(one)] * 2))
    assert same.value == 0 and same.ci == (0, 0) and same.within(0.01)


def test_one_training_has_the_interval_of_its_sentences() -> None:
    one = segments(np.random.default_rng(2), 0.25)
    found, plain = mean_spread([one.value], resampled(one)[None]), confidence_interval(one)
    assert found.ci == (plain.low, plain.high) and found.trainings == 1


def test_trainings_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    near, far = ([segments(rng, e) for e in errors] for errors in ((0.2, 0.2, 0.2), (0.1, 0.2, 0.3)))
    wide, narrow = (
        mean_spread([s.value for s in runs], np.stack([resampled(s) for s in runs])) for runs in (far, near)
    )
    assert wide.ci[1] - wide.ci[0] > 2 * (narrow.ci[1] - narrow.ci[0])
    assert wide.ci[0] < wide.tost[0] < wide.value < wide.tost[1] < wide.ci[1]
    assert not wide.within(wide.tost[1]) and wide.within(wide.tost[1] + 1e-9)


def test_draws_without_a_score() -> None:
    assert spread(1.0, np.array([0.0, np.nan, 2.0]), 1).ci == pytest.approx((0.05, 1.95))
    with pytest.raises(DataError, match="no resample has a score"):
        spread(1.0, np.array([np.nan]), 1)


def test_what_is_written() -> None:
    found = spread(1.25, np.linspace(0, 2, 201), 3)
    assert found.as_text("+") == "+1.2 (+0.1 to +1.9)" and found.as_json()["trainings"] == 3


def test_one_speaker_has_no_interval() -> None:
    """All draws of one unit are the same: an interval without width would prove whatever is claimed."""
    with pytest.raises(DataError, match="the set has one utterance"):
        resampled(Segments.of("wer", "r", np.array([[1, 10]]), rates))
