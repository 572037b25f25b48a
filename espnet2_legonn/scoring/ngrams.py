"""N-grams that texts share, counted in NumPy: of words for BLEU, of characters for chrF, as sacreBLEU counts them.

sacreBLEU counts them one by one in Python, which takes most of its time.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_MOST = np.iinfo(np.int64).max
ORDER, CHARACTERS = 4, 6  # of BLEU and of chrF
_BETA2 = 4  # of chrF2: recall counts as much as two times precision


class Texts(NamedTuple):
    """Texts one behind the other: ``ids`` (N,) of their tokens from 0, ``lengths`` (n,) in tokens."""

    ids: np.ndarray
    lengths: np.ndarray


def words(sides: Sequence[Sequence[Sequence[str]]]) -> list[Texts]:
    """Texts of words; the same word has the same id on all sides."""
    index: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    found = []
    for texts in sides:
        ids = np.fromiter((index[word] for text in texts for word in text), np.int64)
        found.append(Texts(ids, np.fromiter(map(len, texts), np.int64, len(texts))))
    return found


def characters(sides: Sequence[Sequence[str]]) -> list[Texts]:
    """Texts of characters, white space left out."""
    bare = [["".join(text.split()) for text in texts] for texts in sides]
    points = [np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32) for texts in bare]
    ids = np.unique(np.concatenate(points), return_inverse=True)[1].astype(np.int64)
    cut = np.split(ids, np.cumsum([len(p) for p in points])[:-1])
    return [Texts(i, np.fromiter(map(len, texts), np.int64, len(texts))) for i, texts in zip(cut, bare)]


def _counted(sides: Sequence[Texts], order: int) -> Iterator[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]:
    """For each order a span, and for each side different n-grams as text * span + n-gram, ascending, with counts."""
    owners = [np.repeat(np.arange(len(side.lengths)), side.lengths) for side in sides]
    width = 1 + max((int(side.ids.max()) for side in sides if len(side.ids)), default=0)
    texts, span = max(1, len(sides[0].lengths)), width
    starts: list[np.ndarray] = [np.arange(len(side.ids)) for side in sides]
    grams = [side.ids for side in sides]
    for n in range(1, order + 1):
        yield span, [np.unique(o[s] * span + g, return_counts=True) for o, s, g in zip(owners, starts, grams)]
        if texts * span * width > _MOST:  # n-grams are numbered anew, by those that occur
            different, numbers = np.unique(np.concatenate(grams), return_inverse=True)
            grams, span = np.split(numbers, np.cumsum([len(g) for g in grams])[:-1]), max(1, len(different))
        for i, (side, owner) in enumerate(zip(sides, owners)):
            inside = starts[i] + n < len(owner)
            inside[inside] = owner[starts[i][inside] + n] == owner[starts[i][inside]]
            starts[i], grams[i] = starts[i][inside], grams[i][inside]
            grams[i] = grams[i] * width + side.ids[starts[i] + n]
        span *= width


def _most(refs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """N-grams of several references, each with its greatest count."""
    if len(refs) == 1:
        return refs[0]
    keys, places = np.unique(np.concatenate([keys for keys, _ in refs]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.maximum.at(counts, places, np.concatenate([counts for _, counts in refs]))
    return keys, counts


def _matches(
    hyp: tuple[np.ndarray, np.ndarray], ref: tuple[np.ndarray, np.ndarray], span: int, texts: int
) -> np.ndarray:
    if not len(ref[0]):
        return np.zeros(texts, np.int64)
    places = np.searchsorted(ref[0], hyp[0]).clip(max=len(ref[0]) - 1)
    same = ref[0][places] == hyp[0]
    least = np.minimum(hyp[1][same], ref[1][places[same]])
    return np.bincount(hyp[0][same] // span, least, texts).astype(np.int64)


def bleu_statistics(hyps: Sequence[Sequence[str]], refs: Sequence[Sequence[Sequence[str]]]) -> np.ndarray:
    """(n, 10) of n hypotheses: their length, that of the nearest reference, matches and n-grams of orders 1 to 4.

    Args:
        hyps: words of each; refs: the same of one or more references.
    """
    sides = words([hyps, *refs])
    lengths = sides[0].lengths
    far = np.stack([abs(side.lengths - lengths) for side in sides[1:]])
    near = np.where(far == far.min(0), np.stack([side.lengths for side in sides[1:]]), _MOST).min(0)
    matches = [_matches(hyp, _most(more), span, len(hyps)) for span, (hyp, *more) in _counted(sides, ORDER)]
    totals = [(lengths - n).clip(min=0) for n in range(ORDER)]
    return np.stack([lengths, near, *matches, *totals], axis=1)


def chrf_statistics(hyps: Sequence[str], refs: Sequence[Sequence[str]]) -> np.ndarray:
    """(n, 18) of n hypotheses: for orders 1 to 6 n-grams of it, of the reference with which it scores best, matches."""
    sides = characters([hyps, *refs])
    rows = np.zeros((len(refs), len(hyps), 3 * CHARACTERS), np.int64)
    for n, (span, (hyp, *more)) in enumerate(_counted(sides, CHARACTERS)):
        for i, (side, ref) in enumerate(zip(sides[1:], more)):
            grams = (side.lengths - n).clip(min=0)
            rows[i, :, 3 * n] = np.where(grams > 0, (sides[0].lengths - n).clip(min=0), 0)
            rows[i, :, 3 * n + 1] = grams
            rows[i, :, 3 * n + 2] = _matches(hyp, ref, span, len(hyps))
    best = np.stack([chrf(row) for row in rows]).argmax(0)
    return rows[best, np.arange(len(hyps))]


def chrf(statistics: np.ndarray) -> np.ndarray:
    """chrF2 (Popovic 2016), 0 to 100, of (r, 18) statistics or sums of them; orders that a side lacks do not count."""
    hyp, ref, match = (statistics[:, i::3].astype(np.float64) for i in range(3))
    both = (hyp > 0) & (ref > 0)
    orders = both.sum(1).clip(min=1)
    precision, recall = (np.divide(match, n, out=np.zeros_like(match), where=both).sum(1) / orders for n in (hyp, ref))
    below = _BETA2 * precision + recall
    return 100 * np.divide((1 + _BETA2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
