"""Frames of features to 40 ms steps (paper IV-A): normalisation, SpecAugment, two convolution blocks."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.masks import valid_mask, zero_padding
from espnet2_legonn.model.parts.base import InputPart
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig

NORMALIZE = ("utterance", "global", "none")


@dataclass
class MaskPolicy:
    """SpecAugment without time warping (Park et al. 2019); the default is the Switchboard-strong policy.

    Args:
        freq_width, num_freq: widest frequency mask (filters) and number of masks.
        time_width, num_time: widest time mask (frames) and number of masks.
        time_share: a time mask is at most this share of the utterance.
    """

    freq_width: int = 27
    num_freq: int = 2
    time_width: int = 70
    num_time: int = 2
    time_share: float = 0.2


@dataclass
class FramesConfig:
    """What becomes of features.

    Args:
        normalize: ``utterance``, ``global`` (statistics of the training data) or ``none``.
        channels: maps of the two convolution blocks.
        specaug: masks in training, or None.
    """

    type: str = ""
    normalize: str = "utterance"
    channels: list[int] = field(default_factory=lambda: [64, 128])
    specaug: MaskPolicy | None = None

    @property
    def filters(self) -> int:
        """Features of a frame."""
        raise NotImplementedError


class Normalization(nn.Module):
    """Mean and variance of each filter: of the utterance itself, or of the training data.

    Args:
        kind: ``utterance``, ``global`` or ``none``.
        n_mels: number of filters.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, kind: str, n_mels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "global":
            self.register_buffer("mean", torch.zeros(n_mels))
            self.register_buffer("std", torch.ones(n_mels))

    def load_stats(self, path: str | Path) -> None:
        """Read ESPnet's ``feats_stats.npz`` (count, sum, sum_square) into the buffers.

        Raises:
            DataError: the file is missing, not of this number of filters, or not wanted.
        """
        if self.kind != "global":
            raise DataError(f"{path}: statistics are for normalize: global, this module has {self.kind}")
        try:
            stats = np.load(path)
            mean = stats["sum"] / stats["count"]
            variance = stats["sum_square"] / stats["count"] - mean**2
            if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
                raise ValueError("not all of them are numbers")
        except (OSError, LookupError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{path}: not statistics of features ({reason}); stage 10 makes them") from None
        if mean.shape != tuple(self.mean.shape):
            raise DataError(f"{path}: statistics of {mean.size} filters, this module has {len(self.mean)}")
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.sqrt(np.maximum(variance, 1e-10))))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, frames, n_mels) -> the same, padding zeroed."""
        if self.kind == "global":
            x = (x - self.mean) / self.std
        elif self.kind == "utterance":
            count = lengths[:, None, None]
            x = zero_padding(x, lengths)
            mean = x.sum(1, keepdim=True) / count
            x = zero_padding(x - mean, lengths)
            x = x / ((x**2).sum(1, keepdim=True) / count + 1e-5).sqrt()
        return zero_padding(x, lengths)


class SpecAugment(nn.Module):
    """Zero random bands of each utterance in training; the features are normalised, so zero is the mean."""

    def __init__(self, policy: MaskPolicy) -> None:
        super().__init__()
        self.policy = policy

    @staticmethod
    def _bands(limit: torch.Tensor, widest: torch.Tensor, number: int, size: int) -> torch.Tensor:
        """(B, size) True in ``number`` bands within ``limit``, each narrower than ``widest`` + 1."""
        width = torch.floor(torch.rand(len(limit), number, device=limit.device) * (widest[:, None] + 1))
        start = torch.floor(torch.rand_like(width) * (limit[:, None] - width + 1).clamp(min=1))
        place = torch.arange(size, device=limit.device)
        return ((place >= start[..., None]) & (place < (start + width)[..., None])).any(1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, frames, n_mels) -> the same."""
        if not self.training:
            return x
        policy, frames, filters = self.policy, x.shape[1], x.shape[2]
        all_filters = torch.full_like(lengths, filters)
        freq = self._bands(all_filters, all_filters.clamp(max=policy.freq_width), policy.num_freq, filters)
        widest = (lengths * policy.time_share).long().clamp(max=policy.time_width)
        time = self._bands(lengths, widest, policy.num_time, frames)
        return x.masked_fill(time[:, :, None] | freq[:, None, :], 0.0)


