"""WEmb, the weighted embedding of distributions (equations 17, 18): gradients pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.best import best_places
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.ingestor import Embed, Ingestor, IngestorConfig


@dataclass(kw_only=True)
class WEmbConfig(IngestorConfig):
    """Weighted-embedding ingestor (equations 17, 18).

    Args:
        top_k: only the k likeliest tokens of a slot are read, with the probabilities that they have; None: all are.
        others: see IngestorConfig.
    """

    type: str = "wemb"
    top_k: int | None = None


class WeightedEmbedding(Embed):
    """WEmb: the expected embedding of each slot, as a convolution over slots (equation 17). Differentiable.

    Args:
        vocab_size: V, blank included: it has a row as any other token.
        size: width D.
        receptive_field: odd number of slots seen at once; 1 is ``P @ W`` with W (V, D), which may be tied.
        top_k: tokens read of each slot, for a receptive field of 1; None: all.
    """

    def __init__(self, vocab_size: int, size: int, receptive_field: int = 1, top_k: int | None = None) -> None:
        super().__init__()
        self.top_k = top_k
        shape = (vocab_size, size) if receptive_field == 1 else (receptive_field, vocab_size, size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.weight, std=(size * receptive_field) ** -0.5)
        self.scale = size**0.5

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""
        if self.top_k is not None:
            return zero_padding(self._of_best(log_probs, self.top_k), lengths)
        probs = log_probs.exp()
        if self.weight.dim() == 2:  # padding is zeroed in D, which is narrower
            return zero_padding(probs.to(self.weight.dtype) @ self.weight, lengths)
        probs = zero_padding(probs, lengths)
        kernel = self.weight.permute(2, 1, 0)  # (D, V, RF)
        return F.conv1d(probs.to(kernel.dtype).transpose(1, 2), kernel, padding="same").transpose(1, 2)

    def _of_best(self, log_probs: torch.Tensor, number: int) -> torch.Tensor:
        rows = log_probs.flatten(0, 1)
        ids = best_places(rows.detach(), number)
        weights = rows.gather(1, ids).exp().to(self.weight.dtype)
        found = F.embedding_bag(ids, self.weight, mode="sum", per_sample_weights=weights)
        return found.unflatten(0, log_probs.shape[:2])

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """(V, D), or (RF, V, D): the vocabulary is the last axis but one."""
        return {"weight": self.weight.detach().index_select(self.weight.dim() - 2, rows)}


@INPUTS.add("wemb")
class WEmbInput(Ingestor):
    """Ingestor with a weighted embedding."""

    Config = WEmbConfig

    @classmethod
    def embedding(cls, config: WEmbConfig, size: int, vocab: Vocabulary, where: str) -> WeightedEmbedding:
        """The table.

        Raises:
            ConfigError: more tokens are to be read of a slot than there are.
        """
        if config.top_k is not None and config.top_k > len(vocab):
            raise ConfigError(
                f"{where}.top_k: {config.top_k} tokens of a slot, vocabulary {config.vocab!r} has {len(vocab)}"
            )
        return WeightedEmbedding(len(vocab), size, config.receptive_field, config.top_k)

    @classmethod
    def faults(cls, config: WEmbConfig, where: str) -> list[str]:
        """The receptive field, and what goes with a number of tokens."""
        faults = super().faults(config, where)
        if config.top_k is not None and config.top_k < 1:
            faults.append(f"{where}.top_k: {config.top_k} is not at least 1")
        if config.top_k is not None and config.receptive_field != 1:
            faults.append(f"{where}.top_k: goes with a receptive_field of 1, not {config.receptive_field}")
        return faults

    @classmethod
    def least_values(cls, config: WEmbConfig, size: int, vocab_size: int) -> int:
        """The table."""
        return vocab_size * size * config.receptive_field

    def tie(self, table: torch.Tensor) -> None:
        """Equation 17 with a receptive field of 1 is the decoder's embedding, weighted."""
        assert isinstance(self.embed, WeightedEmbedding)
        if self.embed.weight.shape == table.shape:
            self.embed.weight = table  # type: ignore[assignment]
