"""Equations 1-21 of the paper in plain NumPy float64, one unpadded item at a time.

Written from the paper (its silences read as docs/paper_map.md says), not from the package: no torch, no
masks, no batches. Weights come by name from a ``state_dict`` turned into arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

Weights = dict[str, np.ndarray]
BLANK = 0


def part(weights: Weights, prefix: str) -> Weights:
    """The entries below ``prefix``, without it."""
    return {
        name[len(prefix) + 1 :]: value for name, value in weights.items() if name.startswith(prefix + ".")
    }


def count(weights: Weights, prefix: str) -> int:
    """Number of blocks ``prefix.0``, ``prefix.1``, ..."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in weights if name.startswith(prefix + ".")})


# -- pieces ----------------------------------------------------------------------------------------


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(x))


def layer_norm(x: np.ndarray, w: Weights) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w["weight"] + w["bias"]


def linear(x: np.ndarray, w: Weights) -> np.ndarray:
    return x @ w["weight"].T + w.get("bias", 0.0)


def mha(q: np.ndarray, source: np.ndarray, w: Weights, heads: int, causal: bool = False) -> np.ndarray:
    """MHA(q, source, source), (Q, D) and (S, D) -> (Q, D); head by head, query by query."""
    queries, keys, values = (
        linear(x, part(w, f"linear_{n}")) for n, x in (("q", q), ("k", source), ("v", source))
    )
    width = q.shape[1] // heads
    out = np.zeros_like(queries)
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        for i in range(len(q)):
            seen = i + 1 if causal else len(source)
            scores = keys[:seen, own] @ queries[i, own] / math.sqrt(width)
            out[i, own] = softmax(scores) @ values[:seen, own]
    return linear(out, part(w, "linear_out"))


def ffn(x: np.ndarray, w: Weights) -> np.ndarray:
    return linear(np.maximum(linear(x, part(w, "w_1")), 0.0), part(w, "w_2"))


def positions(length: int, size: int, start: int = 0) -> np.ndarray:
    """Sinusoidal positions of Vaswani et al. (2017), section 3.5."""
    table = np.zeros((length, size))
    for row in range(length):
        for i in range(0, size, 2):
            angle = (start + row) / 10000.0 ** (i / size)
            table[row, i], table[row, i + 1] = math.sin(angle), math.cos(angle)
    return table


# -- transformer stacks (10, 11, 13-16) ------------------------------------------------------------


def encoder_block(x: np.ndarray, w: Weights, heads: int) -> np.ndarray:
    normed = layer_norm(x, part(w, "norm1"))  # (10)
    x = x + mha(normed, normed, part(w, "self_attn"), heads)
    return x + ffn(layer_norm(x, part(w, "norm2")), part(w, "feed_forward"))  # (11)


def encoder(x: np.ndarray, w: Weights, heads: int) -> np.ndarray:
    for i in range(count(w, "encoders")):
        x = encoder_block(x, part(w, f"encoders.{i}"), heads)
    return layer_norm(x, part(w, "after_norm"))


def cross_block(h: np.ndarray, x: np.ndarray, w: Weights, heads: int, causal: bool = False) -> np.ndarray:
    normed = layer_norm(h, part(w, "norm1"))  # (13)
    h = h + mha(normed, normed, part(w, "self_attn"), heads, causal)  # (14)
    h = h + mha(layer_norm(h, part(w, "norm2")), x, part(w, "src_attn"), heads)  # (15)
    return h + ffn(layer_norm(h, part(w, "norm3")), part(w, "feed_forward"))  # (16)


def cross_stack(h: np.ndarray, x: np.ndarray, w: Weights, heads: int, causal: bool = False) -> np.ndarray:
    for i in range(count(w, "decoders")):
        h = cross_block(h, x, part(w, f"decoders.{i}"), heads, causal)
    return layer_norm(h, part(w, "after_norm"))


# -- encoder module (5, 12) ------------------------------------------------------------------------


def slots(steps: int, numerator: int, denominator: int, maximum: int) -> int:
    """K = min(maximum, ceil(ratio * T)), by counting up."""
    k = 0
    while k * denominator < steps * numerator:
        k += 1
    return min(k, maximum)


def length_controller(
    x: np.ndarray, w: Weights, heads: int, ratio: tuple[int, int], maximum: int
) -> np.ndarray:
    k = slots(len(x), *ratio, maximum)
    queries = positions(k, x.shape[1]) + w["learned.weight"][:k]  # (12)
    return cross_stack(queries, x, part(w, "blocks"), heads)


def token_input(ids: Sequence[int], w: Weights) -> np.ndarray:
    table = w["embed.weight"]
    ids = [*ids, len(table) - 1]
    return table[ids] * math.sqrt(table.shape[1]) + positions(len(ids), table.shape[1])


def ctc_distribution(h: np.ndarray, w: Weights) -> np.ndarray:
    return log_softmax(linear(h, part(w, "ctc_lo")))  # (5)


# -- CTC (6) ---------------------------------------------------------------------------------------


def merge(path: Sequence[int]) -> list[int]:
    """Repeats merged, then blanks dropped (Graves et al. 2006)."""
    merged: list[int] = []
    previous = None
    for token in path:
        if token != previous and token != BLANK:
            merged.append(int(token))
        previous = token
    return merged


