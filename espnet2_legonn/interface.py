"""What two modules must agree on, and the distributions that pass between them.

Dimensions used in the whole package: ``B`` batch, ``T`` input steps, ``K`` slots, ``V`` vocabulary size,
``D`` model width, ``L`` target length, ``M`` modules of a chain, ``N`` hypotheses (``B`` x beam).
"""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from espnet2_legonn import spm
from espnet2_legonn.errors import DataError, InterfaceMismatch, harmless

if TYPE_CHECKING:
    import torch

BLANK, UNK, SOS_EOS, SPACE = "<blank>", "<unk>", "<sos/eos>", "<space>"
UNITS = ("bpe", "phn", "char", "word")
# A quarter of a million tokens are 3 MB, their sentencepiece model 5 MB.
MAX_VOCAB_BYTES = 32 << 20
# Merges of subword-nmt begin so; pieces inside a word end in @@.
MERGES, JOINT = b"#version:", re.compile(r"@@(?: |$)")
# Beyond this much change of slots per token a plug is measurably worse. Too few hurt more than too many: on the demo's
# Romanian x0.7 costs 9 BLEU and x1.5 costs 2; on speech either way costs 14 WER.
RATIO_TOLERANCE = 1.2

__all__ = [
    "Finding",
    "Interface",
    "InterfaceMismatch",
    "Marginals",
    "SearchChoice",
    "Vocabulary",
    "compare",
    "require_match",
]


