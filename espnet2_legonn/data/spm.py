"""Sentencepiece models that may come from anybody: rebuilt from what splitting text needs, checked, then loaded.

sentencepiece trusts the tables in a model: a crafted ``precompiled_charsmap`` makes it read outside its memory, which
ends the process. The fields below are those of its ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from espnet2_legonn.errors import DataError

if TYPE_CHECKING:
    import numpy as np

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _CHARSMAP = 1, 2
# Fields that are kept: of pieces text, score and type; of the trainer the type of the model, how blanks and bytes are
# written and the special pieces; of the normaliser its name, table and treatment of blanks.
_KEPT = {_PIECES: {1, 2, 3}, _TRAINER: {3, 24, 35, *range(40, 49)}, _NORMALIZER: {1, 2, 3, 4, 5}}
# Longest text that a charsmap may put for a match (of NFKC: 33 bytes), and longest piece: text must not explode.
MAX_REPLACEMENT, MAX_PIECE = 256, 4096
# The tables that sentencepiece ships have 240 kB.
MAX_CHARSMAP = 4 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# A unit of a double-array trie: https://github.com/s-yata/darts-clone, include/darts.h, DoubleArrayUnit.
_LEAF, _HAS_LEAF, _LABEL = 1 << 31, 1 << 8, 0xFF
_AT_ONCE = 4096


def load(model: bytes) -> Any:
    """A processor of a serialized model.

    Raises:
        DataError: damaged, or made to do harm.
    """
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=rebuilt(model))
        scores = processor.get_score(list(range(processor.get_piece_size())))
    except (RuntimeError, ValueError, IndexError, struct.error) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"vocabulary: damaged sentencepiece model ({reason}); get it again") from None
    if not all(map(math.isfinite, scores)):
        raise DataError("vocabulary: damaged sentencepiece model (scores that are no numbers); get it again")
    return processor


def rebuilt(model: bytes) -> bytes:
    """The model with its pieces, its type and its normaliser, which is checked, and nothing else.

    Raises:
        ValueError, IndexError, struct.error: it is no model.
    """
    out = bytearray()
    for field, kind, value in fields(model):
        if kind != _BYTES or field not in _KEPT:
            continue  # texts to test it with when it is loaded; how to undo the normalisation
        parts = list(fields(value))
        if field == _PIECES:
            _check_piece(parts)
        elif field == _NORMALIZER:
            _check_normalizer(parts)
        _put(out, field, _BYTES, b"".join(_packed(*part) for part in parts if part[0] in _KEPT[field]))
    if not out:
        raise ValueError("no pieces")
    return bytes(out)


def _check_piece(parts: list[tuple[int, int, Any]]) -> None:
    text = b"".join(value for field, kind, value in parts if (field, kind) == (_TEXT, _BYTES))
    if not 0 < len(text) <= MAX_PIECE or b"\0" in text:
        raise ValueError(f"a piece of {len(text)} bytes")  # its table of pieces throws what nobody catches


def _check_normalizer(parts: list[tuple[int, int, Any]]) -> None:
    # The last one counts where a field stands twice, but here none may do harm.
    for field, kind, value in parts:
        if (field, kind) == (_CHARSMAP, _BYTES) and value:
            check_charsmap(value)


def _packed(field: int, kind: int, value: Any) -> bytes:
    out = bytearray()
    _put(out, field, kind, value)
    return bytes(out)


def _put(out: bytearray, field: int, kind: int, value: Any) -> None:
    out += _varint(field << 3 | kind)
    if kind == _VARINT:
        out += _varint(value)
    else:
        out += (_varint(len(value)) if kind == _BYTES else b"") + value


def fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a protocol buffer; numbers, or bytes."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, kind, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        if size is None or at + size > len(message):
            raise ValueError("it ends too early, or is none")
        yield key >> 3, kind, message[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@functools.lru_cache(maxsize=4)
def check_charsmap(blob: bytes) -> None:
    """Whether every text makes sentencepiece read inside this table: a trie whose leaves point to replacements.

    The blob is the size of the trie in bytes, the trie (units of 32 bits) and texts that end in NUL.

    Raises:
        ValueError: some text would not.
        struct.error: it is no table.
    """
    import numpy as np

    if len(blob) > MAX_CHARSMAP:
        raise ValueError(f"a normaliser of {len(blob)} bytes")
    (size,) = struct.unpack_from("<I", blob)
    if size % 4 or not 0 < size <= len(blob) - 4:
        raise ValueError("a normaliser without a table")
    units, texts = np.frombuffer(blob, "<u4", size // 4, 4).astype(np.int64), blob[4 + size :]
    if not texts.endswith(b"\0"):
        raise ValueError("a normaliser whose texts have no end")
    leaves = _walk(units)
    if len(leaves) and leaves.max() >= len(texts):
        raise ValueError("a normaliser that points outside its texts")
    ends = np.flatnonzero(np.frombuffer(texts, np.uint8) == 0)
    if len(leaves) and (ends[np.searchsorted(ends, leaves)] - leaves).max() > MAX_REPLACEMENT:
        raise ValueError("a normaliser that makes texts explode")


def _walk(units: np.ndarray) -> np.ndarray:
    """Values of all leaves that some text reaches.

    From a state at ``p``, whatever byte comes next is looked for at ``p ^ byte``; so its whole block of 256 must exist.
    """
    import numpy as np

    known, leaves, labels = np.zeros(len(units), bool), [], np.arange(256)
    rest = [_targets(units, np.zeros(1, np.int64))]
    while rest:
        states = np.unique(rest.pop())
        if len(states) > _AT_ONCE:
            rest.append(states[_AT_ONCE:])
            states = states[:_AT_ONCE]
        if len(states) and (states[-1] | _LABEL) >= len(units):
            raise ValueError("a normaliser that points outside its table")
        states = states[~known[states]]
        known[states] = True
        nodes = (states[:, None] ^ labels).reshape(-1)
        # A unit belongs to this state if it carries the label; leaves carry the highest bit and match no byte.
        nodes = nodes[(units[nodes] & (_LEAF | _LABEL)) == np.tile(labels, len(states))]
        below = _targets(units, nodes)
        ends = below[(units[nodes] & _HAS_LEAF) > 0]
        if len(ends) and ends.max() >= len(units):
            raise ValueError("a normaliser that points outside its table")
        leaves.append(units[ends] & (_LEAF - 1))
        if len(below):
            rest.append(below)
    return np.unique(np.concatenate(leaves))


def _targets(units: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Where the children of these units stand."""
    found = units[nodes]
    return nodes ^ (found >> 10 << ((found & (1 << 9)) >> 6))