def greedy(probs: np.ndarray) -> list[int]:
    return merge(list(probs.argmax(-1)))


def ctc_by_enumeration(log_probs: np.ndarray, labels: Sequence[int]) -> float:
    """(6) literally: sum over every path of V^T whose merged form is the labels."""
    steps, size = log_probs.shape
    total = 0.0
    for path in itertools.product(range(size), repeat=steps):
        if merge(path) == list(labels):
            total += math.exp(sum(log_probs[t, token] for t, token in enumerate(path)))
    return -math.log(total) if total > 0 else math.inf


def ctc_by_forward(log_probs: np.ndarray, labels: Sequence[int]) -> float:
    """(6) by the forward recursion of Graves et al. (2006), in the log domain."""
    states = [BLANK]
    for label in labels:
        states += [int(label), BLANK]
    alpha = np.full(len(states), -np.inf)
    alpha[0] = log_probs[0, BLANK]
    if len(states) > 1:
        alpha[1] = log_probs[0, states[1]]
    for t in range(1, len(log_probs)):
        new = np.full(len(states), -np.inf)
        for s, token in enumerate(states):
            sources = [alpha[s]] + ([alpha[s - 1]] if s else [])
            if s > 1 and token != BLANK and token != states[s - 2]:
                sources.append(alpha[s - 2])
            new[s] = np.logaddexp.reduce(sources) + log_probs[t, token]
        alpha = new
    return float(-np.logaddexp.reduce(alpha[-2:]))


# -- ingestors (17-21) -----------------------------------------------------------------------------


def weighted_embedding(probs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(17), first half: P * W, or the 1-D convolution with weight (RF, V, D) and zeros around the item."""
    if weight.ndim == 2:
        return probs @ weight
    field = len(weight)
    h = np.zeros((len(probs), weight.shape[2]))
    for k in range(len(probs)):
        for j in range(field):
            neighbour = k + j - field // 2
            if 0 <= neighbour < len(probs):
                h[k] += probs[neighbour] @ weight[j]
    return h


def top_p(probs: np.ndarray, k: int) -> np.ndarray:
    """(19) literally: of all subsets of k entries the one of largest sum, then ranked by probability."""
    best = max(itertools.combinations(range(len(probs)), k), key=lambda subset: probs[list(subset)].sum())
    return np.array(sorted(best, key=lambda i: -probs[i]))


def beam_convolution(probs: np.ndarray, w: Weights, k: int) -> np.ndarray:
    """(20): the k ids of a slot embedded, ranks side by side as channels, convolved over slots."""
    table, kernel, bias = w["embed.weight"], w["conv.weight"], w.get("conv.bias", 0.0)
    r = np.stack([np.concatenate([table[i] for i in top_p(p, k)]) for p in probs])
    field = kernel.shape[2]
    h = np.zeros((len(probs), kernel.shape[0]))
    for t in range(len(probs)):
        for j in range(field):
            neighbour = t + j - field // 2
            if 0 <= neighbour < len(probs):
                h[t] += kernel[:, :, j] @ r[neighbour]
    return h + bias


def collapse(probs: np.ndarray) -> np.ndarray:
    """DESIGN 6b: runs of one argmax averaged, blank runs dropped, at least one slot stays."""
    runs: list[list[np.ndarray]] = []
    tokens: list[int] = []
    for p in probs:
        token = int(p.argmax())
        if tokens and tokens[-1] == token:
            runs[-1].append(p)
        else:
            runs.append([p])
            tokens.append(token)
    means = [np.mean(run, 0) for run in runs]
    kept = [mean for mean, token in zip(means, tokens) if token != BLANK]
    return np.stack(kept or means[:1])


def ingestor(
    probs: np.ndarray, w: Weights, heads: int, k: int | None = None, merges: bool = False
) -> np.ndarray:
    """(17, 18) for ``k=None``, (20, 21) else; DESIGN 6 scales WEmb by sqrt(d)."""
    if merges:
        probs = collapse(probs)
    if k is None:
        h = weighted_embedding(probs, w["embed.weight"])
        h = h * math.sqrt(h.shape[1])
    else:
        h = beam_convolution(probs, part(w, "embed"), k)
    return encoder(h + positions(*h.shape), part(w, "encoder"), heads)


# -- decoder (1-4, 7) ------------------------------------------------------------------------------


def decoder(memory: np.ndarray, labels: Sequence[int], w: Weights, heads: int) -> np.ndarray:
    """(2): log P(y_n | memory, L_1:n-1) for n = 1 ... N+1, <sos/eos> first, the last row for the end."""
    table = w["embed.weight"]
    tokens = [len(table) - 1, *labels]
    y = table[tokens] * math.sqrt(table.shape[1]) + positions(len(tokens), table.shape[1])
    return log_softmax(linear(cross_stack(y, memory, part(w, "body"), heads, causal=True), part(w, "output")))


def cross_entropy(log_probs: np.ndarray, labels: Sequence[int], smoothing: float = 0.0) -> float:
    """(3) over the labels and the end; smoothing mixes each target with the uniform distribution."""
    size, total = log_probs.shape[1], 0.0
    for row, label in zip(log_probs, [*labels, size - 1]):
        target = np.full(size, smoothing / size)
        target[label] += 1.0 - smoothing
        total -= float(target @ row)
    return total
