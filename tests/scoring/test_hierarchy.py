"""The bootstrap over trainings and sentences, against plain loops and against what must follow."""

from __future__ import annotations

import numpy as np
import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.hierarchy import (
    Level,
    Spread,
    draw_trainings,
    mean_draws,
    mean_spread,
    resampled,
    spread,
    student,
    student_quantile,
    with_student,
)
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


@pytest.mark.parametrize("freedom", [*range(1, 17), 39, 400])
@pytest.mark.parametrize("level", [90, 95])
def test_students_quantiles_hold_their_share(freedom: int, level: Level) -> None:
    """The density is (1 + x^2 / f) ^ (-(f + 1) / 2); with x = sqrt(f) tan(a) it is cos(a) ^ (f - 1), so it ends."""
    angles = np.linspace(0, np.pi / 2, 200_001)
    mass = np.cumsum(np.cos((angles[:-1] + angles[1:]) / 2) ** (freedom - 1))
    inner = np.arctan(student_quantile(freedom, level) / freedom**0.5)
    share = 100 * np.interp(inner, angles[1:], mass) / mass[-1]
    assert share == pytest.approx(level, abs=0.01 if freedom < 16 else 0.15)


def test_students_interval_by_hand() -> None:
    """Of 20, 22, 21: mean 21, deviation 1, so 4.303 / sqrt(3) and 2.920 / sqrt(3) on either side."""
    assert student([20.0, 22.0, 21.0]) == pytest.approx((21 - 2.484, 21 + 2.484), abs=1e-3)
    assert student([20.0, 22.0, 21.0], 90) == pytest.approx((21 - 1.686, 21 + 1.686), abs=1e-3)
    assert student([5.0, 5.0]) == (5, 5)
    for few in ([], [1.0]):
        with pytest.raises(ValueError, match="at least"):
            student(few)


def test_students_interval_covers_what_the_bootstrap_does_not() -> None:
    """Means of three normal values: Student's t holds the truth in 95 % of cases, the bootstrap in far fewer."""
    rng, held = np.random.default_rng(5), np.zeros(2)
    for _ in range(1000):
        values = rng.normal(size=3)
        drawn = mean_spread(values.tolist(), np.repeat(values[:, None], 200, axis=1)).ci
        held += [low <= 0 <= high for low, high in (student(values.tolist()), drawn)]
    assert 930 < held[0] < 970 and held[1] < 800


def test_students_intervals_go_with_two_trainings_or_more() -> None:
    plain = Spread(2.0, (1.0, 3.0), (1.2, 2.8), 3)
    assert with_student(plain, [2.0]) == plain and plain.above and plain.within(2.9)
    assert "student" not in plain.as_json() and plain.as_text("+") == "+2.0 (+1.0 to +3.0)"
    found = with_student(plain, [1.0, 2.0, 3.0])
    assert found.student == student([1.0, 2.0, 3.0]) and found.student_tost == student([1.0, 2.0, 3.0], 90)
    assert found.as_text("+") == "+2.0 (+1.0 to +3.0; t -0.5 to +4.5)"
    told = found.as_json()
    assert told["student"] == list(found.student or ()) and told["student_tost"] == list(found.student_tost or ())


@pytest.mark.parametrize(
    ("ci", "t", "above", "below"),
    [
        ((0.1, 2.0), (0.1, 2.0), True, False),
        ((0.1, 2.0), (-0.1, 2.0), False, False),
        ((-0.1, 2.0), (0.1, 2.0), False, False),
        ((-2.0, -0.1), (-2.0, -0.1), False, True),
        ((-2.0, -0.1), (-2.0, 0.1), False, False),
        ((-2.0, 0.1), (-2.0, -0.1), False, False),
    ],
)
def test_both_intervals_must_say_so(ci: tuple[float, float], t: tuple[float, float], above: bool, below: bool) -> None:
    found = Spread(0.0, ci, ci, 3, t, t)
    assert (found.above, found.below) == (above, below)
    assert found.within(2.1) and not Spread(0.0, ci, ci, 3, t, (-3.0, 3.0)).within(2.1)
    assert not Spread(0.0, ci, (-3.0, 3.0), 3, t, t).within(2.1)
