"""Encoders that vote, tried on one set and told of another: weights of the search, and what the others reach alone.

Every chain and the vote find candidates, every scorer judges all of them, and a grid of weights ranks them
(``recipes/tune.py`` does so for one chain).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import inputs_of, naming, source_of, warn_of_unknown
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.vote import Vote, voters
from espnet2_legonn.recipes.tune import IMPOSSIBLE, PENALTIES, best_rows
from espnet2_legonn.recipes.validation import read_references
from espnet2_legonn.scoring import metrics
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.search.options import BeamOptions

STEPS = 10  # of the grid: weights are tenths that add up to 1


@dataclass(frozen=True)
class Judged:
    """Candidates of a set with what every scorer says of them.

    Args:
        owner: (n,) number of the utterance; lengths: (n,) tokens, <sos/eos> counted.
        parts: (n, scorers) log-probabilities by ``names``.
        ranks: (n, sources) log-probability of each candidate by one source alone, -inf where it has not found it.
        texts: the n texts; references: texts of the utterances, one list for each reference.
    """

    names: Sequence[str]
    owner: np.ndarray
    lengths: np.ndarray
    parts: np.ndarray
    ranks: np.ndarray
    texts: Sequence[str]
    references: Sequence[Sequence[str]]


def judge(
    vote: Vote, sources: Sequence[Path], metric: str, beam_size: int, keys: slice, batch_size: int = 50
) -> Judged:
    """Candidates by each source's CTC with the decoder it feeds or without, and by the vote; all scorers judge all.

    Args:
        sources: data directories, one for each encoder, of the same utterances.
        keys: which of them.

    Raises:
        DataError: utterances that not all of them have, or a reference is missing.
    """
    tables = [inputs_of(chain, d) for d, chain in zip(sources, vote.sources)]
    uids = list(tables[0])[keys]
    if lost := [f"{d}: no {uid}" for d, table in zip(sources, tables) for uid in uids if uid not in table]:
        raise DataError(lost[:5])
    references = read_references(metric, sources[0], vote.vocab, uids, source_of(vote.chain, sources[0]))
    names = ["decoder", "ctc", *(f"ctc_{i}" for i in range(2, len(tables) + 1))]
    rows: list[tuple[int, int, list[float], list[float], str]] = []
    for chain, table in zip(vote.sources, tables):
        warn_of_unknown(chain, {uid: table[uid] for uid in uids})
    for begin in range(0, len(uids), batch_size):
        some = uids[begin : begin + batch_size]
        with naming(some):
            rows += _batch(vote, [[table[uid] for uid in some] for table in tables], names, beam_size, begin)
    *numbers, texts = zip(*rows)
    owner, lengths, parts, ranks = map(np.array, numbers)
    return Judged(names, owner, lengths, parts, ranks, texts, references)


def _batch(
    vote: Vote, inputs: Sequence[Sequence[str]], names: Sequence[str], beam: int, first: int
) -> list[tuple[int, int, list[float], list[float], str]]:
    """Of some utterances, numbered from ``first``: each text that was found once, with its parts and ranks."""
    even = 1 / len(inputs)
    others = range(len(vote.others))
    judges = [1e-9 for _ in others]  # others judge, and have no say
    searches = [(judges, 0.0), (judges, 0.4), ([0.6 * even for _ in others], 0.6 * even)]
    searches += [([50.0 * (i == k) + 1e-9 for i in others], 0.0) for k in others]
    heard, encoded = vote.heard(inputs), vote.chain.encode(*vote.chain.batch(list(inputs[0])))
    found: list[dict[tuple[int, ...], tuple[dict[str, float], list[float]]]] = [{} for _ in inputs[0]]
    columns = len(inputs)
    for number, (weights, weight) in enumerate(searches):
        options = BeamOptions(beam, 1.0, nbest=beam, ctc_weight=weight)
        nbests = vote.chain.decode_encoded(*encoded, options, voters(heard, weights), judge_all=True)
        for place, nbest in enumerate(nbests):
            for h in nbest:
                _, ranks = found[place].setdefault(tuple(h.ids), (h.parts, [-np.inf] * columns))
                if number == 1:
                    ranks[0] = 0.6 * h.parts["decoder"] + 0.4 * h.parts["ctc"]
                elif number > 2:
                    ranks[number - 2] = h.parts[names[number - 1]]
    return [
        (first + i, len(ids) + 1, [max(parts[n], IMPOSSIBLE) for n in names], ranks, vote.vocab.decode(list(ids)))
        for i, texts in enumerate(found)
        for ids, (parts, ranks) in texts.items()
    ]


def _value(judged: Judged, totals: np.ndarray, penalty: float, stats: tuple) -> float:
    table, score = stats
    rows = best_rows(totals / judged.lengths**penalty, judged.owner, len(judged.references[0]))
    return float(score(table[rows].sum(0, keepdims=True))[0])


def _statistics(judged: Judged, metric: str, language: str | None) -> tuple:
    references = [[texts[i] for i in judged.owner] for texts in judged.references]
    return metrics.statistics(metric, references, judged.texts, language)


def systems(names: Sequence[str]) -> dict[str, list[int]]:
    """What is compared: by name, the scorers that may have weight."""
    sources = range(1, len(names))
    found = {"decoder alone": [0], "decoder + own CTC": [0, 1]}
    found |= {f"CTC {i} alone": [i] for i in sources} | {f"decoder + CTC {i}": [0, i] for i in sources[1:]}
    return {**found, "CTC of all": [*sources], "decoder + CTC of all": [0, *sources]}


def tune_and_tell(
    tuned_on: Judged, told_of: Judged, metric: str, language: str | None = None
) -> tuple[dict[str, tuple[list[float], float, float]], str]:
    """For each system the best weights and length penalty on one set, and the score of another with them.

    Returns:
        (weights by scorer, penalty, score) by system, and a table.
    """
    mine, other = (_statistics(judged, metric, language) for judged in (tuned_on, told_of))
    better = 1 if metrics.known(metric).higher else -1
    found: dict[str, tuple[list[float], float, float]] = {}
    for name, which in systems(tuned_on.names).items():
        grid = [w for w in itertools.product(range(STEPS + 1), repeat=len(which)) if sum(w) == STEPS]
        best: tuple[float, list[float], float] | None = None
        for tenths, penalty in itertools.product(grid, PENALTIES):
            weights = np.zeros(len(tuned_on.names))
            weights[which] = np.array(tenths) / STEPS
            value = better * _value(tuned_on, tuned_on.parts @ weights, penalty, mine)
            if best is None or value > best[0]:
                best = (value, weights.tolist(), penalty)
        assert best is not None
        _, chosen, penalty = best
        found[name] = (chosen, penalty, _value(told_of, told_of.parts @ np.array(chosen), penalty, other))
    found["n-best lists averaged"] = ([], 0.0, _value(told_of, posteriors(told_of), 0.0, other))
    rows = [
        (name, " ".join(f"{w:.1f}" for w in weights), f"{penalty:.1f}" if weights else "", f"{value:.1f}")
        for name, (weights, penalty, value) in found.items()
    ]
    return found, markdown_table(("search", " ".join(tuned_on.names), "length_penalty", metric.upper()), rows)


def posteriors(judged: Judged) -> np.ndarray:
    """(n,) mean probability of each candidate in the n-best lists of the sources, as ROVER votes, texts for words."""
    total = np.zeros(len(judged.owner))
    for column in judged.ranks.T:
        weights = np.where(np.isfinite(column), np.exp(column), 0.0)
        sums = np.bincount(judged.owner, weights, minlength=int(judged.owner.max()) + 1)
        total += weights / np.maximum(sums[judged.owner], 1e-30)
    return total


def vote_on(
    chain: LegoNN, others: Sequence[LegoNN], sources: Sequence[Path], metric: str, beam_size: int, limit: int = 0
) -> tuple[Mapping[str, tuple[list[float], float, float]], str]:
    """Tuned on the first half of a set, told of the second; see ``tune_and_tell``.

    Args:
        sources: data directories of the set, one for each encoder; limit: its first utterances only (0: all).

    Raises:
        DataError: fewer than two utterances, or see ``judge``.
    """
    vote = Vote(chain, others)
    number = len(inputs_of(chain, sources[0]))
    number = min(number, limit or number)
    if number < 2:
        raise DataError(f"{sources[0]}: {number} utterance cannot be cut into two halves, to tune and to tell")
    halves = [slice(0, number // 2), slice(number // 2, number)]
    judged = [judge(vote, sources, metric, beam_size, half) for half in halves]
    return tune_and_tell(judged[0], judged[1], metric, vote.vocab.language)
