"""CTC by listing all alignments, in float64 NumPy: too plain to be wrong."""

from __future__ import annotations

import itertools

import numpy as np
import torch

Text = tuple[int, ...]


def texts_of(log_probs: torch.Tensor) -> dict[Text, float]:
    """Probability of every text that slots (K, V) can say: the sum over its alignments, blank is id 0."""
    probs = log_probs.double().exp().numpy()
    found: dict[Text, float] = {}
    for alignment in itertools.product(range(probs.shape[1]), repeat=probs.shape[0]):
        text = tuple(label for label, _ in itertools.groupby(alignment) if label)
        found[text] = found.get(text, 0.0) + float(np.prod(probs[np.arange(len(alignment)), alignment]))
    return found


def log(x: float) -> float:
    return float(np.log(x)) if x else -np.inf


def prefix_probability(texts: dict[Text, float], prefix: Text) -> float:
    """Of all texts that begin like this."""
    return sum(p for text, p in texts.items() if text[: len(prefix)] == prefix)


def next_log_probs(texts: dict[Text, float], prefix: Text, end: int) -> list[float]:
    """log P(next token | prefix) for the tokens 1 ... end, of which the last says that the text is over."""
    whole = log(prefix_probability(texts, prefix))
    if not np.isfinite(whole):
        return [-np.inf] * end
    nexts = [prefix_probability(texts, (*prefix, token)) for token in range(1, end)]
    return [log(p) - whole for p in (*nexts, texts.get(prefix, 0.0))]
