"""Vocabularies: an ordered list of tokens, and how text becomes tokens."""

from __future__ import annotations

import collections
import functools
import hashlib
import io
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet2_legonn.data import spm
from espnet2_legonn.data.pieces import PieceModel, read_model
from espnet2_legonn.data.tokenizer_json import BEGINNING, TokenizerJson
from espnet2_legonn.errors import DataError, harmless
from espnet2_legonn.files import lines

BLANK, UNK, SOS_EOS, SPACE = "<blank>", "<unk>", "<sos/eos>", "<space>"
RESERVED = (BLANK, SOS_EOS)
UNITS = ("bpe", "phn", "char", "word")
# A quarter of a million tokens are 3 MB, their sentencepiece model 5 MB.
MAX_VOCAB_BYTES = 32 << 20
# Merges of subword-nmt begin so; pieces inside a word end in @@.
MERGES, JOINT = b"#version:", re.compile(r"@@(?: |$)")
# Tokens that no model splits text into, and lists hold all the same: <en>, fairseq's padding.
_APART = re.compile(r"<[^<>]*>|madeupword\d+")
# The part of a model's pieces that its list may lack (lists made from what occurred in a corpus).
MAX_LACKING = 0.05
_BYTES = {f"<0x{i:02X}>": i for i in range(256)}


def read_tokens(path: Path) -> list[str]:
    """A token list: one token a line, nothing else.

    Raises:
        DataError: the file is missing, cannot be read, or has lines that are no token.
    """
    tokens = list(lines.read(path, windows=False))
    if "" in tokens:
        raise DataError(f"{path}:{tokens.index('') + 1}: an empty line is no token; remove it")
    return tokens


