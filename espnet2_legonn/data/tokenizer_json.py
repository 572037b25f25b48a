"""Tokenizers of language models (Hugging Face's ``tokenizer.json``), which may come from anybody: checked, then loaded.

What splits text is kept; what adds special tokens, cuts or pads is left out. Our token lists are one token a line, so a
token with characters that act on terminals or end lines has another name in them, ``<U+000A>`` for a line end.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from espnet2_legonn.data.spm import check_charsmap
from espnet2_legonn.errors import DataError
from espnet2_legonn.files.schema import nearest

# A file that is no sentencepiece model and no merges begins so.
BEGINNING = b"{"
_KEPT = ("version", "added_tokens", "normalizer", "pre_tokenizer", "decoder", "model")
_MODELS = ("BPE", "Unigram", "WordPiece", "WordLevel")
_STEPS = {
    "normalizer": (
        "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "Strip", "StripAccents", "Replace", "Prepend",
        "Precompiled", "BertNormalizer", "ByteLevel",
    ),
    "pre_tokenizer": (
        "Sequence", "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit",
        "BertPreTokenizer",
    ),
    "decoder": (
        "Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip", "WordPiece", "BPEDecoder",
    ),
}  # fmt: skip
# A pattern of somebody else's may take for ever: those of published models are shorter and repeat no repetition.
MAX_PATTERN, MAX_GROWTH = 1000, 256
_REPEATED_GROUP, _CLASS = re.compile(r"\)[*+{]|[*+}][*+{]"), re.compile(r"\\[pP]\{\w+\}|\\.|\[(?:\\.|[^\]\\])*\]")
_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def canonical(data: bytes) -> bytes:
    """What splits text, and nothing else, always written in the same way.

    Raises:
        DataError: it is no such tokenizer, or could do harm.
    """
    try:
        given = json.loads(data)
        kept = {key: given.get(key) for key in _KEPT}
        model = dict(kept["model"])
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        raise DataError("vocabulary: damaged tokenizer.json; get it again") from None
    if faults := [*_model_faults(model), *_step_faults(kept)]:
        raise DataError(f"vocabulary: tokenizer.json: {fault}" for fault in faults)
    kept["model"] = {**model, "dropout": None} if "dropout" in model else model
    rest = {"truncation": None, "padding": None, "post_processor": None}
    return json.dumps({**kept, **rest}, ensure_ascii=False, sort_keys=True).encode("utf-8")


def _model_faults(model: dict[str, Any]) -> list[str]:
    kind = model.get("type", "BPE")
    return [] if kind in _MODELS else [f"a model of type {kind!r} is not one of {', '.join(_MODELS)}"]


def _step_faults(kept: dict[str, Any]) -> list[str]:
    faults, growth = [], 1
    for part, known in _STEPS.items():
        for step in _steps(kept[part]):
            kind = step.get("type")
            if kind not in known:
                faults.append(f"{part} {kind!r} is not one of {', '.join(known)}{nearest(kind, known)}")
            if fault := _pattern_fault(step.get("pattern")):
                faults.append(f"{part}: {fault}")
            growth *= max(1, len(str(step.get("content", "") if part == "normalizer" else "")))
            growth += len(str(step.get("prepend", "")))
            if kind == "Precompiled":
                faults += _charsmap_faults(step)
    return [*faults, *["a normaliser that makes texts explode"] * (growth > MAX_GROWTH)]


def _pattern_fault(pattern: Any) -> str | None:
    expression = str(pattern.get("Regex", "")) if isinstance(pattern, dict) else ""
    if len(expression) <= MAX_PATTERN and not _REPEATED_GROUP.search(_CLASS.sub("x", expression)):
        return None
    return f"a pattern that may take for ever, {expression[:80]!r}"


def _charsmap_faults(step: dict[str, Any]) -> list[str]:
    try:
        check_charsmap(base64.b64decode(step["precompiled_charsmap"], validate=True))
    except (ValueError, TypeError, LookupError, binascii.Error, struct.error) as error:
        return [f"normalizer: {error or 'no table'}"]
    return []


def _steps(step: Any) -> Iterator[dict[str, Any]]:
    """A step, and those inside it; a mapping of another form has no type that is known."""
    if step is None:
        return
    if not isinstance(step, dict):
        step = {"type": str(step)[:80]}
    yield step
    for key in ("normalizers", "pretokenizers", "decoders"):
        for inner in step.get(key) or []:
            yield from _steps(inner)


def shown_name(token: str) -> str:
    """A token's name in our lists: what ends lines or is not seen is spelled ``<U+000A>``."""
    if not token:
        return "<U+>"
    return "".join(f"<U+{ord(c):04X}>" if unicodedata.category(c) in _UNSHOWN else c for c in token)


class TokenizerJson:
    """A tokenizer of Hugging Face's.

    Args:
        data: ``tokenizer.json``.

    Raises:
        DataError: it is damaged, could do harm, or the package tokenizers is not installed.

    Attributes:
        tokens: names by id; None for an id without a token.
        unknown: name of the token for what has none.
    """

    def __init__(self, data: bytes) -> None:
        try:
            import tokenizers
        except ImportError:
            raise DataError(
                "vocabulary: a tokenizer.json needs tokenizers: pip install 'espnet2_legonn[pretrained]'"
            ) from None
        text = canonical(data).decode("utf-8")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
            table: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
            self._tokenizer.encode("a", add_special_tokens=False)
        except BaseException as error:  # what is written in Rust panics with one of its own
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"vocabulary: damaged tokenizer.json ({reason}); get it again") from None
        self.tokens: list[str | None] = [None] * (max(table.values(), default=-1) + 1)
        for token, place in table.items():
            self.tokens[place] = shown_name(token)
        self._theirs = {shown_name(token): token for token in table if shown_name(token) != token}
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.special = {shown_name(token.content) for token in added if token.special}
        self.unknown = self._unknown(json.loads(text)["model"])

    @functools.cached_property
    def names(self) -> set[str]:
        """All tokens."""
        return {token for token in self.tokens if token is not None}

    def _unknown(self, model: dict[str, Any]) -> str | None:
        if isinstance(model.get("unk_id"), int):
            return self.tokens[model["unk_id"]]
        token = model.get("unk_token")
        return None if token is None else shown_name(str(token))

    def split(self, text: str) -> list[str]:
        """Text to tokens, without any at its ends."""
        return [shown_name(token) for token in self._tokenizer.encode(text, add_special_tokens=False).tokens]

    def join(self, tokens: Sequence[str]) -> str:
        """Tokens to text, special ones left out. A text is one line."""
        theirs = [self._theirs.get(token, token) for token in tokens if token not in self.special]
        decoder = self._tokenizer.decoder
        text = " ".join(theirs) if decoder is None else decoder.decode(theirs)
        return " ".join(line for line in text.splitlines()).strip(" ")
