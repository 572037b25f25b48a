"""Does an interface know when it is wrong? Its tokens with their probabilities, against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espnet2_legonn.scoring.trn import align

BINS = 10


def said_tokens(probs: np.ndarray, blank: int = 0) -> list[tuple[int, float]]:
    """Tokens of the best path and how sure each is: the highest probability of its run of slots.

    Args:
        probs: (K, V) of one item.
    """
    best, height = probs.argmax(1), probs.max(1)
    found: list[tuple[int, float]] = []
    before = blank
    for token, sure in zip(best.tolist(), height.tolist()):
        if token != blank:
            if token == before:
                found[-1] = (token, max(found[-1][1], sure))
            else:
                found.append((token, sure))
        before = token
    return found


def right_or_wrong(said: Sequence[tuple[int, float]], reference: Sequence[int]) -> list[tuple[float, bool]]:
    """How sure each said token is, and whether the reference has it in that place (alignment by sclite's costs)."""
    pairs = align([str(i) for i in reference], [str(i) for i, _ in said])
    right = [ref == hyp for ref, hyp in pairs if hyp is not None]
    return [(sure, ok) for (_, sure), ok in zip(said, right, strict=True)]


def calibration_error(judged: Sequence[tuple[float, bool]], bins: int = BINS) -> float:
    """Expected calibration error: over bins of equal width, the mean distance of confidence and share right.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. NaN for no tokens.
    """
    if not judged:
        return float("nan")
    sure, right = np.array([s for s, _ in judged]), np.array([r for _, r in judged], dtype=float)
    place = np.clip((sure * bins).astype(int), 0, bins - 1)
    distance = [abs(sure[place == b].mean() - right[place == b].mean()) * (place == b).sum() for b in np.unique(place)]
    return float(sum(distance) / len(judged))
