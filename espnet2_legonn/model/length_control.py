"""Output length controller: T input steps to K slots, K/T any fraction (paper III-C.1, equations 12-16)."""

from __future__ import annotations

import torch
from torch import nn

from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import Between, BodyConfig, CrossTransformer


def slots_for(lengths: torch.Tensor, numerator: int, denominator: int, max_length: int) -> torch.Tensor:
    """K = min(max_length, ceil(T * ratio)) in integers, at least 1 where T > 0; (B,) -> (B,)."""
    slots = (lengths * numerator + denominator - 1) // denominator
    return slots.clamp(max=max_length)


class LengthController(nn.Module):
    """K learned + sinusoidal queries read T encoded steps through blocks with cross-attention.

    ::

        X (B, T, D) ----------------------------------.
        PE(1..K) -> [ self-attn -> cross-attn(X) -> FFN ] x n -> LayerNorm -> (B, K, D)

    Args:
        sizes: blocks of the controller.
        ratio: K/T as (numerator, denominator), relative to this module's own input steps.
        max_length: most slots ever made; the size of the learned table.
        aligned: slot k gets the sinusoid of the input step it lies at, k * T/K, instead of that of k (the paper).
            A query then finds its place by equal positions; otherwise attention must first learn to rescale time,
            which a sinusoid at another rate does not allow linearly.
    """

    def __init__(self, sizes: BodyConfig, ratio: tuple[int, int], max_length: int, aligned: bool = False) -> None:
        super().__init__()
        self.ratio, self.max_length = ratio, max_length
        self.positions = SinusoidalPositions(sizes.size, ratio[1] / ratio[0] if aligned else 1.0)
        self.learned = nn.Embedding(max_length, sizes.size)
        nn.init.normal_(self.learned.weight, std=sizes.size**-0.5)
        self.blocks = CrossTransformer(sizes)

    def slots(self, lengths: torch.Tensor) -> torch.Tensor:
        """Slots for inputs of these lengths, (B,) -> (B,)."""
        return slots_for(lengths, *self.ratio, self.max_length)

    def longest(self, x: torch.Tensor, lengths: torch.Tensor) -> int:
        """Slots that a batch (B, T, D) with lengths (B,) needs."""
        # K comes from the padded length, a number the host knows: no synchronisation.
        return int(slots_for(torch.tensor(x.shape[1]), *self.ratio, self.max_length))

    def forward(
        self,
        x: torch.Tensor,
        lengths: torch.Tensor,
        between: Between | None = None,
        shown: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, D), (B,) -> (B, K, D), (B,). shown: (B, K, D), added to the queries in training."""
        size = self.longest(x, lengths)
        queries = self.positions(self.learned.weight[:size], self.learned.weight.dtype)  # eq. 12
        slots = self.slots(lengths)
        asked = queries.expand(x.shape[0], -1, -1) if shown is None else queries + shown
        y = self.blocks(asked, x, lengths, slots, between)
        return zero_padding(y, slots), slots
