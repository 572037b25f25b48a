"""Intervals of means over trainings: trainings (seeds) and utterances are drawn, both with replacement.

A score depends on which sentences were tested and on which training was tested on them. The bootstrap of
``bootstrap.py`` draws sentences alone. Here each resample draws trainings, too, and judges all of them by the same draw
of sentences, since they were tested on the same ones (Efron and Tibshirani, 1993, ch. 8). With n trainings, the spread
among them is too small by a factor of sqrt((n - 1) / n) on average, as in every bootstrap of n values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import RESAMPLES, SEED, Segments, resample_sums


@dataclass(frozen=True)
class Spread:
    """A mean over trainings, or a difference of two, with its intervals.

    Args:
        value: on the whole set.
        ci: 95 % interval; tost: 90 % interval, the one that equivalence is judged by.
        trainings: how many were drawn from. With one, sentences alone are drawn.
    """

    value: float
    ci: tuple[float, float]
    tost: tuple[float, float]
    trainings: int

    def within(self, margin: float) -> bool:
        """Whether a difference is shown to be smaller than a margin (two one-sided tests at 5 %)."""
        return -margin < self.tost[0] and self.tost[1] < margin

    def as_text(self, sign: str = "") -> str:
        """``32.1 (30.9 to 33.4)``; sign: ``+`` for differences."""
        low, high = self.ci
        return f"{self.value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"

    def as_json(self) -> dict[str, object]:
        """Content of a results file."""
        return {"value": self.value, "ci": list(self.ci), "tost": list(self.tost), "trainings": self.trainings}


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
