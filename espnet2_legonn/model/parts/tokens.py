"""Token input: embedded source text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model.position import SinusoidalPositions


class TokenInput(nn.Module):
    """Embedding scaled by sqrt(D) plus sinusoidal positions; the end of the source is a token of its own.

    Args:
        vocab_size: V of the source; its last id is ``<sos/eos>``.
        size: width D.
        dropout: on the sum.
    """

    def __init__(self, vocab_size: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, size)
        nn.init.normal_(self.embed.weight, std=size**-0.5)
        self.positions = SinusoidalPositions(size)
        self.dropout = nn.Dropout(dropout)
        self.eos, self.scale = vocab_size - 1, size**0.5

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """Steps T made of sources of these lengths: one more each."""
        return lengths + 1

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T-1) ids (padding: any value), (B,) -> (B, T, D), (B,)."""
        ids = F.pad(ids.clamp(min=0), (0, 1)).scatter(1, lengths.unsqueeze(1), self.eos)
        x = self.embed(ids) * self.scale
        return self.dropout(self.positions(x, self.embed.weight.dtype)), self.steps(lengths)
