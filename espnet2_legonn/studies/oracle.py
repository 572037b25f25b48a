"""Oracle interfaces: what would the modules behind an interface make of another one? And cascades of its n-best texts.

Every reading of the interface is decoded by the same modules with the same search, and scored on the same utterances.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.data.tables import target_table
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import each_batch, inputs_of, naming, source_of, without_words
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.module import DecoderModule, consumed, produced
from espnet2_legonn.model.references import one_hot
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.metrics import known, require_scored_by
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.significance import compare
from espnet2_legonn.scoring.tables import read_references
from espnet2_legonn.search.chain_search import search_ctc
from espnet2_legonn.search.options import DEFAULT_LENGTH_PENALTY, BeamOptions, Hypothesis
from espnet2_legonn.search.words import alignment
from espnet2_legonn.studies.evaluate import Speakers, drawn, references_of, score_texts, scored

AS_IT_IS = "as it is"
TEMPERATURES, NBEST = (0.5, 2.0), (1, 8)


@dataclass(frozen=True)
class Reading:
    """How well the rest of a chain does with one reading of an interface.

    Args:
        empty: utterances without words, whose answer is empty; they are scored, too.
        speakers: that the data name, None: they name none; see ``evaluate.Speakers``.
    """

    name: str
    segments: Segments
    empty: int = 0
    speakers: int | None = None


def laid_out(ids: Sequence[int], ratio: float, blank: int) -> list[int]:
    """Slots that say these tokens, ``ratio`` of them for a token on average.

    Token i stands at the first of slots floor(i * ratio) to floor((i + 1) * ratio), the others of them are blank: CTC
    says a token once and then waits. Equal tokens that would merge get one more blank between them.
    """
    slots: list[int] = []
    for i, token in enumerate(ids):
        if slots and slots[-1] == token:
            slots.append(blank)
        room = int((i + 1) * ratio) - int(i * ratio)
        slots += [token, *[blank] * (room - 1)]
    return slots or [blank]


def ideal(marginals: Marginals, labels: Sequence[Sequence[int]], ratio: float | None) -> Marginals:
    """The interface that says the labels and nothing else; without ``ratio`` with about the encoder's own slots."""
    own, blank = marginals.lengths.tolist(), marginals.interface.vocab.blank_id
    rows = [laid_out(ids, ratio or max(1.0, n / max(1, len(ids))), blank) for ids, n in zip(labels, own)]
    lengths = torch.tensor([len(row) for row in rows], device=marginals.lengths.device)
    tokens = _padded(rows, int(lengths.max()), blank).to(lengths.device)
    nothing = marginals.log_probs.new_zeros(*tokens.shape, marginals.log_probs.shape[-1])
    return Marginals(one_hot(nothing, tokens), lengths, marginals.interface)


def shuffled(marginals: Marginals, uids: Sequence[str]) -> Marginals:
    """Slots of each item in a random order of its own, by its id; padding stays."""
    log_probs = marginals.log_probs.clone()
    for row, size, uid in zip(log_probs, marginals.lengths.tolist(), uids):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(zlib.crc32(uid.encode())))
        row[:size] = row[order.to(row.device)]
    return replace(marginals, log_probs=log_probs)


def _padded(rows: Sequence[Sequence[int]], size: int, blank: int) -> torch.Tensor:
    return torch.tensor([[*row, *[blank] * (size - len(row))] for row in rows])


