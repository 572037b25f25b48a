"""Losses over large vocabularies, a few items at a time: distributions of a whole batch are never in memory at once.

What is computed between hidden states and losses is computed again for the gradients, piece by piece. That costs a
third more products of the vocabulary's, so it is done only where (items, slots, vocabulary) would take much memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from espnet2_legonn.model.losses import Labels, ModuleLoss
from espnet2_legonn.model.parts import InputPart, OutputPart
from espnet2_legonn.model.parts.ctc import CTCInterface
from espnet2_legonn.model.parts.ingestor import Embedded, MarginalsInput

# Values of (items, slots, vocabulary): so many at once are no matter (256 MB in float32, half a dozen times), and so
# many are computed at once where there are more.
LARGE, PIECE = 1 << 26, 1 << 24


class Crossing(NamedTuple):
    """What an interface costs, and what the next module reads instead of its distributions."""

    loss: ModuleLoss
    embedded: Embedded


def can_cross(output: OutputPart, reader: InputPart | None, states: torch.Tensor) -> bool:
    """Whether an interface and its reader are to be taken in pieces: a large vocabulary, and slots that stay apart."""
    if type(output) is not CTCInterface:
        return False
    if reader is not None and not (isinstance(reader, MarginalsInput) and reader.in_place):
        return False
    return _is_large(states, output.ctc_lo.out_features)


def cross(
    output: OutputPart, reader: InputPart | None, states: torch.Tensor, slots: torch.Tensor, labels: Labels
) -> Crossing:
    """The interface's loss, and its distributions as the reader embeds them, from states (B, K, D)."""
    assert isinstance(output, CTCInterface) and (reader is None or isinstance(reader, MarginalsInput))

    def read(states: torch.Tensor, slots: torch.Tensor, *labels: torch.Tensor) -> tuple[ModuleLoss, torch.Tensor]:
        log_probs = output(states)
        embedded = log_probs.new_zeros(len(states)) if reader is None else reader.embed(log_probs, slots)
        return output.loss(log_probs, slots, Labels(*labels)), embedded

    loss, embedded = _in_pieces(read, output.ctc_lo.out_features, states, slots, *labels)
    return Crossing(loss, Embedded(embedded))


def text_loss(
    read: Callable[[torch.Tensor, torch.Tensor], ModuleLoss], vocab: int, states: torch.Tensor, targets: torch.Tensor
) -> ModuleLoss:
    """A decoder's loss from states (B, L, D) and targets (B, L), in pieces where the vocabulary is large.

    Args:
        read: states and targets of some items to their loss; vocab: its size.
    """
    if not _is_large(states, vocab):
        return read(states, targets)
    return _in_pieces(lambda *some: (read(*some), some[0].new_zeros(len(some[0]))), vocab, states, targets)[0]


def _is_large(states: torch.Tensor, vocab: int) -> bool:
    return states.shape[0] * states.shape[1] * vocab > LARGE


def _in_pieces(
    read: Callable[..., tuple[ModuleLoss, torch.Tensor]], vocab: int, *tensors: torch.Tensor
) -> tuple[ModuleLoss, torch.Tensor]:
    """``read`` on some items of every tensor after another; nothing in between is kept for the gradients."""
    keys: list[str] = []

    def flat(*some: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss, rest = read(*some)
        keys[:] = loss.stats
        return (rest, loss.total, loss.tokens, *(value for pair in loss.stats.values() for value in pair))

    size = max(1, PIECE // max(1, tensors[0].shape[1] * vocab))
    found = []
    for some in zip(*(tensor.split(size) for tensor in tensors)):
        found.append(checkpoint(flat, *some, use_reentrant=False, preserve_rng_state=False))
    rest, *columns = zip(*found)
    total, tokens, *sums = (torch.stack(values).sum() for values in columns)
    return ModuleLoss(total, tokens, dict(zip(keys, zip(sums[::2], sums[1::2])))), torch.cat(rest)
