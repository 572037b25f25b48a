"""How a vocabulary fits corpora: unknown units, units per word, slots per unit, and what CTC cannot align."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from espnet2_legonn.data.checks import row_fault
from espnet2_legonn.data.tables import Faults, Table, joined, ordered, shown
from espnet2_legonn.data.vocab import WORDS, Coverage, Meter, measure
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError


@dataclass(frozen=True)
class Text:
    """A text table, and the inputs it is the target of: ``utt2num_samples``, or a text table in the source vocabulary.

    Written ``TEXT`` or ``TEXT,INPUTS`` on the command line.
    """

    text: Path
    inputs: Path | None = None

    @classmethod
    def parse(cls, spec: str) -> Text:
        """From ``TEXT[,INPUTS]``."""
        text, _, inputs = spec.partition(",")
        return cls(Path(text), Path(inputs) if inputs else None)


@dataclass(frozen=True)
class Lengths:
    """From inputs to slots, as the length controller does: min(max_length, ceil(ratio * steps)).

    Args:
        source: vocabulary of text inputs.
        fs: sampling rate of speech inputs, in Hz.
    """

    ratio: Fraction
    max_length: int
    source: Vocabulary
    fs: int = 16000

    @functools.cached_property
    def _word(self) -> Callable[[str], int]:
        return functools.lru_cache(WORDS)(lambda word: len(self.source.split(word)))

    def steps(self, table: str, value: str) -> int:
        """Input steps of one utterance: 40 ms of speech, or units of the source and its end."""
        if table == "utt2num_samples":
            window, hop = 1 << (self.fs * 25 // 1000 - 1).bit_length(), self.fs // 100
            frames = max(1, (int(value) - window) // hop + 1)
            return (frames + 3) // 4
        return sum(map(self._word, value.split())) + 1

    def slots(self, steps: int) -> int:
        """Slots for so many steps."""
        return min(self.max_length, -(-steps * self.ratio.numerator // self.ratio.denominator))


@dataclass(frozen=True)
class Fit(Coverage):
    """One corpus, with its slots.

    Without inputs there are none: ``slots_per_token`` and ``infeasible`` are None. ``infeasible`` counts lines
    whose units and repeats need more slots than there are, so that CTC has no path.
    """

    slots_per_token: float | None = None
    infeasible: int | None = None

    @property
    def infeasible_share(self) -> float | None:
        """Lines without a CTC path, as a fraction."""
        return None if self.infeasible is None else self.infeasible / max(self.lines, 1)

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        shares = {"oov_rate": self.oov_rate, "fertility": self.fertility, "infeasible_share": self.infeasible_share}
        return asdict(self) | shares


def fit(vocab: Vocabulary, corpus: Text, lengths: Lengths | None = None) -> Fit:
    """How ``vocab`` fits one corpus.

    Raises:
        DataError: a file is missing or damaged, or an utterance has no input.
    """
    if corpus.inputs is None or lengths is None:
        return Fit(**vars(measure(vocab, corpus.text)))
    tables = Table(corpus.text), Table(corpus.inputs)
    return ordered(lambda: _fit(vocab, corpus, lengths, *tables))


def _fit(vocab: Vocabulary, corpus: Text, lengths: Lengths, texts: Table, inputs: Table) -> Fit:
    slots = infeasible = 0
    meter, faults = Meter(vocab), Faults()
    for text, given in joined([texts.rows(), inputs.rows()]):
        if text is None or given is None:
            if text is not None:
                faults.add(f"{inputs.path}: no line for {text.key}, which {texts.path} has")
            continue
        if fault := row_fault(inputs.path.name, given.value):
            faults.add(f"{inputs.path}: {shown(given.key)}: {fault}")
            continue
        ids = meter.add(shown(text.key), text.value)
        room = lengths.slots(lengths.steps(inputs.path.name, given.value))
        slots += room
        infeasible += room < len(ids) + sum(a == b for a, b in zip(ids, ids[1:]))
    if faults:
        raise DataError(faults)
    counts = vars(meter.coverage(str(corpus.text)))
    return Fit(**counts, slots_per_token=slots / max(meter.tokens, 1), infeasible=infeasible)


def render(vocab: Vocabulary, fits: Sequence[Fit]) -> str:
    """A table for people."""
    head = ("corpus", "lines", "words", "units", "OOV %", "units/word", "slots/unit", "no CTC path %")
    rows = [head]
    for f in fits:
        slots = "-" if f.slots_per_token is None else f"{f.slots_per_token:.2f}"
        share = "-" if f.infeasible_share is None else f"{100 * f.infeasible_share:.2f}"
        numbers = (str(f.lines), str(f.words), str(f.tokens), f"{100 * f.oov_rate:.3f}", f"{f.fertility:.3f}")
        rows.append((f.corpus, *numbers, slots, share))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    rule = f", sentencepiece normaliser {vocab.normalizer}" if vocab.normalizer else ""
    lines = [f"{vocab.unit} vocabulary of {len(vocab)} units{rule}, sha256 {vocab.sha256}"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells))
    return "\n".join(lines)
