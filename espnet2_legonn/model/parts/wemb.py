"""WEmb, the weighted embedding of distributions (equations 17, 18): gradients pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.ingestor import Embed, Ingestor


@dataclass
class WEmbConfig:
    """Weighted-embedding ingestor (equations 17, 18)."""

    vocab: str
    type: str = "wemb"
    receptive_field: int = 1
    num_blocks: int = 3
    collapse: bool = False
    attention_dropout: float | None = None


class WeightedEmbedding(Embed):
    """WEmb: the expected embedding of each slot, as a convolution over slots (equation 17). Differentiable.

    Args:
        vocab_size: V, blank included: it has a row as any other token.
        size: width D.
        receptive_field: odd number of slots seen at once; 1 is ``P @ W`` with W (V, D), which may be tied.
    """

    def __init__(self, vocab_size: int, size: int, receptive_field: int = 1) -> None:
        super().__init__()
        shape = (vocab_size, size) if receptive_field == 1 else (receptive_field, vocab_size, size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.weight, std=(size * receptive_field) ** -0.5)
        self.scale = size**0.5

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""
        probs = log_probs.exp()
        if self.weight.dim() == 2:  # padding is zeroed in D, which is narrower
            return zero_padding(probs.to(self.weight.dtype) @ self.weight, lengths)
        probs = zero_padding(probs, lengths)
        kernel = self.weight.permute(2, 1, 0)  # (D, V, RF)
        return F.conv1d(probs.to(kernel.dtype).transpose(1, 2), kernel, padding="same").transpose(1, 2)

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """(V, D), or (RF, V, D): the vocabulary is the last axis but one."""
        return {"weight": self.weight.detach().index_select(self.weight.dim() - 2, rows)}


@INPUTS.add("wemb")
class WEmbInput(Ingestor):
    """Ingestor with a weighted embedding."""

    Config = WEmbConfig

    @classmethod
    def embedding(cls, config: WEmbConfig, size: int, vocab: Vocabulary, where: str) -> WeightedEmbedding:
        """The table."""
        return WeightedEmbedding(len(vocab), size, config.receptive_field)

    @classmethod
    def least_values(cls, config: WEmbConfig, size: int, vocab_size: int) -> int:
        """The table."""
        return vocab_size * size * config.receptive_field

    def tie(self, table: torch.Tensor) -> None:
        """Equation 17 with a receptive field of 1 is the decoder's embedding, weighted."""
        assert isinstance(self.embed, WeightedEmbedding)
        if self.embed.weight.shape == table.shape:
            self.embed.weight = table  # type: ignore[assignment]
