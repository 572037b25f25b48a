"""Sinusoidal positions (Vaswani et al. 2017), and the one place where content and positions are added."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn


def angles(positions: torch.Tensor, size: int) -> torch.Tensor:
    """(length,) positions, whole or not, to (length, D / 2) angles in float64, one for each rate."""
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device)
    return positions.double().unsqueeze(1) * torch.exp(exponents * (-math.log(10000.0) / size))


@functools.lru_cache(maxsize=64)
def _table(length: int, size: int, step: float, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(length, D) sinusoids of 0, step, 2 step, ...; shared by all modules, so never change it in place."""
    with torch.inference_mode(False):  # what is first needed in decoding must serve training, too
        places = torch.arange(length, dtype=torch.float64, device="cpu") * step
        turned = angles(places, size)
        return torch.stack([turned.sin(), turned.cos()], -1).flatten(1).to(device, dtype)  # in turn


class SinusoidalPositions(nn.Module):
    """Content plus sinusoidal positions, for any length.

    The table is a constant, looked up by length, device and precision, and no buffer. DDP would send the buffers of
    rank 0 to all ranks, but the longest item, and with it the table, differs from rank to rank.

    Args:
        size: model width D (even).
        step: distance between neighbours; 1 is the paper's.
    """

    def __init__(self, size: int, step: float = 1.0) -> None:
        super().__init__()
        self.size, self.step = size, step

    def forward(self, x: torch.Tensor, dtype: torch.dtype, start: int = 0) -> torch.Tensor:
        """(..., T, D) content, the first at position ``start`` -> the sum, same shape.

        It is made in float32 (float64 for float64): around a position of 0.7 bfloat16 counts in steps of 0.004, and
        content may be that small.

        Args:
            x: content.
            dtype: that of the weights which read the sum. Autocast makes ``x`` narrower than they are, and the sum
                rounded to it would lose what was won.
            start: position of the first row, for decoding step by step.
        """
        wide, end = torch.promote_types(x.dtype, torch.float32), start + x.shape[-2]
        rows = max(512, 1 << (end - 1).bit_length())  # powers of two: few tables, seldom a new one
        return (x.to(wide) + _table(rows, self.size, self.step, x.device, wide)[start:end]).to(dtype)
