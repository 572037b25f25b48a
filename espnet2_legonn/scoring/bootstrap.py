"""Bootstrap over utterances or speakers from sufficient statistics, vectorised.

A corpus score is a function of *sums* of per-utterance statistics, so one resample is one sum. Utterances
of one speaker are correlated; with speakers known, whole speakers are drawn (Liu & Peng, Interspeech 2020).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
SEED = 12345
_CELLS = 1_000_000  # of a chunk of draws: bounds the memory at about 30 MB


class Units:
    """Statistics that add up, summed by what a resample draws: utterances, or speakers.

    Beyond ``MOST`` of them several are drawn as one, dealt out like cards, so that memory and time do not grow.

    Args:
        width: statistics of an utterance.
    """

    MOST = 1 << 15

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sums = np.zeros((self.MOST, width), np.int64)
        self._places: dict[str, int] | None = None
        self._grouped = False
        self._digest = hashlib.sha256()

    def add(self, stats: np.ndarray, speakers: Sequence[str | None]) -> None:
        """(n, width) non-negative statistics of the next utterances, and their speakers; None draws utterances."""
        places: np.ndarray = np.arange(self.count, self.count + len(stats)) % self.MOST
        if speakers and speakers[0] is not None:
            names = [speaker or "" for speaker in speakers]
            places = np.fromiter(map(self._place, names), np.int64, len(names))
            self._digest.update("\n".join([*names, ""]).encode())
        self.count += len(stats)
        np.add.at(self._sums, places, stats)

    def _place(self, speaker: str) -> int:
        if self._places is None:
            self._places = {}
        if (place := self._places.get(speaker)) is None:
            if len(self._places) == self.MOST:
                self._grouped = True
                return zlib.crc32(speaker.encode()) % self.MOST
            place = self._places[speaker] = len(self._places)
        return place

    def segments(self, metric: str, reference: str, score: Callable[[np.ndarray], np.ndarray]) -> Segments:
        """What was added; speakers in order of their names."""
        unit = "utterance" if self._places is None else "speaker"
        if self._places is None:
            sums = self._sums[: min(self.count, self.MOST)]
        else:
            sums = self._sums[[place for _, place in sorted(self._places.items())]]
        unit += " group" if self._grouped or (self._places is None and self.count > self.MOST) else ""
        return Segments(metric, reference, self.count, sums, score, unit, self._digest.hexdigest())


@dataclass(frozen=True)
class Segments:
    """What one system did on one test set, enough to score it and any resample of it.

    Args:
        metric: wer, cer, per or bleu.
        reference: digest of ids and references and the settings of the metric; two systems can be compared only when
            it is the same.
        count: utterances.
        sums: (units, k) non-negative statistics of what a resample draws.
        score: maps sums (r, k) to scores (r,); NaN where a score is undefined.
        unit: what is drawn: `speaker` or `utterance`, or groups of them.
        speakers: digest of the utterances' speakers.
    """

    metric: str
    reference: str
    count: int
    sums: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]
    unit: str
    speakers: str

    @classmethod
    def of(
        cls,
        metric: str,
        reference: str,
        stats: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        speakers: Sequence[str] = (),
    ) -> Segments:
        """From statistics (n, k) of utterances, which are drawn one by one, or by speaker where these are given."""
        units = Units(stats.shape[1])
        units.add(stats, speakers)
        return units.segments(metric, reference, score)

    @property
    def value(self) -> float:
        """Score of the whole set."""
        return float(self.score(self.sums.sum(axis=0, keepdims=True))[0])


@dataclass(frozen=True)
class Interval:
    """A percentile interval; low and high are None when fewer than two units make it meaningless."""

    low: float | None
    high: float | None
    unit: str
    units: int

    def as_json(self) -> dict[str, object]:
        """What result.json has of it."""
        return {"ci_low": self.low, "ci_high": self.high, "ci_unit": self.unit, "ci_units": self.units}

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
    sums = segments.sums
    if len(sums) < 2:
        return Interval(None, None, segments.unit, len(sums))
    scores = segments.score(resample_sums(sums, resamples, seed))
    low, high = np.nanpercentile(scores, [2.5, 97.5]).tolist()
    return Interval(low, high, segments.unit, len(sums))