class ConvSubsampling(nn.Module):
    """Two blocks of two 3x3 convolutions, ReLU and 2x2 max-pooling: a quarter of the frames.

    The output of each convolution is masked, so an item does not depend on its padding. Weights begin as those of He et
    al. for ReLU, the last layer's too, although no ReLU follows it: about half of what a ReLU lets through does not
    vary in time, and what varies should be as large as an embedding (docs/initialisation.md).

    Args:
        n_mels: filters of the features.
        size: width D of the output.
        channels: maps of the two blocks, (64, 128) in the paper.
    """

    def __init__(self, n_mels: int, size: int, channels: tuple[int, int] = (64, 128)) -> None:
        super().__init__()
        widths = [1, channels[0], channels[0], channels[1], channels[1]]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.out = nn.Linear(channels[1] * ((n_mels + 3) // 4), size)
        for layer in (*self.convs, self.out):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions' weights."""
        return next(self.convs.parameters()).dtype

    def steps(self, frames: torch.Tensor) -> torch.Tensor:
        """ceil(ceil(frames / 2) / 2)."""
        return (frames + 3) // 4

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, frames, n_mels), (B,) -> (B, T, D), (B,)."""
        x = x.unsqueeze(1).to(self.dtype)
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = x * valid_mask(lengths, x.shape[2])[:, None, :, None].to(x.dtype)
            if i % 2:
                x, lengths = _pool(x), (lengths + 1) // 2
            x = torch.relu(x)  # behind the maximum: the same, of a quarter of the values
        return self.out(x.transpose(1, 2).flatten(2)), lengths


def _pool(x: torch.Tensor) -> torch.Tensor:
    """The larger of 0 and the maximum of 2x2, (B, C, T, F) -> (B, C, ceil(T / 2), ceil(F / 2)), up to a ReLU.

    Two maxima cost a third of ``max_pool2d``, which keeps the places of what it chose.
    """
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(x[..., ::2], x[..., 1::2])


class FramesInput(InputPart):
    """Frames of features (B, frames, filters) to model width; ``Config`` is a FramesConfig.

    Args:
        config: its description.
        size: width D.
        dropout: on the sum of steps and positions.
        places: whether the body brings positions, so that none are added here.
    """

    def __init__(self, config: Any, size: int, dropout: float = 0.0, places: bool = False) -> None:
        super().__init__()
        filters = config.filters
        self.normalization = Normalization(config.normalize, filters)
        self.augment = None if config.specaug is None else SpecAugment(config.specaug)
        self.conv = ConvSubsampling(filters, size, (config.channels[0], config.channels[1]))
        self.positions = None if places else SinusoidalPositions(size)
        self.dropout = Dropout(dropout)

    @classmethod
    def faults(cls, config: FramesConfig, where: str) -> list[str]:
        """Kinds of normalisation and numbers of maps."""
        faults = []
        if config.normalize not in NORMALIZE:
            faults.append(f"{where}.normalize: {config.normalize!r} is not utterance, global or none")
        if len(config.channels) != 2:
            faults.append(f"{where}.channels: two numbers, one for each block")
        elif min(config.channels) < 1:
            faults.append(f"{where}.channels: {min(config.channels)} is not at least 1")
        return faults

    @classmethod
    def make(cls, config: Any, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights."""
        return cls(config, body.size, body.dropout, body.places)

    @classmethod
    def least_values(cls, config: Any, size: int, vocab_size: int) -> int:
        """The convolutions and the projection."""
        a, b = config.channels
        return 9 * (a + a * a + a * b + b * b) + b * ((config.filters + 3) // 4) * size

    @property
    def statistics_part(self) -> str | None:
        """``normalization``, if it is global."""
        return "normalization" if self.normalization.kind == "global" else None

    def steps_of(self, x: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, frames, filters), (B,) -> (B, T, D), (B,)."""
        x = self.normalization(x, frames)
        if self.augment is not None:
            x = self.augment(x, frames)
        x, steps = self.conv(x, frames)
        if self.positions is not None:
            x = self.positions(x, self.conv.dtype)
        return self.dropout(x), steps
