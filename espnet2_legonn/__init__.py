"""LegoNN for ESPnet2: encoder-decoder models built of modules that fit together (Dalmia et al., TASLP 2022).

>>> from espnet2_legonn import LegoNN                        # doctest: +SKIP
>>> plugged = LegoNN.from_pretrained("asr")[:-1] + LegoNN.from_pretrained("mt")[-1:]   # doctest: +SKIP
>>> plugged("speech.wav")                                    # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from espnet2_legonn import _renamed
from espnet2_legonn.version import __version__

if TYPE_CHECKING:
    from espnet2_legonn.data.vocabulary import Vocabulary
    from espnet2_legonn.errors import CheckpointError, ConfigError, DataError, InterfaceMismatch, LegoNNError
    from espnet2_legonn.inference.espnet import Speech2Text, Text2Text
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.model.interface import Interface, Marginals

_renamed.install()

# Imported at first use: data preparation and scoring need no torch.
_HOMES = {
    "LegoNN": "inference.legonn",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "InterfaceMismatch": "errors",
    "LegoNNError": "errors",
    "Interface": "model.interface",
    "Marginals": "model.interface",
    "Vocabulary": "data.vocabulary",
    "Speech2Text": "inference.espnet",
    "Text2Text": "inference.espnet",
}
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Interface",
    "InterfaceMismatch",
    "LegoNN",
    "LegoNNError",
    "Marginals",
    "Speech2Text",
    "Text2Text",
    "Vocabulary",
    "__version__",
    "register",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"espnet2_legonn.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'espnet2_legonn' has no attribute {name!r}")


def register() -> None:
    """Add the LegoNN classes to the class choices of ESPnet's own tasks (imports ESPnet)."""
    from espnet2_legonn.training.register import register as fill

    fill()
