"""Decoding a token at a time: what decoder blocks have read and written so far is kept, not made again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from espnet2_legonn.model.transformer import CrossBlock

Projection = Callable[[torch.Tensor], torch.Tensor]
_FIRST_ROOM = 32


class Stepper(ABC):
    """A decoder body that goes over a batch of hypotheses a token at a time. In evaluation alone.

    There are B utterances, each with N / B hypotheses in a row; all are of one length.
    """

    @abstractmethod
    def step(self, y: torch.Tensor) -> torch.Tensor:
        """The embedded last tokens (N, D) -> states (N, D) that the next tokens are read from."""

    @abstractmethod
    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        """Keep hypotheses ``rows`` (N',) in this order and, if given, utterances (B',)."""


class Past:
    """What the self-attention of all blocks has written: (positions, N, width), in memory that doubles when full.

    Positions come first, so that one more is one copy. A hypothesis is one run of memory at each position, so that
    putting hypotheses in another order moves long runs, too.

    Args:
        width: values of one position: keys and values of all blocks.
        rows: (positions, N, width) to begin with.
    """

    def __init__(self, width: int, rows: torch.Tensor | None = None) -> None:
        self.width, self.length = width, 0
        self._memory: torch.Tensor | None = None
        self._spare: torch.Tensor | None = None
        if rows is not None:
            self.length = len(rows)
            self._memory = self._room(rows, rows.shape[1])
            self._memory[: self.length] = rows

    @property
    def rows(self) -> torch.Tensor:
        """(positions, N, width) so far."""
        assert self._memory is not None
        return self._memory[: self.length]

    def _room(self, like: torch.Tensor, number: int) -> torch.Tensor:
        size = max(_FIRST_ROOM, 1 << self.length.bit_length())
        return like.new_empty(size, number, self.width)

    def grow(self, like: torch.Tensor) -> torch.Tensor:
        """(positions, N, width) with one more position, to be filled in; ``like``: (N, ...) of its type."""
        self.length += 1
        if self._memory is None or self.length > len(self._memory):
            old, self._memory, self._spare = self._memory, self._room(like, len(like)), None
            if old is not None:
                self._memory[: len(old)] = old
        return self._memory[: self.length]

    def select(self, rows: torch.Tensor) -> None:
        """Keep the rows (N',) in this order."""
        if self._memory is None:
            return
        new = self._spare
        if new is None or len(new) < self.length or new.shape[1] != len(rows):
            new = self._room(self._memory, len(rows))
        torch.index_select(self.rows, 1, rows, out=new[: self.length])
        self._memory, self._spare = new, self._memory


class CrossMemory(NamedTuple):
    """What cross-attention of one block reads: keys and values (B, heads, S, D/heads), once for each utterance."""

    keys: torch.Tensor
    values: torch.Tensor

    def select(self, utterances: torch.Tensor) -> CrossMemory:
        """Keep the utterances (B',) in this order."""
        return CrossMemory(self.keys.index_select(0, utterances), self.values.index_select(0, utterances))


class TransformerStepper(Stepper):
    """Cross blocks and their last LayerNorm (equations 13 to 16), a position at a time.

    Args:
        blocks, after_norm: of the body.
        sources: of each block.
        mask: (B, 1, 1, S) True where a key of the source may be read.
        projections: of each block to query, key and value of self-attention, (N, D) -> (N, 3 D).
        past: of hypotheses that are under way, (positions, N, blocks * 2 * D).
    """

    def __init__(
        self,
        blocks: Sequence[CrossBlock],
        after_norm: nn.Module,
        sources: list[CrossMemory],
        mask: torch.Tensor,
        projections: Sequence[Projection],
        past: torch.Tensor | None = None,
    ) -> None:
        self.blocks, self.after_norm, self.sources, self.mask = blocks, after_norm, sources, mask
        self.projections = projections
        self.past = Past(sum(2 * block.self_attn.size for block in blocks), past)

    def step(self, y: torch.Tensor) -> torch.Tensor:
        past, start = self.past.grow(y), 0
        for block, project, source in zip(self.blocks, self.projections, self.sources):
            y = y + self._own(block, project(block.norm1(y)), past[..., start : start + 2 * y.shape[1]])
            y = y + self._cross(block, block.norm2(y), source)
            y = y + block.feed_forward(block.norm3(y))
            start += 2 * y.shape[1]
        return self.after_norm(y)

    @staticmethod
    def _own(block: CrossBlock, qkv: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Self-attention of one more position: q, k, v (N, 3 D) over keys and values (positions, N, 2 D)."""
        number, heads = len(qkv), block.self_attn.heads
        past[-1] = qkv[:, qkv.shape[1] // 3 :]
        query = qkv[:, : qkv.shape[1] // 3].view(number, 1, heads, -1).transpose(1, 2)
        keys, values = past.unflatten(2, (2, heads, -1)).permute(2, 1, 3, 0, 4).unbind(0)
        found = F.scaled_dot_product_attention(query, keys, values)
        return block.self_attn.linear_out(found.reshape(number, -1))

    def _cross(self, block: CrossBlock, y: torch.Tensor, source: CrossMemory) -> torch.Tensor:
        """The hypotheses of an utterance are the queries over its keys, which are kept and read once."""
        attention, utterances = block.src_attn, len(source.keys)
        query = attention.linear_q(y).view(utterances, len(y) // utterances, attention.heads, -1).transpose(1, 2)
        found = F.scaled_dot_product_attention(query, source.keys, source.values, attn_mask=self.mask)
        return attention.linear_out(found.transpose(1, 2).reshape(y.shape))

    def select(self, rows: torch.Tensor, utterances: torch.Tensor | None = None) -> None:
        self.past.select(rows)
        if utterances is not None:
            self.sources = [source.select(utterances) for source in self.sources]
            self.mask = self.mask.index_select(0, utterances)
