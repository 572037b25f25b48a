"""The CTC interface of an encoder module (equations 5, 6, 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.seen import Seen


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


class CTCInterface(nn.Module):
    """Projection to the vocabulary; its log-softmax is both CTC's input and the marginals.

    It also keeps what training showed: slots, tokens and the longest item, which become the contract's
    slots per token.

    Args:
        size: width D of the encoder.
        vocab_size: V, blank included.
    """

    def __init__(self, size: int, vocab_size: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(size, vocab_size)
        nn.init.xavier_uniform_(self.ctc_lo.weight)
        nn.init.zeros_(self.ctc_lo.bias)
        self.seen = Seen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, D) -> (B, K, V) log-probabilities, in float32 (or float64) whatever the autocast."""
        logits = self.ctc_lo(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
