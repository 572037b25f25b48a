"""Answers: a chain that reads files and texts, ESPnet's inference classes, decoding of data directories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet2_legonn.inference.espnet import Speech2Text, Text2Text

__all__ = ["Speech2Text", "Text2Text"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # loaded when asked for
        from espnet2_legonn.inference import espnet

        return getattr(espnet, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
