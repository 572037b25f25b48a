"""Beam search with CTC in numpy, as in the room ``search``. ``run.py`` of an export holds it: it imports numpy alone.

Letters: K slots, V tokens, k hypotheses of an input (the beam), C candidates for the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BLANK, NEVER = 0, -1e7


class RunnerError(ValueError):
    """The folder is damaged, or an input or option cannot be used."""


class SearchOptions(NamedTuple):
    """Of the search, as in the package's ``BeamOptions``; None is what was tuned for the chain, or its default."""

    beam_size: int = 5
    length_penalty: float | None = None
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1
    ctc_weight: float | None = None
    temperature: float = 1.0


class Candidate(NamedTuple):
    """Ids without the end; log_prob / length ** length_penalty; weighted sum of the parts; the parts by scorer."""

    ids: list[int]
    score: float
    log_prob: float
    parts: dict[str, float]


def best_places(x: np.ndarray, number: int) -> np.ndarray:
    """Places (..., number) of the largest values of the last axis, best first."""
    places = np.argpartition(x, x.shape[-1] - number)[..., -number:]
    order = np.argsort(-np.take_along_axis(x, places, -1), kind="stable")
    return np.take_along_axis(places, order, -1)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logsumexp(x: np.ndarray) -> np.ndarray:
    """Over the last axis; of nothing but -inf it is -inf."""
    most = np.maximum(x.max(-1, keepdims=True), -1e30)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - most).sum(-1)) + most[..., 0]


def collapse(log_probs: np.ndarray) -> np.ndarray:
    """(K, V): each run of slots with one best token becomes its mean, and runs of blank go; one slot stays."""
    best = log_probs.argmax(-1)
    starts = np.flatnonzero(np.append(True, best[1:] != best[:-1]))
    sizes = np.diff(np.append(starts, len(best)))
    means = np.add.reduceat(np.exp(log_probs), starts, 0) / sizes[:, None]
    kept = best[starts] != BLANK
    kept[0] |= not kept.any()
    return np.log(np.maximum(means[kept], np.finfo(np.float32).tiny)).astype(np.float32)


