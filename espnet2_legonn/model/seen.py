"""What a port saw in training: slots, tokens and the longest item. They travel with the weights."""

from __future__ import annotations

import torch
from torch import nn


class Seen(nn.Module):
    """Running totals as buffers; ``slots_per_token`` is half of the contract (the vocabulary is the other).

    ``update`` knows the batch of its own process; ``training/model.py::Shards`` adds those of the others.
    """

    totals: torch.Tensor
    longest: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("totals", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("longest", torch.zeros((), dtype=torch.long))

    def update(self, slots: torch.Tensor, tokens: torch.Tensor) -> None:
        """Add a batch: (B,) slots and (B,) tokens."""
        with torch.no_grad():
            self.totals += torch.stack([slots.sum(), tokens.sum()]).to(self.totals)
            self.longest.copy_(torch.maximum(self.longest, slots.max().to(self.longest)))

    def reset(self) -> None:
        """Forget everything, for instance before fine-tuning on other data."""
        self.totals.zero_()
        self.longest.zero_()

    @property
    def slots_per_token(self) -> float | None:
        slots, tokens = self.totals.tolist()
        return slots / tokens if tokens else None
