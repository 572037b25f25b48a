"""Sinusoidal positions (Vaswani et al. 2017), computed once per length and device."""

from __future__ import annotations

import math

import torch
from torch import nn


def sinusoids(positions: torch.Tensor, size: int) -> torch.Tensor:
    """(length,) positions, whole or not, to (length, D): sine and cosine in turn, D / 2 rates."""
    rate = torch.exp(torch.arange(0, size, 2, dtype=torch.float32) * (-math.log(10000.0) / size))
    angles = positions.float().unsqueeze(1) * rate
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class SinusoidalPositions(nn.Module):
    """Table of sinusoidal positions; grows on demand.

    Args:
        size: model width D (even).
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("table", self._make(512), persistent=False)

    def _make(self, length: int) -> torch.Tensor:
        return sinusoids(torch.arange(length), self.size)

    def forward(self, length: int, start: int = 0) -> torch.Tensor:
        """(length, D) rows ``start`` ... ``start + length - 1``."""
        end = start + length
        if end > self.table.shape[0]:
            self.table = self._make(2 * end).to(self.table)
        return self.table[start:end]
