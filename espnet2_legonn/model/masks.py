"""Length masks without host synchronisation."""

from __future__ import annotations

import torch


def valid_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(B, size) bool, True where a position lies within its item."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


def zero_padding(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(B, T, ...) with everything beyond ``lengths`` set to zero (also NaN, so no multiplication)."""
    mask = valid_mask(lengths, x.shape[1])
    return x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0.0)


def key_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 1, 1, size) bool for scaled_dot_product_attention, True where a key may be read.

    An item of length 0 may read its first (zeroed) key, so that softmax stays finite.
    """
    return valid_mask(lengths.clamp(min=1), size)[:, None, None, :]
