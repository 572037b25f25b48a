"""Ingestors: how a module reads distributions (paper III-D, equations 17-21)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model.masks import valid_mask, zero_padding
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import BlockSizes, TransformerEncoder


class WeightedEmbedding(nn.Module):
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

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""
        probs = zero_padding(log_probs.exp(), lengths)
        if self.weight.dim() == 2:
            return probs.to(self.weight.dtype) @ self.weight
        kernel = self.weight.permute(2, 1, 0)  # (D, V, RF)
        return F.conv1d(probs.to(kernel.dtype).transpose(1, 2), kernel, padding="same").transpose(1, 2)


class BeamConvolution(nn.Module):
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


def collapse(log_probs: torch.Tensor, lengths: torch.Tensor, blank: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge each run of slots with one argmax into the mean of its distributions, then drop blank runs.

    At least one slot stays. Gradients flow through the means; the borders of runs come from argmax alone.
    A reader trained so takes producers of any number of slots per token.

    Args:
        log_probs: (B, K, V); lengths: (B,).

    Returns:
        log-probabilities (B, K', V) and lengths (B,), K' <= K.
    """
    size = log_probs.shape[1]
    valid = valid_mask(lengths, size)
    best = log_probs.argmax(-1)
    starts = torch.ones_like(valid)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = (best != blank) & valid
    # An item of blanks alone keeps its first run.
    silent = ~kept.any(1, keepdim=True)
    kept |= silent & (starts.cumsum(1) == 1) & valid
    place = (starts & kept).cumsum(1) - 1
    new_lengths = (starts & kept).sum(1)
    longest = max(int(new_lengths.max()), 1)
    place = place.masked_fill(~kept, longest)  # dropped slots pile up in one more slot, cut off below
    counts = torch.zeros_like(log_probs[:, :1, 0]).expand(-1, longest + 1).scatter_add(1, place, kept.to(log_probs))
    sums = log_probs.new_zeros(len(log_probs), longest + 1, log_probs.shape[2])
    sums = sums.scatter_add(
        1, place.unsqueeze(-1).expand_as(log_probs), log_probs.exp().masked_fill(~kept[..., None], 0.0)
    )
    means = sums[:, :longest] / counts[:, :longest, None].clamp(min=1)
    return means.clamp(min=torch.finfo(means.dtype).tiny).log(), new_lengths


class Ingestor(nn.Module):
    """Marginals to hidden states: embed, add positions, aggregate over slots (equations 17-18 or 20-21).

    Args:
        embed: WeightedEmbedding or BeamConvolution.
        sizes: encoder blocks of the ingestor.
        collapse_slots: merge runs of slots first.
    """

    def __init__(
        self, embed: WeightedEmbedding | BeamConvolution, sizes: BlockSizes, collapse_slots: bool = False
    ) -> None:
        super().__init__()
        self.embed = embed
        self.collapse_slots = collapse_slots
        self.positions = SinusoidalPositions(sizes.size)
        self.scale = sizes.size**0.5 if isinstance(embed, WeightedEmbedding) else 1.0
        self.dropout = nn.Dropout(sizes.dropout)
        self.encoder = TransformerEncoder(sizes)
        self.seen = Seen()

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K, V), (B,) -> (B, K', D), (B,)."""
        if self.collapse_slots:
            log_probs, lengths = collapse(log_probs, lengths)
        h = self.embed(log_probs, lengths) * self.scale
        h = self.dropout(self.positions(h, self.encoder.after_norm.weight.dtype))
        return self.encoder(h, lengths), lengths
