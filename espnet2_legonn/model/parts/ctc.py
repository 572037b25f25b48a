"""The CTC interface of an encoder module (equations 5, 6, 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.losses import Labels, ModuleLoss, ctc_loss
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.parts.base import OUTPUTS, OutputPart
from espnet2_legonn.model.seen import Seen


@dataclass
class OutputConfig:
    """Vocabulary of the output and the weight of its loss; label smoothing and tying for the decoder."""

    vocab: str
    type: str = "tokens"
    ctc_weight: float = 1.0
    label_smoothing: float = 0.0
    tie: bool = True


@OUTPUTS.add("tokens")
class CTCInterface(OutputPart):
    """Projection to the vocabulary; its log-softmax is both CTC's input and the marginals.

    It also keeps what training showed: slots, tokens and the longest item, which become the contract's
    slots per token.

    Args:
        size: width D of the encoder.
        vocab_size: V, blank included.
        ctc_weight: weight of its CTC loss; 0 trains it ungrounded (Table X).
    """

    Config, kind = OutputConfig, "marginals"

    def __init__(self, size: int, vocab_size: int, ctc_weight: float = 1.0) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(size, vocab_size)
        nn.init.xavier_uniform_(self.ctc_lo.weight)
        nn.init.zeros_(self.ctc_lo.bias)
        self.seen = Seen()
        self.ctc_weight = ctc_weight

    @classmethod
    def make(cls, config: OutputConfig, size: int, vocab: Vocabulary | None) -> Self:
        """Fresh weights."""
        assert vocab is not None
        return cls(size, len(vocab), config.ctc_weight)

    @classmethod
    def target(cls, config: OutputConfig) -> OutputConfig:
        """Itself."""
        return config

    @classmethod
    def teaches(cls, config: OutputConfig) -> bool:
        """Whether its CTC loss has a weight."""
        return config.ctc_weight > 0

    @property
    def contract(self) -> Seen:
        """Slots, tokens and the longest item."""
        return self.seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, D) -> (B, K, V) log-probabilities, in float32 (or float64) whatever the autocast."""
        logits = self.ctc_lo(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def log_probs(self, output: torch.Tensor) -> torch.Tensor:
        """They are what was written."""
        return output

    def loss(self, log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels) -> ModuleLoss:
        """CTC over the batch, times its weight."""
        nll, impossible = ctc_loss(log_probs, slots, *labels)
        tokens = labels.lengths.masked_fill(impossible, 0).sum()
        with torch.no_grad():
            silent = log_probs[..., 0] >= log_probs.amax(-1)
            blanks = (silent & valid_mask(slots, log_probs.shape[1])).sum()
            stats = {
                "ctc": (nll.detach().sum(), tokens),
                "infeasible": (impossible.sum(), torch.full_like(tokens, len(slots))),
                "slots_per_token": (slots.sum(), labels.lengths.sum()),
                "blank": (blanks, slots.sum()),
            }
        return ModuleLoss(self.ctc_weight * nll.sum(), tokens, stats)
