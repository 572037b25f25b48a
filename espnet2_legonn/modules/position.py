"""Sinusoidal positions (Vaswani et al. 2017), computed once per length and device."""

from __future__ import annotations

import math

import torch
from torch import nn


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
        position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
        rate = torch.exp(torch.arange(0, self.size, 2, dtype=torch.float32) * (-math.log(10000.0) / self.size))
        table = torch.zeros(length, self.size)
        table[:, 0::2] = torch.sin(position * rate)
        table[:, 1::2] = torch.cos(position * rate)
        return table

    def forward(self, length: int, start: int = 0) -> torch.Tensor:
        """(length, D) rows ``start`` ... ``start + length - 1``."""
        end = start + length
        if end > self.table.shape[0]:
            self.table = self._make(2 * end).to(self.table)
        return self.table[start:end]
