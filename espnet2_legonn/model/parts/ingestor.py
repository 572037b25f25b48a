"""Ingestors: how a module reads distributions (paper III-D, equations 17-21). WEmb and BeamConv embed them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.losses import Labels
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.parts.base import InputPart
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.references import with_references
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import BodyConfig, TransformerEncoder


@dataclass(kw_only=True)
class IngestorConfig:
    """What every ingestor of distributions has.

    Args:
        vocab: name of the vocabulary that is read.
        receptive_field: odd number of slots that are embedded together.
        num_blocks: encoder blocks behind the embedding.
        collapse: merge runs of slots with one best token first.
        attention_dropout: of these blocks; None: as the body's.
        references: share of the items that read their labels in training, one-hot, not what the module before writes.
    """

    vocab: str
    type: str = ""
    receptive_field: int = 1
    num_blocks: int = 3
    collapse: bool = False
    attention_dropout: float | None = None
    references: float = 0.0


class Embed(nn.Module):
    """Marginals to vectors; ``scale`` makes them as large as positions; ``moved`` takes its table to other tokens."""

    scale: float = 1.0

    @abstractmethod
    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""

    @abstractmethod
    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Its tables with the rows (V',) in this order, by name."""


def runs(best: torch.Tensor, lengths: torch.Tensor, blank: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs of slots with one best token, without those of blank; at least one run stays.

    Args:
        best: (B, K) the best token of each slot; lengths: (B,).

    Returns:
        (B, K) number of each slot's run, (B, K) whether its run is kept, and (B,) runs that are kept.
    """
    valid = valid_mask(lengths, best.shape[1])
    starts = torch.ones_like(valid)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = (best != blank) & valid
    # An item of blanks alone keeps its first run.
    silent = ~kept.any(1, keepdim=True)
    kept |= silent & (starts.cumsum(1) == 1) & valid
    return (starts & kept).cumsum(1) - 1, kept, (starts & kept).sum(1)


def collapse(log_probs: torch.Tensor, lengths: torch.Tensor, blank: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge each run of slots with one argmax into the mean of its distributions, then drop blank runs.

    At least one slot stays. Gradients flow through the means; the borders of runs come from argmax alone.
    A reader trained so takes producers of any number of slots per token.

    Args:
        log_probs: (B, K, V); lengths: (B,).

    Returns:
        log-probabilities (B, K', V) and lengths (B,), K' <= K.
    """
    place, kept, new_lengths = runs(log_probs.argmax(-1), lengths, blank)
    longest = max(int(new_lengths.max()), 1)
    place = place.masked_fill(~kept, longest)  # dropped slots pile up in one more slot, cut off below
    counts = torch.zeros_like(log_probs[:, :1, 0]).expand(-1, longest + 1).scatter_add(1, place, kept.to(log_probs))
    sums = log_probs.new_zeros(len(log_probs), longest + 1, log_probs.shape[2])
    sums = sums.scatter_add(
        1, place.unsqueeze(-1).expand_as(log_probs), log_probs.exp().masked_fill(~kept[..., None], 0.0)
    )
    means = sums[:, :longest] / counts[:, :longest, None].clamp(min=1)
    return means.clamp(min=torch.finfo(means.dtype).tiny).log(), new_lengths


class Embedded(NamedTuple):
    """Marginals that were embedded piece by piece, (B, K, D): what is read of a large vocabulary (model/bridge.py)."""

    values: torch.Tensor


class MarginalsInput(InputPart):
    """Marginals to vectors, whatever comes behind.

    Args:
        embed: marginals (B, K, V) and lengths to (B, K, D).
        collapse_slots: merge runs of slots first.
        references: share of the items that read their labels in training.

    Attributes:
        in_place: what is read of a slot stands at the place of that slot, and is what was written there.
    """

    kind = "marginals"
    seen: Seen

    def __init__(self, embed: Embed, collapse_slots: bool = False, references: float = 0.0) -> None:
        super().__init__()
        self.embed = embed
        self.collapse_slots, self.references = collapse_slots, references
        self.keeps_slots = not collapse_slots

    @property
    def in_place(self) -> bool:
        return self.keeps_slots and not self._reads_labels

    @property
    def _reads_labels(self) -> bool:
        return self.training and self.references > 0

    def taught(self, read: torch.Tensor, lengths: torch.Tensor, labels: Labels) -> torch.Tensor:
        """In training, the labels instead of the distributions (B, K, V) of some items (model/references.py)."""
        return with_references(read, lengths, labels, self.references) if self._reads_labels else read

    @property
    def contract(self) -> Seen | None:
        """What it saw in training."""
        return self.seen

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tables of ``embed``."""
        return {f"embed.{name}": table for name, table in self.embed.moved(rows).items()}

    @classmethod
    def card(cls, config: Any) -> dict[str, Any]:
        """Which ingestor it is, and how it reads."""
        return {"ingestor": config.type, "k": getattr(config, "k", None), "collapse": config.collapse}

    def embedded(self, read: torch.Tensor | Embedded, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Marginals (B, K, V), (B,) -> (B, K', D), (B,)."""
        if isinstance(read, Embedded):
            return read.values, lengths
        if self.collapse_slots:
            read, lengths = collapse(read, lengths)
        return self.embed(read, lengths), lengths


class Ingestor(MarginalsInput):
    """Marginals to hidden states: embed, add positions, aggregate over slots (equations 17-18 or 20-21).

    Args:
        embed: marginals (B, K, V) and lengths to (B, K, D), with ``scale`` towards positions: of WEmb or BeamConv.
        sizes: encoder blocks of the ingestor.
        collapse_slots: merge runs of slots first.
    """

    def __init__(self, embed: Embed, sizes: BodyConfig, collapse_slots: bool = False, references: float = 0.0) -> None:
        super().__init__(embed, collapse_slots, references)
        self.positions = SinusoidalPositions(sizes.size)
        self.scale = embed.scale
        self.dropout = Dropout(sizes.dropout)
        self.encoder = TransformerEncoder(sizes)
        self.seen = Seen()

    @classmethod
    def embedding(cls, config: Any, size: int, vocab: Vocabulary, where: str) -> Embed:
        """Fresh weights of ``embed`` for a width D.

        Raises:
            ConfigError: the description does not go with the vocabulary.
        """
        raise NotImplementedError

    @classmethod
    def make(cls, config: Any, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights: the embedding, then the blocks."""
        assert vocab is not None
        embed = cls.embedding(config, body.size, vocab, where)
        blocks = body.blocks(config.num_blocks, config.attention_dropout)
        return cls(embed, blocks, config.collapse, config.references)

    @classmethod
    def faults(cls, config: Any, where: str) -> list[str]:
        """The receptive field is centred on a slot."""
        width = config.receptive_field
        return [] if width > 0 and width % 2 else [f"{where}.receptive_field: {width} is not an odd number >= 1"]

    def forward(self, read: torch.Tensor | Embedded, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Marginals (B, K, V), (B,) -> (B, K', D), (B,)."""
        h, lengths = self.embedded(read, lengths)
        h = h * self.scale
        h = self.dropout(self.positions(h, self.encoder.after_norm.weight.dtype))
        return self.encoder(h, lengths), lengths