class CTC:
    """Log-probabilities of prefixes over all alignments, of one input; the package's ``CTCScorer``.

    ``whole[i, t]``: slots 1 ... t say hypothesis i; ``b``: and end in blank.

    Args:
        log_probs: (K, V), the last id ends texts; beam: hypotheses; number: candidates asked for at once.
    """

    def __init__(self, log_probs: np.ndarray, beam: int, number: int) -> None:
        self.x, self.end = log_probs.astype(np.float64), log_probs.shape[1] - 1
        likely = self.x.max(0)[:-1]
        likely[BLANK] = -np.inf
        self.short = best_places(likely, min(self.end - 1, 2 * len(self.x) + 2 * number + 16))
        self.short_probs = np.exp(self.x[:, self.short]) * (self.short != BLANK)
        self.blank = np.maximum(self.x[:, BLANK], NEVER).cumsum()
        self.b = np.repeat([np.append(0.0, _possible(self.blank))], beam, 0)
        self.whole, self.prefix = self.b, np.zeros(beam)
        self.last, self.again = np.full(beam, -1), np.full(beam, -np.inf)

    def propose(self, number: int) -> np.ndarray:
        """(k, number) likely next tokens."""
        before = self.whole[:, :-1]
        most = np.maximum(before.max(-1, keepdims=True), -1e30)
        found = np.exp(before - most) @ self.short_probs
        found = np.where(self.short == self.last[:, None], np.exp(self.again[:, None] - most), found)
        return self.short[best_places(found, min(number, len(self.short)))]

    def score(self, candidates: np.ndarray) -> np.ndarray:
        """(k, C) ids to the log-probability of each as the next token."""
        prefix = np.maximum(self.prefix, -1e30)[:, None]
        columns = np.moveaxis(self.x[:, candidates], 0, -1)
        found = logsumexp((self.whole[:, :-1] - prefix)[:, None] + columns)
        found = np.where(candidates == self.last[:, None], self.again[:, None] - prefix, found)
        return np.where(candidates == self.end, self.whole[:, -1:] - prefix, found)

    def advance(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """Hypotheses ``rows`` (k,) go on with ``tokens`` (k,)."""
        repeated = (tokens == self.last[rows])[:, None]
        before = np.where(repeated, self.b[rows], self.whole[rows])[:, :-1]
        self.last, label = tokens, np.maximum(self.x[:, tokens].T, NEVER)
        self.prefix = _possible(logsumexp(before + label))
        n = _recurrence(before, label.cumsum(-1))
        self.b = _recurrence(n[:, :-1], self.blank)
        self.whole = np.logaddexp(n, self.b)
        self.again = _possible(logsumexp(self.b[:, :-1] + label))

    @classmethod
    def of_text(cls, log_probs: np.ndarray, ids: Sequence[int]) -> float:
        """Log-probability (K, V) of a whole text."""
        scorer, total = cls(log_probs, 1, 1), 0.0
        for token in (*ids, scorer.end):
            total += float(scorer.score(np.array([[token]]))[0, 0])
            scorer.advance(np.zeros(1, int), np.array([token]))
        return total


def _possible(x: np.ndarray) -> np.ndarray:
    return np.where(x < NEVER / 2, -np.inf, x)


def _recurrence(enters: np.ndarray, running: np.ndarray) -> np.ndarray:
    """log x[0 ... K] of x[t] = p[t] * (x[t-1] + u[t]), x[0] = 0; log u[1 ... K] and sums of log p."""
    shifted = np.zeros_like(running)
    shifted[..., 1:] = running[..., :-1]
    x = _possible(running + np.logaddexp.accumulate(enters - shifted, -1))
    return np.concatenate([np.full((len(x), 1), -np.inf), x], -1)


class Beam:
    """The search for the texts of one input; the package's ``joint_search``.

    Args:
        slots: what limits of length refer to; end: id of the end; weights: of scorers, by name.
        ctc: one of them, if it is asked.
    """

    def __init__(
        self, slots: int, options: Any, penalty: float, end: int, weights: dict[str, float], ctc: CTC | None
    ) -> None:
        k, longest, shortest = options.beam_size, options.maxlenratio, options.minlenratio
        self.k, self.penalty, self.end, self.weights, self.ctc = k, penalty, end, weights, ctc
        self.most = 2 * slots + 10 if not longest else max(1, int(slots * longest)) if longest > 0 else int(-longest)
        self.fewest = min(self.most, int(slots * shortest) if shortest >= 0 else int(-shortest))
        self.texts: list[list[int]] = [[]] * k
        self.scores, self.parts = np.full(k, -np.inf), np.zeros((k, len(weights)))
        self.scores[0] = 0.0  # all are still the same: only one may be extended
        self.finished: list[Candidate] = []
        self.done = False

    def extend(self, log_probs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """One token more; ``log_probs`` (k, V): the decoder's. Rows (k,) that go on, and their tokens (k,)."""
        candidates = self._candidates(log_probs)
        scores = []
        if log_probs is not None:
            scores.append(np.take_along_axis(log_probs, candidates, -1).astype(np.float64))
        if self.ctc is not None:
            scores.append(self.ctc.score(candidates))
        rows, tokens = self._advance(candidates, scores)
        if self.ctc is not None and not self.done:
            self.ctc.advance(rows, tokens)
        return rows, tokens

    def _candidates(self, log_probs: np.ndarray | None) -> np.ndarray:
        """(k, C), each once, the end last; a place left over holds <blank>."""
        number, proposed = min(2 * self.k, self.end - 1), []
        if log_probs is not None:
            log_probs[:, BLANK] = -np.inf
            proposed.append(best_places(log_probs[:, :-1], number))
        if self.ctc is not None:
            proposed.append(self.ctc.propose(number))
        ids = np.concatenate([*proposed, np.full((self.k, 1), self.end)], -1)
        if len(proposed) > 1:
            ids.sort(-1)
            ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = BLANK
        return ids

    def _advance(self, candidates: np.ndarray, scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        length, ends = len(self.texts[0]), candidates == self.end
        totals = self.scores[:, None] + sum(w * s for w, s in zip(self.weights.values(), scores))
        if np.isnan(totals).any():
            raise RunnerError("probabilities are NaN: the model's weights or its input are not finite")
        forbidden = np.where(ends, length < self.fewest, (length >= self.most) | (candidates == BLANK))
        allowed = np.where(forbidden, -np.inf, totals).ravel()
        index = best_places(allowed, min(2 * self.k, allowed.size))
        best, parents, tokens = allowed[index], index // candidates.shape[1], candidates.ravel()[index]
        parts = self.parts[parents] + np.stack([s.ravel()[index] for s in scores], -1)
        if np.isneginf(best[0]) and not self.finished:  # no text within the limits: the best prefix as it is
            row = int(totals[:, -1].argmax())
            self._keep(self.texts[row], totals[row, -1], self.parts[row] + [s[row, -1] for s in scores])
        ended = tokens == self.end
        for i in np.flatnonzero(ended[: self.k] & np.isfinite(best[: self.k])):
            self._keep(self.texts[parents[i]], best[i], parts[i])
        order = np.argsort(ended, kind="stable")[: self.k]
        alive = np.where(ended[order], -np.inf, best[order])
        lacking = self.k - len(order)  # fewer candidates than the beam is wide
        order = np.pad(order, (0, lacking))
        self.scores, self.parts = np.pad(alive, (0, lacking), constant_values=-np.inf), parts[order]
        rows, tokens = parents[order], tokens[order]
        self.texts = [[*self.texts[row], int(token)] for row, token in zip(rows, tokens)]
        self.done = len(self.finished) >= self.k or bool(np.isneginf(self.scores).all())
        return rows, tokens

    def _keep(self, ids: list[int], log_prob: float, parts: Any) -> None:
        score = float(log_prob) / (len(ids) + 1) ** self.penalty
        named = dict(zip(self.weights, map(float, parts)))
        self.finished.append(Candidate(list(ids), score, float(log_prob), named))


class Steps:
    """The decoder module's view of every hypothesis, a token at a time; inputs that are done leave.

    Args:
        start, step: sessions of its two graphs; x, lengths: what it reads; beam: hypotheses; end: id they begin with.
    """

    def __init__(self, start: Any, step: Any, x: np.ndarray, lengths: np.ndarray, beam: int, end: int) -> None:
        names = [output.name for output in start.get_outputs()]
        self.step, self.fixed = step, dict(zip(names, start.run(names, {"x": x, "lengths": lengths})))
        width = next(given.shape[-1] for given in step.get_inputs() if given.name == "past")
        self.past = np.zeros((0, len(x), beam, width), np.float32)
        self._run(np.full((len(x), beam), end))

    def _run(self, tokens: np.ndarray) -> None:
        given = {"tokens": tokens, "past": self.past, **self.fixed}
        self.log_probs, self.new = self.step.run(["log_probs", "new"], given)

    def advance(self, going: list[int], rows: np.ndarray, tokens: np.ndarray) -> None:
        """Of the inputs ``going`` (U,) the hypotheses ``rows`` (U, k) go on with ``tokens`` (U, k)."""
        length, inputs, k, width = self.past.shape
        flat = (np.array(going)[:, None] * k + rows).ravel()
        past = np.empty((length + 1, len(flat), width), np.float32)
        np.take(self.past.reshape(length, inputs * k, width), flat, 1, past[:length], "clip")
        np.take(self.new.reshape(inputs * k, width), flat, 0, past[length], "clip")
        self.past = past.reshape(length + 1, len(going), k, width)
        if len(going) < inputs:
            self.fixed = {name: array[going] for name, array in self.fixed.items()}
        self._run(tokens)
