"""Weights of the search chosen on a validation set: candidates are found once, a grid of weights ranks them anew.

Several searches find candidates: the decoder alone, both, CTC alone, each of them with several weights of the language
models where there are any. Every scorer judges all candidates. The score of a candidate is
((1 - w) * decoder + w * CTC + l * n-gram) / length ** penalty, so any weights can be tried without decoding again. What
no search has found cannot be chosen, so the searches must stand near all places of the grid.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from espnet2_legonn.inference.decode import each_batch, inputs_of, naming, source_of, without_words
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.recipes.validation import read_references
from espnet2_legonn.scoring import metrics
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.tables import write_report
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.scorers import Scorer

WEIGHTS = tuple(round(0.1 * i, 1) for i in range(11))
PENALTIES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
NGRAM_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
# Searches that propose candidates, by weight of CTC and of language models; a scorer of weight 0 still judges.
PROPOSERS = (0.0, 0.4, 1.0)
MODEL_PROPOSERS = (0.2, 0.5, 1.0)
MODELS = ("lm", "ngram")  # language models share one weight
IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class Candidates:
    """Texts found for a validation set, with all that is needed to rank and score them.

    Args:
        owner: (n,) number of the utterance, 0 ... u - 1.
        lengths: (n,) tokens, <sos/eos> counted.
        parts: (n,) log-probabilities by scorer; a chain without a decoder has no ``decoder``.
        texts: the n texts.
        references: texts of the u utterances, one list for each reference.
    """

    owner: np.ndarray
    lengths: np.ndarray
    parts: Mapping[str, np.ndarray]
    texts: Sequence[str]
    references: Sequence[Sequence[str]]

    @property
    def utterances(self) -> int:
        return len(self.references[0])

    @property
    def modelled(self) -> bool:
        """Whether a language model has judged them."""
        return any(name in self.parts for name in MODELS)

    def weights(self, given: float | None = None) -> Sequence[float]:
        """Weights of CTC to try: all, the given one, or the only one where there is one scorer."""
        if "decoder" not in self.parts or "ctc" not in self.parts:
            return (1.0,) if "ctc" in self.parts else (0.0,)
        return WEIGHTS if given is None else (given,)

    def best(self, place: tuple[float, float, float]) -> np.ndarray:
        """(u,) rows of the best candidates by these weights of CTC and language models, and this length penalty."""
        w, n, penalty = place
        zero = np.zeros(len(self.owner))
        decoder, ctc, *models = (self.parts.get(name, zero) for name in ("decoder", "ctc", *MODELS))
        total = (1 - w) * decoder + w * ctc + n * sum(models)
        return best_rows(total / self.lengths**penalty, self.owner, self.utterances)


def best_rows(scores: np.ndarray, owner: np.ndarray, utterances: int) -> np.ndarray:
    """(u,) row of the best candidate of each utterance, from scores (n,) and the utterances (n,) they belong to."""
    ranked = np.lexsort((scores, owner))
    last = np.searchsorted(owner[ranked], np.arange(utterances), side="right") - 1
    return np.asarray(ranked[last])


def find_candidates(
    chain: LegoNN,
    data: Path,
    metric: str,
    options: BeamOptions,
    more: Sequence[ScorerMaker] = (),
    limit: int = 0,
    batch_size: int = 64,
) -> Candidates:
    """Decode a data directory with each of PROPOSERS and MODEL_PROPOSERS; each text of an utterance once.

    Args:
        metric: whose references are read.
        options: of the searches, but for the weights, the length penalty and ``nbest``.
        more: language models; limit: so many utterances, see ``inputs_of`` (0: all).

    Raises:
        DataError: no such metric, a reference is missing, or inputs that cannot be read.
    """
    chain = chain.converted(options.dtype)
    inputs, source = inputs_of(chain, data, limit), source_of(chain, data)
    vocab = chain.last.ports[1].vocab
    assert vocab is not None
    references = read_references(metric, data, vocab, inputs, source)
    number = {uid: i for i, uid in enumerate(inputs)}
    options = dataclasses.replace(options, length_penalty=1.0, nbest=options.beam_size)
    searches = [
        (dataclasses.replace(options, ctc_weight=w), [weighted(make, n) for make in more])
        for w, n in itertools.product(_proposers(chain), _held(options, MODEL_PROPOSERS) if more else (0.0,))
    ]
    rows: list[tuple[int, int, dict[str, float], str]] = []
    done = set[str]()
    batches = each_batch(chain, inputs, batch_size)
    for items in tqdm(batches, desc="tune", total=-(-len(inputs) // batch_size), mininterval=5.0):
        with naming(list(items)):
            encoded = chain.encode(*chain.batch(list(items.values())))
        found = [chain.decode_encoded(*encoded, *search, judge_all=True) for search in searches]
        done.update(items)
        for uid, *hypotheses in zip(items, *found):
            once = {tuple(h.ids): h for h in itertools.chain.from_iterable(hypotheses)}
            rows += [(number[uid], len(ids) + 1, h.parts, vocab.decode(h.ids)) for ids, h in once.items()]
    names = rows[0][2] if rows else {}
    empty = without_words(source, inputs, done)
    rows += [(number[uid], 1, dict.fromkeys(names, 0.0), "") for uid in empty]
    owner, sizes, parts, texts = zip(*rows)
    table = {k: np.maximum([p[k] for p in parts], IMPOSSIBLE) for k in parts[0] if all(k in p for p in parts)}
    return Candidates(np.array(owner), np.array(sizes), table, texts, references)


def _held(options: BeamOptions, tried: Sequence[float]) -> Sequence[float]:
    """Weights of language models to try: the one that is given, else these."""
    given = [weight for weight in (options.ngram_weight, options.lm_weight) if weight is not None]
    return given[:1] or tried


def weighted(make: ScorerMaker, weight: float) -> ScorerMaker:
    """A maker of the same scorers, with another weight."""

    def made(utterances: int, beam: int, device: torch.device) -> Scorer:
        scorer = make(utterances, beam, device)
        scorer.weight = weight
        return scorer

    return made


def _proposers(chain: LegoNN) -> Sequence[float]:
    """Weights of the searches for candidates: where CTC cannot propose tokens, or nothing else can, one is enough."""
    vocabs = [interface.vocab for module in chain if (interface := produced(module)) is not None]
    if not isinstance(chain.last, DecoderModule):
        return PROPOSERS[-1:]
    written = chain.last.ports[1].vocab
    assert written is not None
    return PROPOSERS if vocabs and vocabs[-1].sha256 == written.sha256 else PROPOSERS[:1]


@dataclass(frozen=True)
class Tuned:
    """The grid: score of the validation set by (ctc_weight, n-gram weight, length penalty), and the best place."""

    metric: str
    better: int
    scores: Mapping[tuple[float, float, float], float]
    utterances: int
    candidates: int

    @property
    def best(self) -> tuple[float, float, float]:
        """The best weights."""
        return self._best(self.scores)

    def _best(self, places: Iterable[tuple[float, float, float]]) -> tuple[float, float, float]:
        """Of equally good places the one nearest to the defaults."""

        def rank(place: tuple[float, float, float]) -> tuple[float, float]:
            return round(self.better * self.scores[place], 6), -abs(place[0] - 0.4) - abs(place[2] - 1)

        return max(places, key=rank)

    def curve(self) -> str:
        """A table: for each CTC weight the best n-gram weight and length penalty, and the score with them."""
        rows = []
        for weight in sorted({k[0] for k in self.scores}):
            place = self._best(k for k in self.scores if k[0] == weight)
            mark = " <- chosen" if place == self.best else ""
            rows.append((f"{weight:.1f}", f"{place[1]:.1f}", f"{place[2]:.1f}", f"{self.scores[place]:.2f}{mark}"))
        return markdown_table(("ctc_weight", "ngram_weight", "length_penalty", self.metric.upper()), rows)


def search_grid(
    candidates: Candidates, metric: str, language: str | None = None, options: BeamOptions | None = None
) -> Tuned:
    """Score every combination of weights.

    Args:
        metric: of scoring; language: of the target, for ``bleu_detok``.
        options: weights and a length penalty that are given are the only ones tried.
    """
    options = options or BeamOptions()
    references = [[texts[i] for i in candidates.owner] for texts in candidates.references]
    stats, score = metrics.statistics(metric, references, candidates.texts, language)
    better, utterances = 1 if metrics.known(metric).higher else -1, candidates.utterances
    weights = candidates.weights(options.ctc_weight)
    penalties = PENALTIES if options.length_penalty is None else (options.length_penalty,)
    scores = {}
    for w, n in itertools.product(weights, _held(options, NGRAM_WEIGHTS) if candidates.modelled else (0.0,)):
        for penalty in penalties:
            chosen = stats[candidates.best((w, n, penalty))]
            scores[w, n, penalty] = float(score(chosen.sum(0, keepdims=True))[0])
    return Tuned(metric, better, scores, utterances, len(candidates.owner))


def tune(
    chain: LegoNN,
    data: Path,
    metric: str,
    options: BeamOptions,
    more: Sequence[ScorerMaker] = (),
    limit: int = 0,
    out: Path | None = None,
) -> tuple[SearchChoice, float, str]:
    """Choose weights for a chain on a validation set.

    Args:
        data: a data directory; metric: what is made best.
        options: of the search that is tuned. What it has of weights and the length penalty is held, the rest is chosen.
        out: folder for result.txt (the curve) and result.json (the grid).

    Returns:
        the choice, the weight of the n-gram model (0 without one), and the curve as a table.
    """
    candidates = find_candidates(chain, data, metric, options, more, limit)
    vocab = chain.last.ports[1].vocab
    tuned = search_grid(candidates, metric, vocab.language if vocab else None, options)
    w, n, penalty = tuned.best
    choice = SearchChoice(w, penalty, data.name, metric, round(tuned.scores[tuned.best], 2), options.beam_size)
    facts = f"{tuned.utterances} utterances of {data.name}, {tuned.candidates} candidates, beam {options.beam_size}"
    curve = f"{facts}\n\n{tuned.curve()}"
    if out is not None:
        grid = [[*place, value] for place, value in tuned.scores.items()]
        payload = {**dataclasses.asdict(choice), "ngram_weight": n, "grid": grid}
        write_report(out, curve, json.loads(json.dumps(payload)))
    return choice, n, curve