def best_slots(marginals: Marginals, items: Sequence[int], texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """(N, K) the likeliest slots of items that say these texts; what no slots can say has the item's best path."""
    size, blank, rows = marginals.log_probs.shape[1], marginals.interface.vocab.blank_id, list[list[int]]()
    for i, ids in zip(items, texts):
        own = marginals[i]
        found = alignment(own, list(ids)) if ids else ([blank] * own.log_probs.shape[1], [])
        rows.append(own.log_probs[0].argmax(-1).tolist() if found is None else found[0])
    return _padded(rows, size, blank).to(marginals.log_probs.device)


def readings(
    marginals: Marginals,
    uids: Sequence[str],
    labels: Sequence[Sequence[int]] | None,
    ratio: float | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
) -> dict[str, Marginals]:
    """Other readings of an interface, by name.

    Args:
        labels: what it should say, None: not known, and two readings are left out.
        ratio: slots for a token of the ideal interface, see ``ideal``.
    """
    x = marginals.log_probs
    best, found = x.argmax(-1), {AS_IT_IS: marginals}
    if labels is not None:
        right = best_slots(marginals, range(len(marginals)), labels)
        corrected = torch.where((right != best).unsqueeze(-1), one_hot(x, right), x)
        found["the reference (one-hot)"] = ideal(marginals, labels, ratio)
        found["errors corrected"] = replace(marginals, log_probs=corrected)
    found["the best token of each slot (one-hot)"] = replace(marginals, log_probs=one_hot(x, best))
    for t in temperatures:
        found[f"temperature {t:g}"] = replace(marginals, log_probs=(x / t).log_softmax(-1))
    return {**found, "shuffled in time": shuffled(marginals, uids)}


def cascades(marginals: Marginals, rest: LegoNN, numbers: Sequence[int], options: BeamOptions) -> list[list[list[int]]]:
    """Answers (ids) by way of the interface's n-best texts, for each n of ``numbers`` and each item.

    The texts of CTC's prefix search go on one by one, one-hot on their likeliest slots. Of their best answers the one
    with the highest log P(text | input) + log P(answer | text) wins, over length ** length_penalty as in every search.
    """
    most = max(numbers)
    nbest = search_ctc(marginals, BeamOptions(max(most, options.beam_size), 0.0, nbest=most))
    items = [i for i, texts in enumerate(nbest) for _ in texts]
    tokens = best_slots(marginals, items, [h.ids for texts in nbest for h in texts])
    x, lengths = marginals.log_probs[items], marginals.lengths[items]
    answers = iter(rest.answer(Marginals(one_hot(x, tokens), lengths, marginals.interface), options))
    default = DEFAULT_LENGTH_PENALTY if isinstance(rest.last, DecoderModule) else 0.0
    power = default if options.length_penalty is None else options.length_penalty

    def ranked(text: Hypothesis, best: Hypothesis) -> tuple[float, list[int]]:
        return (text.log_prob + best.log_prob) / (len(best.ids) + 1) ** power, best.ids

    scored = [[ranked(text, next(answers).best) for text in texts] for texts in nbest]
    return [[max(found[:n], key=itemgetter(0))[1] for found in scored] for n in numbers]


def cut(chain: LegoNN, at: str | None) -> tuple[LegoNN, LegoNN]:
    """What writes an interface and what reads it: before the last module, or behind the module ``at``.

    Raises:
        ConfigError: no such module, or no interface that something reads there.
    """
    names = chain.names
    if at is not None and at not in names:
        raise ConfigError(f"no module {at!r}; this chain has {', '.join(names)}")
    place = len(names) - 1 if at is None else names.index(at) + 1
    if not 0 < place < len(names) or chain[place:].first.ports[0].kind != "marginals":
        raise ConfigError(f"no interface that a module of this chain ({', '.join(names)}) reads there; see --at")
    return chain[:place], chain[place:]


def oracle(
    chain: LegoNN,
    data: Path,
    metric: str,
    options: BeamOptions | None = None,
    at: str | None = None,
    temperatures: Sequence[float] = TEMPERATURES,
    numbers: Sequence[int] = NBEST,
    limit: int = 0,
    batch_size: int = 32,
) -> list[Reading]:
    """Decode and score a data directory with every reading of an interface.

    Args:
        options: of the search; ``ctc_weight`` None: the decoder alone, since CTC of a given interface writes that out.
        at: the module behind which it stands, by default the last but one; numbers: of texts in a cascade.
        limit: so many utterances, spread over the set (0: all).

    Raises:
        ConfigError: see ``cut``. DataError: fewer than two inputs, bad ones or bad speakers, no such metric, or
            references are missing.
    """
    known(metric)
    front, rest = cut(chain, at)
    options, vocab = options or BeamOptions(), rest.require_text()
    inputs, source = inputs_of(chain, data, limit), source_of(chain, data)
    if len(inputs) < 2:
        raise DataError(f"{source}: a paired difference needs at least 2 utterances, here is {len(inputs)}")
    speakers = Speakers.read(data, inputs)
    if options.ctc_weight is None:
        options = replace(options, ctc_weight=0.0 if isinstance(rest.last, DecoderModule) else 1.0)
    require_scored_by(metric, {rest.names[-1]: vocab.unit})
    found = references_of(data, str(rest.configs[-1].target_vocab), vocab, metric, inputs, source)
    if found is None:
        raise DataError(f"{data}: has no references for the answers of this chain")
    said, references, _ = found
    wanted = _transcripts(front, data, vocab.language, inputs, source)
    reads, writes = consumed(rest.first), produced(front.last)
    assert reads is not None and writes is not None
    texts: dict[str, dict[str, str]] = defaultdict(dict)

    def keep(name: str, uids: Sequence[str], answers: Sequence[list[int]]) -> None:
        texts[name].update(zip(uids, map(vocab.decode, answers)))

    for items in each_batch(front, inputs, batch_size):
        uids = list(items)
        with naming(uids):
            marginals = front.marginals(list(items.values()))
        labels = None if wanted is None else [writes.vocab.encode(wanted[uid]) for uid in uids]
        ratio = reads.slots_per_token or writes.slots_per_token
        for name, read in readings(marginals, uids, labels, ratio, temperatures).items():
            keep(name, uids, [answer.best.ids for answer in rest.answer(read, options)])
        for n, answers in zip(numbers, cascades(marginals, rest, numbers, options)):
            keep(f"{n}-best cascade", uids, answers)
    empty = without_words(source, inputs, texts[AS_IT_IS])
    found_texts = {name: {**own, **dict.fromkeys(empty, "")} for name, own in texts.items()}
    return [
        Reading(name, score_texts(said, references, own, vocab.language, speakers), len(empty), speakers.number)
        for name, own in found_texts.items()
    ]


def _transcripts(
    front: LegoNN, data: Path, language: str | None, uids: Collection[str], source: Path
) -> dict[str, str] | None:
    """What the interface should say; None where the data have none in its language (the chain's is ``language``)."""
    vocab = front.require_text()
    file = data / target_table(data, str(front.configs[-1].target_vocab), vocab.unit)
    foreign = file.name == "text" and None not in (vocab.language, language) and vocab.language != language
    if foreign or not file.is_file():
        return None
    return read_references([file], source, uids)[0]


def render(found: Sequence[Reading]) -> str:
    """A table: score with its 95 % interval, and the difference to the interface as it is, on the same utterances.

    Below it, how many they are, and what intervals draw.
    """
    first, label = found[0].segments, known(found[0].segments.metric).label
    rows = []
    for reading in found:
        own = confidence_interval(reading.segments)
        interval = "" if own.low is None else f"{own.low:.1f} to {own.high:.1f}"
        change = compare(first, reading.segments)
        difference = f"{change.difference:+.1f} ({change.ci[0]:+.1f} to {change.ci[1]:+.1f})"
        is_first = reading.name == AS_IT_IS
        rows.append([reading.name, f"{reading.segments.value:.1f}", interval, "" if is_first else difference])
    table = markdown_table(["what is read", label, "95 % CI", "difference (paired 95 % CI)"], rows)
    below = f"{scored(first.count, found[0].empty)} {drawn(first.unit, len(first.sums), found[0].speakers)}."
    return f"{table}\n{below}"


def as_json(found: Sequence[Reading]) -> list[dict[str, Any]]:
    """Content of oracle.json: for each reading the comparison with the interface as it is (``value_a``)."""
    return [{"name": reading.name, **compare(found[0].segments, reading.segments).as_json()} for reading in found]
