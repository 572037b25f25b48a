"""What a module is taught with: labels, and what its loss adds to equation 9."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F

from espnet2_legonn.model.masks import valid_mask


class Labels(NamedTuple):
    """Target ids (B, L), padded with -1, and their lengths (B,)."""

    ids: torch.Tensor
    lengths: torch.Tensor


@dataclass
class ModuleLoss:
    """What one module's loss adds to equation 9.

    Args:
        total: sum over the batch in nats (0-dim, with gradient), weight included.
        tokens: number of target tokens it is a sum over (0-dim); the loss is ``total / tokens``.
        stats: figures to log, each a (sum, count) pair of 0-dim tensors; ``infeasible`` is of utterances.
    """

    total: torch.Tensor
    tokens: torch.Tensor
    stats: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


def infeasible(labels: torch.Tensor, label_lengths: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """(B,) True where labels + repeats need more slots than there are: CTC has no path.

    Args:
        labels: (B, L) ids, padding after ``label_lengths`` may be anything.
    """
    pairs = max(labels.shape[1] - 1, 0)
    repeats = (labels[:, 1:] == labels[:, :pairs]) & valid_mask(label_lengths - 1, pairs)
    return label_lengths + repeats.sum(1) > slots


def ctc_loss(
    log_probs: torch.Tensor, slots: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of each item (equation 6) and which items have no alignment.

    ``log_probs`` must come straight from log_softmax: PyTorch's CTC gradient assumes it.

    Returns:
        (B,) losses in nats, 0 where infeasible; (B,) bool infeasible, for the caller to count and report.
    """
    impossible = infeasible(labels, label_lengths, slots)
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        labels.clamp(min=0),
        slots,
        label_lengths,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )
    return losses.masked_fill(impossible, 0.0), impossible


def consistency_loss(a: torch.Tensor, b: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """What two passes of a batch differ by: half of KL(b || a) + KL(a || b), the first of each held fixed (CR-CTC).

    Yao et al. 2024, arXiv:2410.05101.

    Args:
        a, b: log-probabilities (B, K, V); slots: (B,), those beyond them do not count.

    Returns:
        (B,) sums over slots, in nats.
    """
    pairs = ((a, b), (b, a))
    apart = sum(F.kl_div(x, held.detach(), reduction="none", log_target=True).sum(-1) for x, held in pairs)
    assert isinstance(apart, torch.Tensor)
    return 0.5 * apart.masked_fill(~valid_mask(slots, a.shape[1]), 0.0).sum(1)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> ModuleLoss:
    """Loss of next tokens (equation 7) from logits (B, L, V) and targets (B, L), -1 where there is none."""
    flat = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    wanted = targets.flatten()
    total = F.cross_entropy(flat, wanted, ignore_index=-1, label_smoothing=label_smoothing, reduction="sum")
    with torch.no_grad():
        tokens = (wanted >= 0).sum()
        # The best of each row costs less than its place.
        said = flat.gather(1, wanted.clamp(min=0).unsqueeze(1)).squeeze(1)
        right = ((said >= flat.amax(-1)) & (wanted >= 0)).sum()
    return ModuleLoss(total, tokens, {"ce": (total.detach(), tokens), "acc": (right, tokens)})
