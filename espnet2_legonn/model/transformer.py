"""Pre-norm transformer stacks: encoder blocks (eq. 10-11) and blocks with cross-attention (eq. 13-16)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from espnet2_legonn.model.attention import MultiHeadAttention, joined
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.masks import key_mask
from espnet2_legonn.model.registry import Registry
from espnet2_legonn.model.stepping import CrossMemory, Projection, TransformerStepper


@dataclass
class BodyConfig:
    """A stack of transformer blocks (paper IV-A, IV-B, Tables XII and XIII).

    Args:
        num_blocks: number of blocks.
        size: width D.
        heads: attention heads.
        linear_units: inner width of the feed-forward layer.
        dropout: on block inputs and outputs ("hidden").
        attention_dropout: on attention weights; None: as ``dropout``.
        activation_dropout: inside the feed-forward layer; None: as ``dropout``.
        type: ``transformer`` in encoder modules, ``transformer_decoder`` in decoder modules.
    """

    num_blocks: int
    size: int
    heads: int
    linear_units: int
    dropout: float = 0.1
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    type: str = "transformer"

    @property
    def attention_rate(self) -> float:
        """Dropout on attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def activation_rate(self) -> float:
        """Dropout inside the feed-forward layer."""
        return self.dropout if self.activation_dropout is None else self.activation_dropout

    @property
    def places(self) -> bool:
        """Whether the body brings positions, so that the input part adds none."""
        return False

    @property
    def shape(self) -> str:
        """For the card of a pack."""
        return f"{self.type} {self.num_blocks} x {self.size}"

    @property
    def least_values(self) -> int:
        """Fewest numbers its blocks can hold."""
        return self.num_blocks * self.size * (4 * self.size + 2 * self.linear_units)

    def blocks(self, number: int, attention_dropout: float | None = None) -> BodyConfig:
        """Another stack of such blocks, in the same module."""
        rate = self.attention_dropout if attention_dropout is None else attention_dropout
        return dataclasses.replace(self, num_blocks=number, attention_dropout=rate)


BODIES: Registry[Any] = Registry("body")
# What stands between the blocks of a stack: number of a block (from 1), its output (B, T, D) and the norm behind the
# last block, to what the next block reads.
Between = Callable[[int, torch.Tensor, nn.LayerNorm], torch.Tensor]


class FeedForward(nn.Module):
    """FFN(x) with ReLU (parameter names w_1, w_2 as in ESPnet)."""

    def __init__(self, sizes: BodyConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(sizes.size, sizes.linear_units)
        self.w_2 = nn.Linear(sizes.linear_units, sizes.size)
        self.dropout = Dropout(sizes.activation_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., D) -> (..., D)."""
        return self.w_2(self.dropout(torch.relu(self.w_1(x))))


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward, LayerNorm before each (equations 10, 11)."""

    def __init__(self, sizes: BodyConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(sizes.size), nn.LayerNorm(sizes.size)
        self.self_attn = MultiHeadAttention(sizes.size, sizes.heads, sizes.attention_rate)
        self.feed_forward = FeedForward(sizes)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, mask))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


@BODIES.add("transformer")
class TransformerEncoder(nn.Module):
    """Encoder blocks and a final LayerNorm; (B, T, D) -> (B, T, D). Any body of an encoder module is called so.

    Attributes:
        opens: whether ``forward`` takes what stands between its blocks, too; other bodies need not say so.
    """

    Config: ClassVar[type] = BodyConfig
    decodes: ClassVar[bool] = False
    opens: ClassVar[bool] = True

    def __init__(self, sizes: BodyConfig) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(EncoderBlock(sizes) for _ in range(sizes.num_blocks))
        self.after_norm = nn.LayerNorm(sizes.size)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, between: Between | None = None) -> torch.Tensor:
        """(B, T, D), (B,) -> (B, T, D)."""
        mask = key_mask(lengths, x.shape[1])
        for number, block in enumerate(self.encoders, 1):
            x = block(x, mask)
            if between is not None:
                x = between(number, x, self.after_norm)
        return self.after_norm(x)


