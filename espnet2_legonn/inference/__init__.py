"""Answers: a chain that reads files and texts, ESPnet's inference classes, decoding of data directories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet2_legonn.inference.espnet import Speech2Text, Text2Text

__all__ = ["Speech2Text", "Text2Text"]
# This room was one file, `espnet.py` now; what could be imported from it still can.
_WERE_HERE = ("Answer", "ChainInference", "Hypothesis", "Result", "beyond_training")


def __getattr__(name: str) -> Any:
    if name in (*__all__, *_WERE_HERE):  # loaded when asked for
        from espnet2_legonn.inference import espnet
        from espnet2_legonn.search import answers

        return getattr(espnet, name, None) or getattr(answers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
