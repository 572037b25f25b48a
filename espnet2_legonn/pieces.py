"""What a sentencepiece model says of itself: its pieces and its normaliser, read without running it.

Only a few fields of the protocol buffer (``sentencepiece_model.proto``) are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3


@dataclass(frozen=True)
class PieceModel:
    """``pieces`` that text is split into (not ``<unk>``, ``<s>``, ``</s>``), and the name of the normaliser."""

    pieces: tuple[str, ...]
    normalizer: str


def read_model(data: bytes) -> PieceModel | None:
    """None for bytes that are no such model; sentencepiece will say what is wrong with them."""
    pieces, normalizer = [], ""
    try:
        for field, value in _fields(data):
            if field == 1 and isinstance(value, bytes):
                piece = dict(_fields(value))
                if piece.get(3, _NORMAL) not in (_UNKNOWN, _CONTROL):
                    pieces.append(_text(piece.get(1, b"")))
            elif field == 3 and isinstance(value, bytes):
                normalizer = _text(dict(_fields(value)).get(1, b""))
    except (ValueError, IndexError):
        return None
    return PieceModel(tuple(pieces), normalizer) if pieces else None


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a number where a text is expected")
    return value.decode("utf-8")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of the fields of a message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _varint(data, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place + length > len(data):
            raise ValueError("cut short")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("number of more than 64 bits")