class CrossBlock(nn.Module):
    """Self-attention, cross-attention to a source, feed-forward (equations 13-16; also the decoder's block)."""

    def __init__(self, sizes: BodyConfig) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(sizes.size) for _ in range(3))
        self.self_attn = MultiHeadAttention(sizes.size, sizes.heads, sizes.attention_rate)
        self.src_attn = MultiHeadAttention(sizes.size, sizes.heads, sizes.attention_rate)
        self.feed_forward = FeedForward(sizes)
        self.dropout = Dropout(sizes.dropout)

    def forward(
        self,
        y: torch.Tensor,
        self_mask: torch.Tensor | None,
        source: torch.Tensor,
        source_mask: torch.Tensor | None,
        causal: bool = False,
    ) -> torch.Tensor:
        """(B, Q, D) queries over themselves and (B, S, D) source -> (B, Q, D)."""
        z = self.norm1(y)
        y = y + self.dropout(self.self_attn(z, z, self_mask, causal))
        y = y + self.dropout(self.src_attn(self.norm2(y), source, source_mask))
        return y + self.dropout(self.feed_forward(self.norm3(y)))


@BODIES.add("transformer_decoder")
class CrossTransformer(nn.Module):
    """Cross blocks and a final LayerNorm; reads (B, S, D) from (B, Q, D). Decoder modules call its methods."""

    Config: ClassVar[type] = BodyConfig
    decodes: ClassVar[bool] = True

    def __init__(self, sizes: BodyConfig) -> None:
        super().__init__()
        self.decoders = nn.ModuleList(CrossBlock(sizes) for _ in range(sizes.num_blocks))
        self.after_norm = nn.LayerNorm(sizes.size)

    def forward(
        self,
        y: torch.Tensor,
        source: torch.Tensor,
        source_lengths: torch.Tensor,
        lengths: torch.Tensor | None = None,
        between: Between | None = None,
    ) -> torch.Tensor:
        """With ``lengths`` the queries see each other (OLC); without, only what lies before (decoder).

        The decoder needs no padding mask: padding is on the right, behind the causal mask.
        """
        source_mask = key_mask(source_lengths, source.shape[1])
        self_mask = None if lengths is None else key_mask(lengths, y.shape[1])
        for number, block in enumerate(self.decoders, 1):
            y = block(y, self_mask, source, source_mask, causal=lengths is None)
            if between is not None:
                y = between(number, y, self.after_norm)
        return self.after_norm(y)

    def cross_blocks(self) -> list[CrossBlock]:
        """Its blocks."""
        return cast("list[CrossBlock]", list(self.decoders))

    def sources(self, memory: torch.Tensor) -> list[CrossMemory]:
        """What each block reads of (B, S, D), made once."""
        return [CrossMemory(*block.src_attn.keys_values(memory)) for block in self.cross_blocks()]

    def projections(self) -> list[Projection]:
        """Of each block to query, key and value of self-attention, joint."""
        own = [block.self_attn for block in self.cross_blocks()]
        return [joined(a.linear_q, a.linear_k, a.linear_v) for a in own]

    def start(
        self,
        sources: list[CrossMemory],
        mask: torch.Tensor,
        projections: list[Projection],
        past: torch.Tensor | None = None,
    ) -> TransformerStepper:
        """See TransformerStepper."""
        return TransformerStepper(self.cross_blocks(), self.after_norm, sources, mask, projections, past)

    def stepper(self, memory: torch.Tensor, lengths: torch.Tensor) -> TransformerStepper:
        """The beginning of hypotheses over (B, S, D), (B,)."""
        return self.start(self.sources(memory), key_mask(lengths, memory.shape[1]), self.projections())
