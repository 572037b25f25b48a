"""Intervals of means over trainings: trainings (seeds) and utterances are drawn, both with replacement.

A score depends on which sentences were tested and on which training was tested on them. The bootstrap of
``bootstrap.py`` draws sentences alone. Here each resample draws trainings, too, and judges all of them by the same draw
of sentences, since they were tested on the same ones (Efron and Tibshirani, 1993, ch. 8). Of few trainings it is too
narrow: with n of them their spread is too small by a factor of sqrt((n - 1) / n) on average, and that a spread of few
values is itself uncertain is not in it. Student's t has that (of three values 4.30 standard errors, not 1.96), but
knows nothing of sentences. So a difference over trainings is shown if both intervals say so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import RESAMPLES, SEED, Segments, resample_sums

Ends = tuple[float, float]  # low and high end of an interval
Level = Literal[90, 95]  # per cent

# Two-sided quantiles of Student's t for 1 ... 15 degrees of freedom, and of the normal.
_T: dict[Level, tuple[float, ...]] = {
    90: (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753),
    95: (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
}
_NORMAL: dict[Level, float] = {90: 1.645, 95: 1.960}


def student_quantile(freedom: int, level: Level = 95) -> float:
    """Two-sided quantile of Student's t, right to 0.6 %: ``level`` per cent lie between it and its negative.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    if freedom <= len(_T[level]):
        return _T[level][freedom - 1]
    z = _NORMAL[level]
    return z + (z**3 + z) / (4 * freedom)  # first term of the expansion in 1 / freedom


def student(values: Sequence[float], level: Level = 95) -> Ends:
    """Student's t interval of the mean of values.

    Raises:
        ValueError: fewer than two values, which have no spread.
    """
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    wide = student_quantile(len(values) - 1, level) * deviation / math.sqrt(len(values))
    return mean - wide, mean + wide


def inside(interval: Sequence[float], margin: float) -> bool:
    """Whether an interval (low, high) lies within +-margin."""
    low, high = interval
    return -margin < low and high < margin


@dataclass(frozen=True)
class Spread:
    """A mean over trainings, or a difference of two, with its intervals.

    Args:
        value: on the whole set.
        ci: 95 % interval by bootstrap; tost: 90 % interval, the one that equivalence is judged by.
        trainings: how many were drawn from. With one, sentences alone are drawn.
        student, student_tost: the same of Student's t over trainings; None: one training, or nothing is judged by them.
    """

    value: float
    ci: Ends
    tost: Ends
    trainings: int
    student: Ends | None = None
    student_tost: Ends | None = None

    @property
    def above(self) -> bool:
        """Do all its 95 % intervals lie above 0?"""
        return self.ci[0] > 0 and (self.student is None or self.student[0] > 0)

    @property
    def below(self) -> bool:
        """Do all its 95 % intervals lie below 0?"""
        return self.ci[1] < 0 and (self.student is None or self.student[1] < 0)

    def within(self, margin: float) -> bool:
        """Do all its intervals show a difference to be smaller than a margin (two one-sided tests at 5 %)?"""
        return inside(self.tost, margin) and (self.student_tost is None or inside(self.student_tost, margin))

    def as_text(self, sign: str = "") -> str:
        """``32.1 (30.9 to 33.4)``, or ``32.1 (30.9 to 33.4; t 29.5 to 34.7)``; sign: ``+`` for differences."""
        low, high = self.ci
        text = f"{self.value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f}"
        if self.student is not None:
            low, high = self.student
            text += f"; t {low:{sign}.1f} to {high:{sign}.1f}"
        return f"{text})"

    def as_json(self) -> dict[str, object]:
        """Content of a results file; Student's intervals stand in it if it has them."""
        found = {"value": self.value, "ci": list(self.ci), "tost": list(self.tost), "trainings": self.trainings}
        if self.student is not None and self.student_tost is not None:
            found |= {"student": list(self.student), "student_tost": list(self.student_tost)}
        return found


def spread(value: float, draws: np.ndarray, trainings: int) -> Spread:
    """Percentile intervals of draws (resamples,); NaN draws, of which no score is defined, are left out.

    Raises:
        DataError: no draw is left.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        raise DataError("no resample has a score: the set is too small")
    low, tost_low, tost_high, high = np.percentile(draws, [2.5, 5, 95, 97.5]).tolist()
    return Spread(value, (low, high), (tost_low, tost_high), trainings)


def with_student(found: Spread, values: Sequence[float]) -> Spread:
    """The same with Student's t intervals over the values of its trainings; without, if there is one training."""
    if len(values) < 2:
        return found
    return replace(found, student=student(values), student_tost=student(values, 90))


def resampled(segments: Segments, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Scores (resamples,) of draws of sentences: the same draws for all systems on one test set.

    Raises:
        DataError: there is one unit alone, of which all draws are the same.
    """
    if len(segments.sums) < 2:
        raise DataError(f"the set has one {segments.unit}, so there is no interval; draw utterances (no utt2spk)")
    return np.asarray(segments.score(resample_sums(segments.sums, resamples, seed)))


def draw_trainings(trainings: int, resamples: int, seed: int = SEED) -> np.ndarray:
    """Which trainings each resample has: (resamples, trainings), independent of the sentences that it has."""
    return np.random.default_rng([seed, trainings]).integers(0, trainings, size=(resamples, trainings))


def mean_draws(scores: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Mean scores (resamples,) of resampled trainings.

    Args:
        scores: (trainings, resamples), from ``resampled``; or differences of two systems, paired by training.
    """
    trainings, resamples = scores.shape
    picks = draw_trainings(trainings, resamples, seed)
    return np.asarray(scores[picks, np.arange(resamples)[:, None]].mean(1))


def mean_spread(values: Sequence[float], scores: np.ndarray, seed: int = SEED) -> Spread:
    """Interval of a mean over trainings.

    Args:
        values: of each training on the whole set.
        scores: (trainings, resamples).
    """
    return spread(float(np.mean(values)), mean_draws(scores, seed), len(values))
