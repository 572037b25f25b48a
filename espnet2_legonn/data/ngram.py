"""N-gram language models over the ids of a vocabulary: how they are held, and how they are estimated.

Estimation is interpolated modified Kneser-Ney (Chen and Goodman 1999) as KenLM's lmplz does it (Heafield et al. 2013),
over numpy: the tests hold both to the same numbers. ``data/arpa.py`` reads and writes the format of such models.
"""

from __future__ import annotations

import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from espnet2_legonn.errors import ConfigError, DataError

# Tokens counted at a time: bounds the memory for sorting (about 100 MB).
CHUNK = 1 << 21
# Where the counts allow no estimate (tiny or artificial texts), as lmplz --discount_fallback.
FALLBACK = (0.5, 1.0, 1.5)
# log10 of a probability of nothing, as SRILM writes it.
NOTHING = -99.0


@dataclass(frozen=True)
class NgramTree:
    """A back-off model. Each n-gram is a node; its parent is the same n-gram without the last token.

    Node 0 is the empty n-gram, node 1 + i is token i, then come bigrams, trigrams, ..., each order sorted by parent and
    token. The last id is ``<sos/eos>``: ``<s>`` where an n-gram begins with it, ``</s>`` where it ends with it.

    Args:
        keys: (nodes,) parent * V + token, ascending, so that a node is found by bisection.
        log_probs: (nodes,) log10 of the last token's probability after the others; float32.
        backoffs: (nodes,) log10 of the weight of the shorter context where this n-gram is the context; float32.
        sizes: nodes of each order, (V, bigrams, ...).
    """

    keys: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    sizes: tuple[int, ...]

    @classmethod
    def of_unigrams(cls, log_probs: np.ndarray, backoffs: np.ndarray) -> NgramTree:
        """The tree of order 1 from (V,) log10 probabilities and back-off weights."""
        root = np.array([np.iinfo(np.int64).min])
        tree = cls(root, np.array([-np.inf], np.float32), np.zeros(1, np.float32), (len(log_probs),))
        return tree._with(np.arange(len(log_probs)), log_probs, backoffs, tree.sizes)

    def extended(
        self, parents: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray
    ) -> NgramTree:
        """With one order more, given as (n,) arrays; parents and tokens ascend and no pair occurs twice."""
        keys = parents * self.vocab_size + tokens
        return self._with(keys, log_probs, backoffs, (*self.sizes, len(tokens)))

    def _with(self, keys: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray, sizes: tuple[int, ...]) -> NgramTree:
        return NgramTree(
            np.concatenate([self.keys, keys]),
            np.concatenate([self.log_probs, log_probs], dtype=np.float32),
            np.concatenate([self.backoffs, backoffs], dtype=np.float32),
            sizes,
        )

    @property
    def vocab_size(self) -> int:
        return self.sizes[0]

    @property
    def order(self) -> int:
        return len(self.sizes)

    def find(self, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """(n,) nodes of parents (n,), -1 for none, followed by tokens (n,); -1 where there is no such n-gram."""
        keys = parents * self.vocab_size + tokens
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.where((self.keys[places] == keys) & (parents >= 0), places, -1)

    def span(self, n: int) -> slice:
        """The nodes of order n."""
        begin = 1 + sum(self.sizes[: n - 1])
        return slice(begin, begin + self.sizes[n - 1])

    def ngrams(self, n: int) -> np.ndarray:
        """(sizes[n - 1], n) token ids of all n-grams of order n."""
        keys = self.keys[self.span(n)]
        ids = np.empty((len(keys), n), np.int32)
        for place in reversed(range(n)):
            parents, ids[:, place] = np.divmod(keys, self.vocab_size)
            keys = self.keys[parents]
        return ids


@dataclass
class _Order:
    """N-grams of one order while they are counted. Nodes and parents are numbered as in NgramTree."""

    begin: int
    keys: np.ndarray
    counts: np.ndarray  # how often each occurs
    suffixes: np.ndarray  # node of each without its first token
    opening: np.ndarray  # whether it begins with <s>
    adjusted: np.ndarray = field(default_factory=lambda: np.empty(0))  # how many tokens come before it

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Nodes of keys that are there."""
        return self.begin + np.searchsorted(self.keys, keys)


def estimate(
    sentences: Iterable[Sequence[int]], vocab_size: int, order: int = 4, prune: Sequence[int] = ()
) -> NgramTree:
    """An interpolated modified Kneser-Ney model.

    Every token of the vocabulary but ``<blank>`` has a probability: those that were not seen, ``<unk>`` among them,
    share what discounting leaves to the uniform distribution. Needs 8 bytes for each token and about 100 for each
    different n-gram.

    Args:
        sentences: token ids of each, without ``<sos/eos>``; empty ones are left out.
        prune: for each order from 1, n-grams that occur at most so often are left out; the last number also holds for
            what follows. 0 for unigrams, never falling, as lmplz --prune.

    Raises:
        ConfigError: no such order, or pruning as it cannot be.
        DataError: no sentence, or an id outside the vocabulary.
    """
    _check(order, prune)
    tokens, starts = _collect(sentences, vocab_size)
    orders = _count(tokens, starts, vocab_size, order)
    _adjust(orders)
    limits = [*prune[:order], *[prune[-1] if prune else 0] * (order - len(prune))]
    return _interpolate(orders, vocab_size, limits)


def _check(order: int, prune: Sequence[int]) -> None:
    if order < 1:
        raise ConfigError(f"n-gram: order {order} is less than 1")
    if prune and (prune[0] != 0 or list(prune) != sorted(prune)):
        raise ConfigError(f"n-gram: prune {' '.join(map(str, prune))}: begin with 0 for unigrams and never fall")


def _collect(sentences: Iterable[Sequence[int]], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """All tokens as <s> ... </s> <s> ... </s>, and which of them are <s>."""
    end = vocab_size - 1
    stream, lengths = array("i"), array("q")
    for sentence in sentences:
        if len(sentence):
            stream.append(end)
            stream.extend(sentence)
            stream.append(end)
            lengths.append(len(sentence) + 2)
    if not lengths:
        raise DataError("n-gram: no sentence to estimate a model from")
    tokens = np.frombuffer(stream, np.int32)
    starts = np.zeros(len(tokens), bool)
    starts[np.cumsum(np.frombuffer(lengths, np.int64))[:-1]] = True
    starts[0] = True
    inner = (tokens > 0) & (tokens < end)
    if inner.sum() != len(tokens) - 2 * len(lengths):
        raise DataError(f"n-gram: an id outside the vocabulary's 1 to {end - 1} in the sentences")
    return tokens, starts


def _count(tokens: np.ndarray, starts: np.ndarray, vocab_size: int, order: int) -> list[_Order]:
    ids = np.arange(vocab_size)
    counts = np.bincount(tokens[~starts], minlength=vocab_size)
    orders = [_Order(1, ids, counts, np.zeros_like(ids), ids == vocab_size - 1)]
    nodes = tokens + 1  # of the n-gram that ends at each place; -1 where it would reach over <s>
    for _ in range(2, order + 1):
        last = orders[-1]
        keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        for here in _chunks(len(tokens)):
            keys, counts = _merged(keys, counts, _keys(nodes, tokens, starts, here, vocab_size)[0])
        parents, words = np.divmod(keys, vocab_size)
        above = parents - last.begin
        suffixes = last.find(last.suffixes[above] * vocab_size + words)
        orders.append(_Order(last.begin + len(last.keys), keys, counts, suffixes, last.opening[above]))
        new = np.full_like(nodes, -1)
        for here in _chunks(len(tokens)):
            found, valid = _keys(nodes, tokens, starts, here, vocab_size)
            new[here][valid] = orders[-1].find(found)
        nodes = new
    return orders


def _chunks(size: int) -> Iterable[slice]:
    return (slice(begin, min(begin + CHUNK, size)) for begin in range(1, size, CHUNK))


def _keys(
    nodes: np.ndarray, tokens: np.ndarray, starts: np.ndarray, here: slice, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the n-grams that end in a chunk, and at which of its places there is one."""
    before = nodes[here.start - 1 : here.stop - 1]
    valid = (before >= 0) & ~starts[here]
    return before[valid].astype(np.int64) * vocab_size + tokens[here][valid], valid


def _merged(keys: np.ndarray, counts: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    new, often = np.unique(more, return_counts=True)
    if not len(keys):
        return new, often
    merged, places = np.unique(np.concatenate([keys, new]), return_inverse=True)
    sums = np.zeros(len(merged), np.int64)
    np.add.at(sums, places, np.concatenate([counts, often]))
    return merged, sums


def _adjust(orders: Sequence[_Order]) -> None:
    """What Kneser-Ney discounts: in lower orders the different tokens before an n-gram; nothing can precede <s>."""
    orders[-1].adjusted = orders[-1].counts
    for lower, higher in zip(orders, orders[1:]):
        before = np.bincount(higher.suffixes - lower.begin, minlength=len(lower.keys))
        opening = lower.opening if lower.begin > 1 else np.zeros(len(before), bool)
        lower.adjusted = np.where(opening, lower.counts, before)


def _discounts(adjusted: np.ndarray, n: int) -> np.ndarray:
    """(4,) what is taken from counts of 0, 1, 2, and 3 or more."""
    t = [np.count_nonzero(adjusted == i) for i in range(5)]
    if all(t[1:4]):
        y = t[1] / (t[1] + 2 * t[2])
        found = np.array([i - (i + 1) * y * t[i + 1] / t[i] for i in (1, 2, 3)])
        if (found >= 0).all():
            return np.array([0.0, *found])
    warnings.warn(
        f"n-gram: texts too few or too regular to estimate discounts of order {n} from, {FALLBACK} are taken: "
        f"{n}-grams that occur once, twice, three and four times: {', '.join(map(str, t[1:]))}",
        stacklevel=5,
    )
    return np.array([0.0, *FALLBACK])


def _interpolate(orders: Sequence[_Order], vocab_size: int, limits: Sequence[int]) -> NgramTree:
    """From counts to probabilities, each order with the help of the one below it."""
    unigrams = orders[0]
    own, weights, kept, _ = _shares(unigrams, np.zeros_like(unigrams.keys), 1, 1, 0)
    probs = own + weights[0] / (vocab_size - 1)
    log_probs = _log10(probs)
    log_probs[0] = -np.inf  # <blank> is never said
    tree = NgramTree.of_unigrams(log_probs, np.zeros(vocab_size))
    renumbered = 1 + unigrams.keys  # nodes of the order below once n-grams are pruned
    for n, (below, this) in enumerate(zip(orders, orders[1:]), 2):
        parents, words = np.divmod(this.keys, vocab_size)
        parents -= below.begin
        above = kept  # which of the order below are in the tree
        own, weights, kept, seen = _shares(this, parents, len(below.keys), n, limits[n - 1])
        probs = own + weights[parents] * probs[this.suffixes - below.begin]
        tree.backoffs[tree.span(n - 1)] = _log10(np.where(seen, weights, 1.0))[above]
        zeros = np.zeros(np.count_nonzero(kept))
        tree = tree.extended(renumbered[parents[kept]], words[kept], _log10(probs)[kept], zeros)
        renumbered = tree.span(n).start + np.cumsum(kept) - 1
    return tree


def _shares(
    this: _Order, parents: np.ndarray, contexts: int, n: int, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the n-grams of one order take for themselves, and what is left to the order below.

    Args:
        parents: (n-grams,) context of each, from 0 to ``contexts`` - 1.
        limit: n-grams that occur at most so often are left out.

    Returns:
        probability of each n-gram without the order below, weight of the order below in each context, which n-grams
        are kept, and which contexts have any of them.
    """
    kept = (this.counts > limit) | (n == 1)
    taken = this.adjusted - _discounts(this.adjusted, n)[np.minimum(this.adjusted, 3)]
    taken = np.where(kept, taken, 0.0)
    totals = np.bincount(parents, this.adjusted, contexts)
    left = np.bincount(parents, this.adjusted - taken, contexts)
    weights = np.divide(left, totals, out=np.ones(contexts), where=totals > 0)
    return taken / totals[parents], weights, kept, np.bincount(parents, kept, contexts) > 0


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(values, out=np.full(len(values), NOTHING), where=values > 0)
