"""A part of one's own: images of lines of text as the input of an encoder module, known as ``type: glyphs``.

It is known to every command once LEGONN_PLUGINS=glyphs names this file's module and PYTHONPATH its folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts import INPUTS, Column, InputPart
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig


@dataclass
class GlyphsConfig:
    """Images of lines of text, dark on light or light on dark.

    Args:
        height: rows of pixels.
        channels: maps of the first convolution.
    """

    type: str = "glyphs"
    height: int = 8
    channels: int = 64


@INPUTS.add("glyphs")
class GlyphsInput(InputPart):
    """Two convolutions over the columns of an image, then every fourth column is a step.

    Args:
        height: rows of pixels.
        channels: maps of the first convolution.
        size: width D.
        dropout: on the sum of steps and positions.
    """

    Config, kind, data = GlyphsConfig, "image", Column("img.scp", "image", "npy")

    def __init__(self, height: int, channels: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.height = height
        self.first = nn.Conv1d(height, channels, 5, padding=2)
        self.second = nn.Conv1d(channels, size, 5, padding=2)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.positions = SinusoidalPositions(size)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def faults(cls, config: GlyphsConfig, where: str) -> list[str]:
        """Numbers that make no sense."""
        values = {"height": config.height, "channels": config.channels}
        return [f"{where}.{key}: {value} is not at least 1" for key, value in values.items() if value < 1]

    @classmethod
    def make(cls, config: GlyphsConfig, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights."""
        return cls(config.height, config.channels, body.size, body.dropout)

    @classmethod
    def least_values(cls, config: GlyphsConfig, size: int, vocab_size: int) -> int:
        """The convolutions."""
        return 5 * config.channels * (config.height + size)

    @classmethod
    def card(cls, config: GlyphsConfig) -> dict[str, Any]:
        """What a pack's card says of it."""
        return {"part": f"{config.type}: lines of text, {config.height} rows of pixels"}

    @classmethod
    def total_steps(cls, config: GlyphsConfig, total: float, items: int) -> float:
        """A step is four columns."""
        return total / 4

    @classmethod
    def prepare(cls, value: Any, vocab: Vocabulary | None, where: str) -> np.ndarray:
        """An image of the data loader, (columns, rows)."""
        return checked(value, where)

    def measure(self, value: str) -> float:
        """Columns."""
        return float(len(load(value)))

    def fetch(self, value: str, channel: str | None = None) -> np.ndarray:
        """The image of a file."""
        return self.read(value, value)

    def read(self, item: Any, place: str) -> np.ndarray:
        """A file, or an array (columns, rows)."""
        image = load(item) if isinstance(item, (str, Path)) else checked(item, place)
        if image.shape[1] != self.height:
            raise DataError(f"{place}: {image.shape[1]} rows of pixels, this model reads {self.height}; scale it first")
        return image

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """ceil(columns / 4)."""
        return (lengths + 3) // 4

    def forward(self, images: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, columns, rows), (B,) -> (B, T, D), (B,)."""
        x = zero_padding(images, lengths)
        x = zero_padding(torch.relu(self.first(x.transpose(1, 2))).transpose(1, 2), lengths)
        x = zero_padding(torch.relu(self.second(x.transpose(1, 2))).transpose(1, 2), lengths)
        x = F.max_pool1d(x.transpose(1, 2), 4, ceil_mode=True).transpose(1, 2)
        return self.dropout(self.positions(x, self.second.weight.dtype)), self.steps(lengths)


def load(path: str | Path) -> np.ndarray:
    """An image (columns, rows) from ``.npy`` or, where Pillow is installed, from a picture.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if Path(path).suffix == ".npy":
            return checked(np.load(path, allow_pickle=False), str(path))
        from PIL import Image

        with Image.open(path) as picture:
            return checked(1.0 - np.asarray(picture.convert("L"), np.float32).T / 255.0, str(path))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); give .npy or .png") from None


def checked(value: Any, where: str) -> np.ndarray:
    """An image as float32 (columns, rows).

    Raises:
        DataError: another shape, nothing in it, or numbers that are not finite.
    """
    image = np.asarray(value, np.float32)
    if image.ndim != 2 or not image.size:
        raise DataError(f"{where}: shape {image.shape}; an image is (columns, rows) of one line of text")
    if not np.isfinite(image).all():
        raise DataError(f"{where}: NaN or infinite pixels")
    return image
