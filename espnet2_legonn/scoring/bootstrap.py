"""Bootstrap over utterances or speakers from sufficient statistics, vectorised.

A corpus score is a function of *sums* of per-utterance statistics, so one resample is one sum. Utterances
of one speaker are correlated; with speakers known, whole speakers are drawn (Liu & Peng, Interspeech 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 12345
_CELLS = 20_000_000  # of a chunk of draws: bounds the memory at about 320 MB


@dataclass(frozen=True)
class Segments:
    """What one system did on one test set, enough to score it and any resample of it.

    Args:
        metric: wer, cer, per or bleu.
        reference: digest of ids and references (`Joined.sha256`) and the settings of the metric; two systems
            can be compared only when it is the same.
        ids: utterance ids, length n.
        stats: (n, k) non-negative statistics that add up over utterances.
        score: maps sums (r, k) to scores (r,); NaN where a score is undefined.
        speakers: speaker of every utterance, or None to draw utterances.
    """

    metric: str
    reference: str
    ids: tuple[str, ...]
    stats: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]
    speakers: tuple[str, ...] | None = None

    @property
    def unit(self) -> str:
        """What is drawn: `speaker` or `utterance`."""
        return "utterance" if self.speakers is None else "speaker"

    @property
    def value(self) -> float:
        """Score of the whole set."""
        return float(self.score(self.stats.sum(axis=0, keepdims=True))[0])

    def unit_sums(self) -> np.ndarray:
        """(units, k) statistics summed per speaker (sorted by name), or `stats` itself."""
        if self.speakers is None:
            return self.stats
        names, index = np.unique(np.array(self.speakers), return_inverse=True)
        sums = np.zeros((len(names), self.stats.shape[1]), dtype=np.float64)
        np.add.at(sums, index, self.stats)
        return sums


@dataclass(frozen=True)
class Interval:
    """A percentile interval; low and high are None when fewer than two units make it meaningless."""

    low: float | None
    high: float | None
    unit: str
    units: int

    def as_text(self) -> str:
        """One phrase for result.txt."""
        if self.low is None or self.high is None:
            return f"no interval ({self.units} {self.unit}: at least 2 are needed)"
        return f"95 % interval [{self.low:.2f}, {self.high:.2f}] (bootstrap over {self.units} {self.unit}s)"


def resample_sums(sums: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Sums of `resamples` draws with replacement.

    Args:
        sums: (units, k). Columns of two systems side by side are drawn together: paired draws.

    Returns:
        (resamples, k) float64.
    """
    units = len(sums)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // units)
    chunks = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        draws = rng.integers(0, units, size=(rows, units)) + np.arange(rows)[:, None] * units
        counts = np.bincount(draws.ravel(), minlength=rows * units).reshape(rows, units)
        chunks.append(counts.astype(np.float64) @ sums.astype(np.float64))
    return np.concatenate(chunks)


def confidence_interval(segments: Segments, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """95 % percentile interval of the corpus score; resamples without a reference token are left out."""
    sums = segments.unit_sums()
    if len(sums) < 2:
        return Interval(None, None, segments.unit, len(sums))
    scores = segments.score(resample_sums(sums, resamples, seed))
    low, high = np.nanpercentile(scores, [2.5, 97.5]).tolist()
    return Interval(low, high, segments.unit, len(sums))
