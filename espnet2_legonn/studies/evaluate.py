"""Each module of a chain judged by itself: its score, and for interfaces what a reader of them should know."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet2_legonn.data.tables import few, read_table, split_fields, target_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.decode import each_batch, inputs_of, naming, source_of, without_words
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.losses import Labels, ctc_loss
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.scoring.bootstrap import Segments, confidence_interval
from espnet2_legonn.scoring.metrics import (
    known,
    reference_files,
    require_scored_by,
    scored_by,
    speakers_of,
    statistics,
)
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.tables import read_references
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.calibration import calibration_error, right_or_wrong, said_tokens


@dataclass
class Figures:
    """What one module says, beside the references.

    Args:
        module, metric: e.g. ``encoder``, ``bleu``.
        utterances: that were scored; empty: those of them without words, whose text is empty.
        score, low, high: of its own text (interfaces: the best path; decoder: the search), and its 95 % interval.
        unit, units: what the interval draws, ``utterance`` or ``speaker``, and how many there are.
        speakers: that the data name, None: they name none; see ``Speakers``.
        loss: nats for a target token: CTC of an interface, cross-entropy of a decoder (as trained, with its smoothing).
        infeasible: share of utterances with more labels than CTC can place in the slots.
        slots_per_token: mean over the set; seen: in training.
        blank: share of slots whose best token is blank.
        entropy: mean of a slot's distribution in nats; entropy_said: of the slots that say a token.
        calibration: expected calibration error of the tokens said; sure, right: their mean probability, share right.
    """

    module: str
    metric: str
    utterances: int
    score: float = math.nan
    low: float | None = None
    high: float | None = None
    loss: float = math.nan
    infeasible: float | None = None
    slots_per_token: float | None = None
    seen: float | None = None
    blank: float | None = None
    entropy: float | None = None
    entropy_said: float | None = None
    calibration: float | None = None
    sure: float | None = None
    right: float | None = None
    empty: int = 0
    unit: str = "utterance"
    units: int = 0
    speakers: int | None = None


@dataclass(frozen=True)
class Speakers:
    """Who said utterances, for intervals: they draw speakers where several said several things.

    With one speaker, or one for each utterance, they draw utterances.

    Args:
        by_utterance: empty where the data name none.
    """

    by_utterance: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Path, uids: Collection[str]) -> Speakers:
        """Of utterances of a data directory.

        Raises:
            DataError: utterances without a speaker, or with several.
        """
        file = speakers_of(data)
        if file is None:
            return cls()
        table = read_table(file)
        if odd := [uid for uid in uids if len(split_fields(table.get(uid, ""))) != 1]:
            raise DataError(f"{file}: {few(odd)} need exactly one speaker each; a line is `<utterance> <speaker>`")
        return cls({uid: table[uid] for uid in uids})

    @property
    def number(self) -> int | None:
        return len(set(self.by_utterance.values())) or None

    def drawn(self, uids: Sequence[str]) -> list[str]:
        """Speakers parallel to ids; nothing, and utterances are drawn, with one speaker, or one for each utterance."""
        several = self.number is not None and 1 < self.number < len(self.by_utterance)
        return [self.by_utterance[uid] for uid in uids] if several else []


@dataclass
class _Sums:
    """Running totals of one module."""

    texts: dict[str, str] = field(default_factory=dict)
    loss: float = 0.0
    tokens: int = 0
    feasible: int = 0
    slots: int = 0
    blank: int = 0
    entropy: float = 0.0
    entropy_said: float = 0.0
    infeasible: int = 0
    judged: list[tuple[float, bool]] = field(default_factory=list)

    def add_interface(self, uids: Sequence[str], marginals: Marginals, labels: Labels) -> None:
        """One batch of an interface."""
        losses, impossible = ctc_loss(marginals.log_probs, marginals.lengths, labels.ids, labels.lengths)
        self.loss += float(losses.double().sum())
        self.feasible += int(labels.lengths[~impossible].sum())
        self.infeasible += int(impossible.sum())
        self.tokens += int(labels.lengths.sum())
        vocab = marginals.interface.vocab
        for i, uid in enumerate(uids):
            log_probs = marginals[i].log_probs[0].double().cpu().numpy()
            probs = np.exp(log_probs)
            entropy = -(probs * np.where(probs > 0, log_probs, 0)).sum(1)
            said = probs.argmax(1) != vocab.blank_id
            self.slots += len(probs)
            self.blank += int((~said).sum())
            self.entropy += float(entropy.sum())
            self.entropy_said += float(entropy[said].sum())
            tokens = said_tokens(probs, vocab.blank_id)
            self.texts[uid] = vocab.decode([token for token, _ in tokens])
            self.judged += right_or_wrong(tokens, labels.ids[i, : labels.lengths[i]].tolist())


def references_of(
    data: Path, name: str, vocab: Vocabulary, metric: str, uids: Collection[str], source: Path
) -> tuple[str, list[dict[str, str]], dict[str, str]] | None:
    """Metric of a module's text, its references, and the targets of its loss; None where there are none.

    There are none where the data have no such texts, and where words would be scored by PER.

    The targets are what training would read: the references of ``bleu_detok`` are raw texts.

    Args:
        name: of the vocabulary, see ``target_table``; source: the table that is decoded.
        uids: utterances of it that must have references.

    Raises:
        DataError: see ``scoring.tables.read_references``.
    """
    said = scored_by(metric, vocab.unit)
    if said is None:
        return None
    table = target_table(data, name, vocab.unit)
    files = [data / table, *reference_files(said, data, table)]
    if not all(file.is_file() for file in files):
        return None  # a donor's phonemes
    targets, *references = read_references(files, source, uids)
    return said, references, targets


def labels_of(texts: Sequence[str], vocab: Vocabulary, device: torch.device) -> Labels:
    """Target ids of texts, padded with -1."""
    ids = [torch.tensor(vocab.encode(text), dtype=torch.long) for text in texts]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
    return Labels(padded.to(device), lengths.to(device))


def score_texts(
    metric: str,
    references: Sequence[Mapping[str, str]],
    texts: Mapping[str, str],
    language: str | None,
    speakers: Speakers,
) -> Segments:
    """Statistics of texts by what intervals draw."""
    ids = sorted(texts)
    refs = [[table[uid] for uid in ids] for table in references]
    stats, score = statistics(metric, refs, [texts[uid] for uid in ids], language)
    return Segments.of(metric, "", stats, score, speakers.drawn(ids))


def evaluate(
    chain: LegoNN, data: Path, metric: str, options: BeamOptions | None = None, limit: int = 0, batch_size: int = 32
) -> list[Figures]:
    """Judge every module of a chain on a data directory.

    Args:
        metric: of words; phonemes are scored by PER.
        options: of the decoder's search; limit: so many utterances, spread over the set (0: all).

    Raises:
        DataError: bad inputs or speakers, no such metric, or no module has references.
    """
    known(metric)
    inputs, source = inputs_of(chain, data, limit), source_of(chain, data)
    speakers = Speakers.read(data, inputs)
    wanted, units = {}, dict[str, str]()
    for config, module in zip(chain.configs, chain):
        vocab = module.ports[1].vocab
        if vocab is None or not (isinstance(module, DecoderModule) or produced(module)):
            continue
        units[config.name] = vocab.unit
        found = references_of(data, str(config.target_vocab), vocab, metric, inputs, source)
        if found is not None:
            wanted[config.name] = (module, vocab, *found)
    require_scored_by(metric, units)
    if not wanted:
        raise DataError(f"{data}: has no references for any module of this chain")
    sums, done = {name: _Sums() for name in wanted}, set[str]()
    for items in each_batch(chain, inputs, batch_size):
        uids = list(items)
        done.update(uids)
        with naming(uids):
            batch = chain.batch(list(items.values()))
        _add(chain, uids, batch, wanted, sums, options or BeamOptions())
    empty = without_words(source, inputs, done)
    return [_figures(name, *wanted[name][:-1], sums[name], empty, speakers) for name in wanted]


@torch.inference_mode()
def _add(
    chain: LegoNN, uids: list[str], batch: Any, wanted: dict[str, Any], sums: dict[str, _Sums], options: BeamOptions
) -> None:
    found, x, lengths = chain.encode(*batch)
    for name, (module, vocab, _, _, targets) in wanted.items():
        labels = labels_of([targets[uid] for uid in uids], vocab, chain.device)
        if name in found:
            sums[name].add_interface(uids, found[name], labels)
        elif isinstance(module, DecoderModule):
            loss = module.loss(x, lengths, labels)
            sums[name].loss += float(loss.total)
            sums[name].feasible += int(loss.tokens)
            nbest = chain.decode_encoded(found, x, lengths, options)
            sums[name].texts.update({uid: vocab.decode(best[0].ids) for uid, best in zip(uids, nbest)})


def _figures(
    name: str,
    module: Any,
    vocab: Vocabulary,
    metric: str,
    references: Sequence[Mapping[str, str]],
    sums: _Sums,
    empty: Sequence[str],
    speakers: Speakers,
) -> Figures:
    texts = {**sums.texts, **dict.fromkeys(empty, "")}
    segments = score_texts(metric, references, texts, vocab.language, speakers)
    interval = confidence_interval(segments)
    about = Figures(name, metric, len(texts), segments.value, interval.low, interval.high, empty=len(empty))
    about.unit, about.units, about.speakers = interval.unit, interval.units, speakers.number
    about.loss = sums.loss / sums.feasible if sums.feasible else math.nan
    interface = produced(module)
    if interface is not None and sums.slots:
        said = sums.slots - sums.blank
        about.infeasible = sums.infeasible / len(sums.texts)
        about.slots_per_token = sums.slots / sums.tokens if sums.tokens else None
        about.seen, about.blank = interface.slots_per_token, sums.blank / sums.slots
        about.entropy, about.entropy_said = sums.entropy / sums.slots, sums.entropy_said / said if said else math.nan
        about.calibration = calibration_error(sums.judged)
        about.sure = float(np.mean([s for s, _ in sums.judged])) if sums.judged else math.nan
        about.right = float(np.mean([r for _, r in sums.judged])) if sums.judged else math.nan
    return about


def _cell(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def scored(utterances: int, empty: int) -> str:
    """How many utterances a table is of, in words."""
    nothing = f", {empty} of them without words: their answer is empty" if empty else ""
    return f"{utterances} utterances were scored{nothing}."


def drawn(unit: str, units: int, speakers: int | None) -> str:
    """What intervals draw, in words.

    Args:
        unit, units: as in ``Figures``; speakers: that the data name.
    """
    if units < 2:
        return f"No intervals: they take at least 2 {unit}s"
    why = ""
    if unit == "utterance" and speakers is not None and speakers < units:
        why = ", since all are of one speaker" if speakers == 1 else f": {speakers} speakers are too few to draw"
    return f"95 % intervals by bootstrap over {units} {unit}s{why}"


def render(figures: Sequence[Figures]) -> str:
    """A table, a row for each module, how many utterances were scored, and what intervals draw."""
    header = ["module", "score", "95 % CI", "loss a token", "slots a token (in training)", "blank slots", "entropy",
              "entropy of tokens", "calibration error", "sure", "right", "no CTC path"]  # fmt: skip
    rows = []
    for f in figures:
        interval = "" if f.low is None or f.high is None else f"{f.low:.1f} to {f.high:.1f}"
        slots = f"{_cell(f.slots_per_token)} ({_cell(f.seen) or 'unknown'})" if f.slots_per_token else ""
        share = [_cell(x, 3) for x in (f.calibration, f.sure, f.right, f.infeasible)]
        rows.append([
            f.module, f"{known(f.metric).label} {f.score:.1f}", interval, _cell(f.loss, 3), slots, _cell(f.blank),
            _cell(f.entropy), _cell(f.entropy_said), *share,
        ])  # fmt: skip
    first = figures[0]
    below = f"{scored(first.utterances, first.empty)} {drawn(first.unit, first.units, first.speakers)}."
    return f"{markdown_table(header, rows)}\n{below}"


def as_json(figures: Sequence[Figures]) -> list[dict[str, Any]]:
    """Content of evaluate.json; what is not known is null."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(f).items()} for f in figures]