@dataclass(frozen=True)
class Vocabulary:
    """An ordered list of tokens and how text becomes tokens.

    ESPnet's convention: id 0 is ``<blank>``, 1 is ``<unk>``, the last is ``<sos/eos>``.

    Args:
        tokens: all tokens in order of their ids.
        unit: ``bpe`` (needs a sentencepiece model), ``phn``, ``char`` or ``word``.
        language: ISO code, for instance ``en``.
        normalization: name of the text treatment before tokenisation, for instance ``lc.rm``.
        bpemodel: for unit ``bpe``, how words are split (bytes): a serialized sentencepiece model, or the merges of
            subword-nmt (a text that begins with ``#version:``), whose pieces end in ``@@`` inside words.

    Raises:
        DataError: lists everything that is wrong with the list.
    """

    tokens: tuple[str, ...]
    unit: str = "bpe"
    language: str | None = None
    normalization: str | None = None
    bpemodel: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        faults = []
        if self.unit not in UNITS:
            faults.append(f"vocabulary: unit {self.unit!r} is not one of {', '.join(UNITS)}")
        if len(self.tokens) < 4:
            faults.append(
                f"vocabulary: {len(self.tokens)} tokens; need {BLANK}, {UNK}, {SOS_EOS} and at least one more"
            )
        else:
            for place, wanted in ((0, BLANK), (1, UNK), (len(self.tokens) - 1, SOS_EOS)):
                if self.tokens[place] != wanted:
                    faults.append(
                        f"vocabulary: token {place} is {self.tokens[place]!r}, ESPnet's order puts {wanted!r} there"
                    )
        if len(set(self.tokens)) != len(self.tokens):
            twice = sorted(t for t, n in collections.Counter(self.tokens).items() if n > 1)
            faults.append(f"vocabulary: tokens that occur twice: {' '.join(twice[:10])}")
        if odd := [t for t in self.tokens if "\n" in t or harmless(t) != t]:
            faults.append(
                f"vocabulary: control characters or overrides of direction in {len(odd)} tokens, the first is "
                f"{odd[0]!r}; they would act on terminals: clean the text and make the list again"
            )
        if faults:
            raise DataError(faults)

    @classmethod
    def from_files(
        cls,
        tokens: str | Path,
        unit: str = "bpe",
        bpemodel: str | Path | None = None,
        language: str | None = None,
        normalization: str | None = None,
    ) -> Vocabulary:
        """Read ``tokens.txt`` (one token a line) and, for ``bpe``, the sentencepiece model.

        Raises:
            DataError: a file is missing, or the list is not a vocabulary; the file is named.
        """
        path = Path(tokens)
        if not path.is_file():
            raise DataError(f"{path}: no such token list; stage 5 of the recipe makes it")
        model_path = None if bpemodel is None else Path(bpemodel)
        if model_path is not None and not model_path.is_file():
            raise DataError(f"{model_path}: no such sentencepiece model; stage 5 of the recipe makes it")
        for file in (path, model_path or path):
            if file.stat().st_size > MAX_VOCAB_BYTES:
                raise DataError(f"{file}: {file.stat().st_size} bytes; a vocabulary has at most {MAX_VOCAB_BYTES}")
        try:
            model = None if model_path is None else model_path.read_bytes()
            # Only "\n" ends a line: a token may be another Unicode separator.
            lines = path.read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the token list as UTF-8") from None
        try:
            return cls(tuple(line for line in lines if line), unit, language, normalization, model)
        except DataError as error:
            raise DataError([f"{path}: {fault}" for fault in error.faults]) from None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def blank_id(self) -> int:
        return 0

    @property
    def unk_id(self) -> int:
        return 1

    @property
    def sos_eos_id(self) -> int:
        return len(self.tokens) - 1

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the ordered tokens: equal digests mean the same ids for the same tokens."""
        return hashlib.sha256("\n".join(self.tokens).encode("utf-8")).hexdigest()

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """Ids by token."""
        return {token: i for i, token in enumerate(self.tokens)}

    @functools.cached_property
    def _spm(self) -> Any:
        if not self.bpemodel:
            raise DataError("vocabulary: unit bpe needs a sentencepiece model to split text; give bpemodel")
        return spm.load(self.bpemodel)

    @property
    def merges(self) -> bool:
        """Whether ``bpemodel`` holds subword-nmt's merges."""
        return bool(self.bpemodel) and self.bpemodel.startswith(MERGES)  # type: ignore[union-attr]

    @functools.cached_property
    def _bpe(self) -> Any:
        try:
            from subword_nmt.apply_bpe import BPE
        except ImportError:
            raise DataError("vocabulary: merges of subword-nmt need it: pip install subword-nmt") from None
        try:
            return BPE(io.StringIO((self.bpemodel or b"").decode("utf-8")))
        except (SystemExit, ValueError, IndexError):  # it leaves the program on a line that is no merge
            raise DataError("vocabulary: damaged merges of subword-nmt; each line is two pieces") from None

    def __getstate__(self) -> dict[str, Any]:
        # What splits text is rebuilt from its bytes after unpickling (data loader workers).
        return {k: v for k, v in self.__dict__.items() if k not in ("_spm", "_bpe", "ids")}

    def split(self, text: str) -> list[str]:
        """Text to tokens, unknown ones included as they are."""
        if self.merges:
            return list(self._bpe.segment_tokens(text.split()))
        if self.unit == "bpe":
            return list(self._spm.encode(text, out_type=str))
        if self.unit == "char":
            return [SPACE if c == " " else c for c in " ".join(text.split())]
        return text.split()

    def encode(self, text: str) -> list[int]:
        """Text to ids; tokens outside the list become ``<unk>``."""
        return [self.ids.get(token, self.unk_id) for token in self.split(text)]

    def decode(self, ids: list[int]) -> str:
        """Ids to text; ``<blank>`` and ``<sos/eos>`` are left out."""
        special = (self.blank_id, self.sos_eos_id)
        tokens = [self.tokens[i] for i in ids if i not in special]
        if self.merges:
            return JOINT.sub("", " ".join(tokens))
        if self.unit == "bpe":
            return "".join(tokens).replace("\u2581", " ").strip()
        if self.unit == "char":
            return "".join(" " if t == SPACE else t for t in tokens)
        return " ".join(tokens)


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
        dataset: the validation set.
        metric, value: what the weights were chosen by, and its value there.
        beam_size: of the searches that found the candidates.
    """

    ctc_weight: float
    length_penalty: float
    dataset: str | None = None
    metric: str | None = None
    value: float | None = None
    beam_size: int | None = None

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
