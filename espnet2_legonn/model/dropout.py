"""Dropout that costs little on a CPU: four draws of 16 bits from each random number of 64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_STEPS = 1 << 16


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each value with probability ``p``, and scale the others so that the mean stays; same shape.

    On a CPU ``p`` is rounded to 16 bits, and the scale is that of the rounded rate. Elsewhere it is torch's.
    """
    cut = round(p * _STEPS)
    if x.device.type != "cpu" or cut >= _STEPS:
        return F.dropout(x, p)
    if not cut:
        return x
    draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = (draws[: x.numel()] >= cut - _STEPS // 2).view(x.shape)
    return x * kept.to(x.dtype).mul_(_STEPS / (_STEPS - cut))


class Dropout(nn.Dropout):
    """``dropout`` in training, nothing in evaluation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(...) -> (...)."""
        return dropout(x, self.p) if self.training and self.p else x
