"""What two modules must agree on, and the distributions that pass between them.

Dimensions used in the whole package: ``B`` batch, ``T`` input steps, ``K`` slots, ``V`` vocabulary size,
``D`` model width, ``L`` target length, ``M`` modules of a chain, ``N`` hypotheses (``B`` x beam).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError, InterfaceMismatch

if TYPE_CHECKING:
    import torch

# Beyond this much change of slots per token a plug is measurably worse. Too few hurt more than too many: on the demo's
# Romanian x0.7 costs 9 BLEU and x1.5 costs 2; on speech either way costs 14 WER.
RATIO_TOLERANCE = 1.2


@dataclass(frozen=True)
class Interface:
    """The contract of a marginals port.

    Args:
        vocab: tokens of the distribution, blank included.
        grounded: the producer was trained with CTC; without it a plug cannot work (Table X).
        slots_per_token: mean number of slots for one token seen in training, or None if not known.
        longest: most slots seen in training, or None.
    """

    vocab: Vocabulary
    grounded: bool = True
    slots_per_token: float | None = None
    longest: int | None = None


@dataclass(frozen=True)
class SearchChoice:
    """How a chain as a whole is searched best: weights tuned on a validation set, which travel with the chain.

    Args:
        ctc_weight, length_penalty: see search.options.BeamOptions.
        lm_weight, ngram_weight: of the language model that it was tuned with, if there was one.
        dataset: the validation set.
        metric, value: what the weights were chosen by, and its value there.
        beam_size: of the searches that found the candidates.
        weights: SHA-256 of the weights it was tuned for, where other weights may lie beside it.
    """

    ctc_weight: float
    length_penalty: float
    dataset: str | None = None
    metric: str | None = None
    value: float | None = None
    beam_size: int | None = None
    weights: str | None = None
    lm_weight: float | None = None
    ngram_weight: float | None = None

    def faults(self, where: str) -> list[str]:
        """What no search could follow."""
        ok = 0 <= self.ctc_weight <= 1
        return [] if ok else [f"{where}.ctc_weight: {self.ctc_weight} is not between 0 and 1"]


class Finding(NamedTuple):
    """One reason for or against a plug; ``fatal`` ones forbid it."""

    fatal: bool
    message: str


def _differs(name: str, left: Any, right: Any) -> str:
    return f"{name}: {left} is produced, {right} is expected"


def compare(producer: Interface, consumer: Interface, collapse: bool = False) -> list[Finding]:
    """Every reason why ``consumer`` should not read what ``producer`` writes (empty: a perfect fit).

    Args:
        collapse: the consumer's ingestor merges runs of slots, so slots per token do not matter to it.
    """
    left, right = producer.vocab, consumer.vocab
    findings = []
    if left.sha256 != right.sha256:
        if len(left) != len(right):
            reason = _differs("vocabulary size", len(left), len(right))
        else:
            first = next(i for i, (a, b) in enumerate(zip(left.tokens, right.tokens)) if a != b)
            same = "the same tokens in another order" if set(left.tokens) == set(right.tokens) else "other tokens"
            reason = f"vocabulary: {same}; id {first} is {left.tokens[first]!r} there and {right.tokens[first]!r} here"
        findings.append(Finding(True, reason))
    for name in ("unit", "language", "normalization"):
        a, b = getattr(left, name), getattr(right, name)
        if a != b and (name == "unit" or None not in (a, b)):
            findings.append(Finding(True, _differs(name, a, b)))
    if left.bpemodel and right.bpemodel and left.bpemodel != right.bpemodel:
        findings.append(Finding(False, "sentencepiece models differ: the same text may be split in another way"))
    a, b = left.normalizer, right.normalizer
    if a and b and a != b:
        findings.append(Finding(False, f"{_differs('sentencepiece normaliser', a, b)}: other tokens of the same text"))
    if not producer.grounded:
        findings.append(
            Finding(False, "the producer was trained without CTC: its slots have no meaning to others (Table X)")
        )
    findings += _compare_lengths(producer, consumer, collapse)
    return findings


def _compare_lengths(producer: Interface, consumer: Interface, collapse: bool) -> list[Finding]:
    findings = []
    a, b = producer.slots_per_token, consumer.slots_per_token
    if a and b and not collapse and not 1 / RATIO_TOLERANCE <= a / b <= RATIO_TOLERANCE:
        findings.append(
            Finding(
                False,
                f"slots per token: {a:.2f} are produced, {b:.2f} were seen in training ({a / b:.2f} times); "
                f"{'too few cost a plug much' if a < b else 'a plug that far off can lose'}; train with "
                f"slots_per_token: {b:.1f} or with collapse: true on the reading side",
            )
        )
    return findings


def require_match(producer: Interface, consumer: Interface, where: str, collapse: bool = False) -> list[str]:
    """Raise on a fatal difference, return the warnings.

    Raises:
        InterfaceMismatch: lists every reason, fatal ones first.
    """
    findings = sorted(compare(producer, consumer, collapse), key=lambda f: not f.fatal)
    if any(f.fatal for f in findings):
        raise InterfaceMismatch([f"{where}: {f.message}" for f in findings])
    return [f"{where}: {f.message}" for f in findings]


@dataclass
class Marginals:
    """Distributions over a vocabulary, one per slot (equation 8).

    Args:
        log_probs: (B, K, V) log-probabilities in float32; slots beyond ``lengths`` have no meaning.
        lengths: (B,) number of slots of each item.
        interface: what the distributions are over.
    """

    log_probs: torch.Tensor
    lengths: torch.Tensor
    interface: Interface

    def probs(self) -> torch.Tensor:
        """(B, K, V) probabilities."""
        return self.log_probs.exp()

    def __len__(self) -> int:
        return self.log_probs.shape[0]

    def __getitem__(self, index: int) -> Marginals:
        """One item, without its padding, still with a batch dimension of 1."""
        index = range(len(self))[index]
        length = int(self.lengths[index])
        return Marginals(self.log_probs[index : index + 1, :length], self.lengths[index : index + 1], self.interface)

    def require_numbers(self, where: str) -> None:
        """Every answer would come of these, and NaN counts as the likeliest token: blank, so the text is empty.

        Raises:
            DataError: a slot has NaN.
        """
        wrong = self.log_probs.amax(-1).isnan()  # the greatest of numbers and NaN is NaN
        before = wrong.new_ones(wrong.shape[1]).cumsum(0) - 1  # no torch in this room
        if bool((wrong & (before < self.lengths.unsqueeze(1))).any()):
            raise DataError(
                f"{where}: probabilities are NaN: the model's weights or its input are not finite "
                "(did training diverge?)"
            )

    def greedy_ids(self) -> list[list[int]]:
        """Best path of each item: repeats merged, blanks dropped."""
        best = self.log_probs.argmax(-1).cpu()
        items = []
        for row, length in zip(best, self.lengths.tolist()):
            merged = row[:length].unique_consecutive().tolist()
            items.append([i for i in merged if i != self.interface.vocab.blank_id])
        return items

    def greedy_texts(self) -> list[str]:
        """Best path of each item as text."""
        return [self.interface.vocab.decode(ids) for ids in self.greedy_ids()]

    def greedy_text(self) -> str:
        """Best path of a single item as text."""
        if len(self) != 1:
            raise DataError(f"greedy_text reads one item, these marginals hold {len(self)}; use greedy_texts")
        return self.greedy_texts()[0]
