"""Features that somebody made before, such as Kaldi's or ESPnet's ``dump/extracted``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.parts.base import INPUTS, Column, Unfit
from espnet2_legonn.model.parts.frames import FramesConfig, FramesInput


@dataclass
class FeaturesConfig(FramesConfig):
    """Features of a ``feats.scp``, a frame every 10 ms.

    Args:
        dim: features of a frame.
        others: see FramesConfig.
    """

    type: str = "features"
    dim: int = 80

    @property
    def filters(self) -> int:
        return self.dim


@INPUTS.add("features")
class FeaturesInput(FramesInput):
    """Features (frames, dim) to model width. A pack of such a module needs the same front end wherever it goes.

    Args:
        config: its description.
        size: width D.
        dropout: on the sum of steps and positions.
        places: see FramesInput.
    """

    Config, kind, data = FeaturesConfig, "features", Column("feats.scp", "feats", "kaldi_ark")

    def __init__(self, config: FeaturesConfig, size: int, dropout: float = 0.0, places: bool = False) -> None:
        super().__init__(config, size, dropout, places)
        self.dim = config.dim

    @classmethod
    def card(cls, config: FeaturesConfig) -> dict[str, Any]:
        """What a pack's card says of it."""
        return {"part": f"features: {config.dim} numbers every 10 ms, made by somebody else's front end"}

    @classmethod
    def total_steps(cls, config: FeaturesConfig, total: float, items: int) -> float:
        """A step is four frames."""
        return total / 4

    @classmethod
    def probe(cls, config: FeaturesConfig) -> Callable[[str], float | None]:
        """There is a matrix of this width."""
        return lambda value: float(len(_fitting(_load(value), config.dim, value)))

    def measure(self, value: str) -> float:
        """Frames."""
        return float(len(_checked(_load(value), value)))

    def fetch(self, value: str, channel: str | None = None) -> np.ndarray:
        """The matrix that a value of ``feats.scp`` stands for."""
        return self.read(value, value)

    def read(self, item: Any, place: str) -> np.ndarray:
        """A place in an archive (``file.ark:offset``), a ``.npy`` file, or an array (frames, dim)."""
        return _fitting(_load(str(item)) if isinstance(item, (str, Path)) else np.asarray(item), self.dim, place)

    @classmethod
    def prepare(cls, value: Any, vocab: Vocabulary | None, where: str) -> np.ndarray:
        """A matrix of finite numbers."""
        return _checked(np.asarray(value), where)

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """A quarter of the frames."""
        return self.conv.steps(lengths)

    def statistics(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Themselves."""
        return x, lengths

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, frames, dim), (B,) -> (B, T, D), (B,)."""
        return self.steps_of(features, lengths)


def _load(value: str) -> np.ndarray:
    if value.endswith(".npy"):
        try:
            return np.asarray(np.load(value, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"'{value}': cannot be read as an array ({error})") from None
    from espnet2_legonn.data.archives import read_matrix

    return read_matrix(value)


def _checked(features: np.ndarray, where: str) -> np.ndarray:
    if features.ndim != 2 or not features.size:
        raise DataError(f"{where}: shape {features.shape}; features are (frames, numbers of a frame)")
    if features.dtype.kind not in "fiu":
        raise DataError(f"{where}: {features.dtype} are no numbers")
    if not np.isfinite(features).all():
        raise DataError(f"{where}: NaN or infinite features")
    return features.astype(np.float32)


def _fitting(features: np.ndarray, dim: int, where: str) -> np.ndarray:
    features = _checked(features, where)
    if features.shape[1] != dim:
        raise Unfit(
            f"{where}: {features.shape[1]} numbers in a frame, this model reads {dim}; give features of its front end"
        )
    return features