@dataclass(frozen=True)
class Vocabulary:
    """An ordered list of tokens and how text becomes tokens.

    ESPnet's convention: id 0 is ``<blank>``, 1 is ``<unk>``, the last is ``<sos/eos>``.

    Args:
        tokens: all tokens in order of their ids.
        unit: ``bpe`` (needs a sentencepiece model), ``phn``, ``char`` or ``word``.
        language: ISO code, for instance ``en``.
        normalization: name of the text treatment before tokenisation, for instance ``lc.rm``.
        bpemodel: for unit ``bpe``, how words are split (bytes): a serialized sentencepiece model, the merges of
            subword-nmt (a text that begins with ``#version:``), whose pieces end in ``@@`` inside words, or the
            ``tokenizer.json`` of a language model.

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
        faults += self._misfit()
        if faults:
            raise DataError(faults)

    def _misfit(self) -> list[str]:
        """Token list and sentencepiece model of two vocabularies: much of any text would become ``<unk>``."""
        if self.tokenizer is not None:
            return self._of_another_tokenizer(self.tokenizer)
        if self._pieces is None:
            return []
        pieces, tokens = set(self._pieces.pieces), set(self.tokens)
        foreign = [t for t in self.tokens if t not in pieces and not _APART.fullmatch(t)]
        lacking = [p for p in self._pieces.pieces if p not in tokens]
        if not foreign and len(lacking) <= MAX_LACKING * len(pieces):
            return []
        return [
            f"vocabulary: the sentencepiece model belongs to another token list: {len(foreign)} tokens are no pieces "
            f"of it ({' '.join(foreign[:5])}), {len(lacking)} of its {len(pieces)} pieces are no tokens "
            f"({' '.join(lacking[:5])}); take tokens.txt and bpe.model from one folder"
        ]

    def _of_another_tokenizer(self, tokenizer: TokenizerJson) -> list[str]:
        foreign = [t for t in self.tokens if t not in tokenizer.names and t not in (BLANK, UNK, SOS_EOS)]
        lacking = tokenizer.names.difference(self.tokens)
        # Some of its tokens have our names: CTC's blank, what ends a text, and what stands for the unknown.
        if not foreign and len(lacking - {tokenizer.unknown}) <= 2:
            return []
        return [
            f"vocabulary: the tokenizer belongs to another token list: {len(foreign)} tokens are none of its, "
            f"{len(lacking)} of its {len(tokenizer.names)} are not listed; `legonn vocab DIR --from-hf` writes both"
        ]

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
            DataError: a file is missing, the list is not a vocabulary, or the model is another's; the file is named.
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
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from None
        listed = tuple(read_tokens(path))
        try:
            return cls(listed, unit, language, normalization, model)
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
    def _pieces(self) -> PieceModel | None:
        if self.unit != "bpe" or not self.bpemodel or self.merges or self.tokenizer is not None:
            return None
        return read_model(self.bpemodel)

    @functools.cached_property
    def tokenizer(self) -> TokenizerJson | None:
        """A language model's own, if it is one."""
        own = self.unit == "bpe" and self.bpemodel and self.bpemodel.startswith(BEGINNING)
        return TokenizerJson(self.bpemodel) if own and self.bpemodel else None

    @property
    def normalizer(self) -> str | None:
        """What sentencepiece does to text before it splits it: ``identity``, ``nmt_nfkc``, ...; None if it is not used.

        Anything but ``identity`` gives text back that is not what went in: it is part of the contract.
        """
        return None if self._pieces is None else self._pieces.normalizer

    @functools.cached_property
    def _spm(self) -> Any:
        if not self.bpemodel:
            raise DataError("vocabulary: unit bpe needs a sentencepiece model to split text; give bpemodel")
        return spm.load(self.bpemodel)

    @functools.cached_property
    def _symbols(self) -> re.Pattern[str] | None:
        """What a text in characters is made of, where the list has symbols of several characters, as ``<en>``."""
        found = [t for t in self.tokens if len(t) > 1 and t not in (BLANK, UNK, SOS_EOS, SPACE)]
        longest = sorted(found, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longest), "."]), re.S) if found else None

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
        return {k: v for k, v in self.__dict__.items() if k not in ("_spm", "_bpe", "_pieces", "tokenizer", "ids")}

    def split(self, text: str) -> list[str]:
        """Text to tokens, unknown ones included as they are."""
        if self.merges:
            return list(self._bpe.segment_tokens(text.split()))
        if self.tokenizer is not None:
            return self.tokenizer.split(text)
        if self.unit == "bpe":
            return list(self._spm.encode(text, out_type=str))
        if self.unit == "char":
            line = " ".join(text.split())
            return [SPACE if c == " " else c for c in (self._symbols.findall(line) if self._symbols else line)]
        return text.split()

    def encode(self, text: str) -> list[int]:
        """Text to ids; tokens outside the list become ``<unk>``, as do ``<blank>`` and ``<sos/eos>`` (``reserved``)."""
        return [self.unk_id if token in RESERVED else self.ids.get(token, self.unk_id) for token in self.split(text)]

    def reserved(self, text: str) -> list[str]:
        """Tokens of a text that nobody can say: as a target, ``<blank>`` would be CTC's own."""
        if not any(token in text for token in RESERVED):
            return []
        return [token for token in self.split(text) if token in RESERVED]

    def decode(self, ids: list[int]) -> str:
        """Ids to text; ``<blank>`` and ``<sos/eos>`` are left out, pieces of byte fallback are joined to characters."""
        special = (self.blank_id, self.sos_eos_id)
        tokens = [self.tokens[i] for i in ids if i not in special]
        if self.merges:
            return JOINT.sub("", " ".join(tokens))
        if self.tokenizer is not None:
            return self.tokenizer.join(tokens)
        if self.unit == "bpe":
            return self._join(tokens)
        if self.unit == "char":
            return "".join(" " if t == SPACE else t for t in tokens)
        return " ".join(tokens)

    def _join(self, tokens: list[str]) -> str:
        """Pieces to text. A line end that was spelled in bytes becomes a blank: a text is one line."""
        if not self._spells_bytes:
            return "".join(tokens).replace("\u2581", " ").strip(" ")
        text = ""
        for spelled, run in itertools.groupby(tokens, _BYTES.__contains__):
            if spelled:
                text += bytes(_BYTES[token] for token in run).decode("utf-8", errors="replace")
            else:
                text += "".join(run).replace("\u2581", " ")
        return text.replace("\r", " ").replace("\n", " ").strip(" ")

    @functools.cached_property
    def _spells_bytes(self) -> bool:
        return _BYTES.keys() <= self.ids.keys()
