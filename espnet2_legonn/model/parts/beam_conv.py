"""BeamConv, the convolution over the best tokens of each slot (equations 19-21): no gradient passes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.ingestor import Embed, Ingestor, IngestorConfig


@dataclass(kw_only=True)
class BeamConvConfig(IngestorConfig):
    """Beam-convolution ingestor (equations 19-21).

    Args:
        k: tokens kept of each slot.
        embed_size: width of their embedding.
        others: see IngestorConfig.
    """

    type: str = "beam_conv"
    k: int
    embed_size: int


class BeamConvolution(Embed):
    """BeamConv: ids of the k best tokens of each slot, embedded and convolved over slots (equations 19, 20).

    No probability enters and no gradient leaves. The weights depend on the rank, so k is fixed at training.
    At first rank r = 0, 1, ... weighs as 1 / (r + 1): what an interface thinks less likely is heard less, and the first
    token is heard as well among 200 as among 4. All together have the size of any embedding (docs/initialisation.md).

    Args:
        vocab_size: V.
        size: width D.
        receptive_field: odd number of slots seen at once.
        k: tokens kept of each slot, at most V.
        embed_size: width of their embedding.
    """

    def __init__(self, vocab_size: int, size: int, receptive_field: int, k: int, embed_size: int) -> None:
        super().__init__()
        self.k = k
        self.embed = nn.Embedding(vocab_size, embed_size)
        nn.init.normal_(self.embed.weight, std=embed_size**-0.5)
        self.conv = nn.Conv1d(k * embed_size, size, receptive_field, padding="same", bias=False)
        share = torch.arange(1, k + 1).reciprocal()
        share = (share / share.square().sum().sqrt()).repeat_interleave(embed_size)
        with torch.no_grad():
            nn.init.normal_(self.conv.weight, std=receptive_field**-0.5).mul_(share[:, None])

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""
        ids = log_probs.detach().topk(self.k, dim=-1).indices
        r = zero_padding(self.embed(ids).flatten(2), lengths)
        return self.conv(r.transpose(1, 2)).transpose(1, 2)

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The embedding."""
        return {"embed.weight": self.embed.weight.detach()[rows]}


@INPUTS.add("beam_conv")
class BeamConvInput(Ingestor):
    """Ingestor with a beam convolution."""

    Config, passes_gradient = BeamConvConfig, False

    @classmethod
    def embedding(cls, config: BeamConvConfig, size: int, vocab: Vocabulary, where: str) -> BeamConvolution:
        """The embedding and the convolution.

        Raises:
            ConfigError: k exceeds the vocabulary.
        """
        if config.k > len(vocab):
            raise ConfigError(
                f"{where}.k: BeamConv keeps {config.k} tokens of each slot, vocabulary {config.vocab!r} "
                f"has {len(vocab)}; choose k <= {len(vocab)}"
            )
        return BeamConvolution(len(vocab), size, config.receptive_field, config.k, config.embed_size)

    @classmethod
    def least_values(cls, config: BeamConvConfig, size: int, vocab_size: int) -> int:
        """The embedding and the convolution."""
        return config.embed_size * (vocab_size + config.k * config.receptive_field * size)
