"""What a sentencepiece model says of itself: its pieces and its normaliser, read without running it."""

from __future__ import annotations

from dataclasses import dataclass

from espnet2_legonn.data.spm import fields

_PIECES, _NORMALIZER = 1, 3  # of the model
_TEXT, _TYPE = 1, 3  # of a piece; of a normaliser the first is its name
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
        for field, _, value in fields(data):
            if field == _PIECES and isinstance(value, bytes):
                piece = {number: part for number, _, part in fields(value)}
                if piece.get(_TYPE, _NORMAL) not in (_UNKNOWN, _CONTROL):
                    pieces.append(_text(piece.get(_TEXT, b"")))
            elif field == _NORMALIZER and isinstance(value, bytes):
                normalizer = _text({number: part for number, _, part in fields(value)}.get(_TEXT, b""))
    except (ValueError, IndexError):
        return None
    return PieceModel(tuple(pieces), normalizer) if pieces else None


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a number where a text is expected")
    return value.decode("utf-8")
