"""The CTC interface of an encoder module (equations 5, 6, 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.glancing import glance
from espnet2_legonn.model.losses import Labels, ModuleLoss, consistency_loss, ctc_loss, infeasible
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.parts.base import OUTPUTS, OutputPart
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import Between


@dataclass
class IntermediateConfig:
    """CTC between the blocks that make the slots, through the projection of the interface (Lee & Watanabe 2021).

    Args:
        blocks: behind which blocks, counted from 1: those of length control or, where there is none, of the body.
        weight: share of their mean in the CTC loss; the interface itself has the rest.
        self_conditioned: what follows reads these distributions, too, projected to width D (Nozaki & Komatsu 2021).
    """

    blocks: list[int]
    weight: float = 0.3
    self_conditioned: bool = False


@dataclass
class OutputConfig:
    """Vocabulary of the output and the weight of its loss; label smoothing, tying and a bias for the decoder.

    Args:
        intermediate: CTC between the blocks of an encoder module, or null.
        consistency: weight of what two passes of a batch differ by, beside CTC (CR-CTC); 0: one pass.
        glancing: as many slots as this share of those that a first pass gets wrong are shown a token (GLAT); 0: none.
    """

    vocab: str
    type: str = "tokens"
    ctc_weight: float = 1.0
    intermediate: IntermediateConfig | None = None
    consistency: float = 0.0
    glancing: float = 0.0
    label_smoothing: float = 0.0
    tie: bool = True
    bias: bool = False


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
    def make(cls, config: OutputConfig, size: int, vocab: Vocabulary | None) -> CTCInterface:
        """Fresh weights."""
        assert vocab is not None
        if config.intermediate is None and not config.consistency and not config.glancing:
            return cls(size, len(vocab), config.ctc_weight)
        return RegularizedCTC(size, len(vocab), config)

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


class RegularizedCTC(CTCInterface):
    """A CTC interface with more to learn from: intermediate CTC, self-conditioned or not, consistency, glancing.

    The loss of a batch, w being ``intermediate.weight``::

        mean over passes [(1 - w) CTC(slots) + w mean of CTC(between blocks)] + consistency * difference of two passes

    Of all this, inference runs self-conditioning alone, which is part of the model.

    Args:
        size: width D of the encoder; vocab_size: V, blank included.
        config: ``ctc_weight`` is the weight of the whole.
    """

    def __init__(self, size: int, vocab_size: int, config: OutputConfig) -> None:
        super().__init__(size, vocab_size, config.ctc_weight)
        about = config.intermediate or IntermediateConfig([], 0.0)
        self.blocks, self.share, self.consistency = frozenset(about.blocks), about.weight, config.consistency
        self.glancing = config.glancing
        self.conditioning: nn.Linear | None = None
        if about.self_conditioned:
            self.conditioning = nn.Linear(vocab_size, size)
            nn.init.xavier_uniform_(self.conditioning.weight)
            nn.init.zeros_(self.conditioning.bias)

    def between(self, kept: list[torch.Tensor] | None) -> Between | None:
        """Intermediate CTC, where its loss is wanted, and self-conditioning."""
        if not self.blocks or (kept is None and self.conditioning is None):
            return None

        def read(number: int, x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
            if number not in self.blocks:
                return x
            log_probs = self(norm(x))  # the projection reads what the last norm writes
            if kept is not None:
                kept.append(log_probs)
            return x if self.conditioning is None else x + self.conditioning(log_probs.exp().to(x.dtype))

        return read

    def glimpses(self, states: torch.Tensor, slots: torch.Tensor, labels: Labels) -> torch.Tensor:
        """Tokens by their rows of the projection, scaled as an embedding; 0 for slots that are shown nothing."""
        with torch.no_grad():
            tokens, shown = glance(self(states), slots, labels, self.glancing)
        torch.clear_autocast_cache()  # some versions of PyTorch go on with copies of weights that have no gradient
        embedded = F.embedding(tokens, self.ctc_lo.weight) * self.ctc_lo.in_features**0.5
        return embedded * shown.unsqueeze(-1)

    def loss_of_passes(
        self, passes: Sequence[Sequence[torch.Tensor]], slots: torch.Tensor, labels: Labels
    ) -> ModuleLoss:
        """See the class; an utterance without a CTC path adds nothing to any term."""
        own = [self.loss(each[-1], slots, labels) for each in passes]
        loss, tokens = _mean([found.total for found in own]), own[0].tokens
        stats = {**own[0].stats, "ctc": (_mean([found.stats["ctc"][0] for found in own]), tokens)}
        if self.blocks:
            inner = _mean([ctc_loss(x, slots, *labels)[0].sum() for each in passes for x in each[:-1]])
            loss = (1 - self.share) * loss + self.share * self.ctc_weight * inner
            stats["intermediate"] = (inner.detach(), tokens)
        if len(passes) > 1:
            first, second = (each[-1] for each in passes)
            counted = slots.masked_fill(infeasible(*labels, slots), 0)
            apart = consistency_loss(first, second, counted).sum()
            loss = loss + self.ctc_weight * self.consistency * apart
            stats["consistency"] = (apart.detach(), tokens)
        return dataclasses.replace(own[0], total=loss, stats=stats)


def _mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(values)).mean()
