"""What an interface would say if it were sure of the reference: one-hot slots, read in training by a part of the items.

A decoder that has only read an encoder's distributions learns to write likely text near them more than to copy: it
repairs an interface that is bad, and spoils one that is good. Some sentences whose reading is right teach it to copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from espnet2_legonn.model.losses import Labels
from espnet2_legonn.model.masks import valid_mask

SURE = 1000.0  # nats: beside a token that leads by so much no other has any probability, but they keep their order


def one_hot(log_probs: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(B, K, V) with all probability on tokens (B, K). The others keep their ranks, which a BeamConv reads."""
    return (log_probs + SURE * F.one_hot(tokens, log_probs.shape[-1])).log_softmax(-1)


def reference_slots(
    labels: Labels, slots: torch.Tensor, size: int, blank: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots that say the labels as CTC does: label i stands at slot floor(i * slots / labels), blank everywhere else.

    Args:
        labels: (B, L); slots: (B,) of each item; size: K, at least the most of them.

    Returns:
        (B, K) tokens, and (B,) items whose slots say the labels: no label is lost, and equal neighbours stay apart.
    """
    ids, lengths = labels.ids.clamp(min=0), labels.lengths
    valid = valid_mask(lengths, ids.shape[1])
    order = torch.arange(ids.shape[1], device=ids.device)
    places = order * slots.unsqueeze(1) // lengths.clamp(min=1).unsqueeze(1)
    tokens = ids.new_full((len(ids), size + 1), blank)  # one slot more, for what is padding
    tokens.scatter_(1, places.masked_fill(~valid, size).clamp(max=size), ids)
    steps = places[:, 1:] - places[:, :-1]
    merged = (steps == 0) | ((steps == 1) & (ids[:, 1:] == ids[:, :-1]))
    said = (lengths > 0) & ~(merged & valid[:, 1:]).any(1)
    return tokens[:, :-1], said


def with_references(log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels, share: float) -> torch.Tensor:
    """Distributions (B, K, V) in which a random ``share`` of the items says its labels (B, L) and nothing else.

    An item that has too few slots for its labels stays as it is. No gradient passes through those that are replaced.
    """
    tokens, said = reference_slots(labels, slots, log_probs.shape[1])
    chosen = said & (torch.rand(len(slots), device=slots.device) < share)
    if not bool(chosen.any()):
        return log_probs
    read = log_probs.clone()
    read[chosen] = one_hot(log_probs[chosen].detach(), tokens[chosen])
    return read
