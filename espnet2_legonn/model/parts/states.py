"""Hidden states between modules: the ordinary encoder-decoder model, which is the paper's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.parts.base import INPUTS, OUTPUTS, InputPart, OutputPart
from espnet2_legonn.model.parts.ctc import CTCInterface
from espnet2_legonn.model.transformer import BodyConfig


@dataclass
class StatesConfig:
    """Hidden states of the module before (baseline)."""

    type: str = "states"


@INPUTS.add("states")
class StatesInput(InputPart):
    """Hidden states of the module before, as in an ordinary encoder-decoder model (the paper's baseline)."""

    Config, kind = StatesConfig, "states"

    @classmethod
    def make(cls, config: StatesConfig, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """There are no weights."""
        return cls()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, D), (B,) -> the same."""
        return x, lengths


@dataclass
class AuxiliaryCTCConfig:
    """A CTC loss on hidden states, as in hybrid CTC/attention models.

    ``weight`` is ESPnet's ctc_weight: of this loss and what stands behind it, the shares are weight and 1 - weight.
    """

    vocab: str
    weight: float = 0.3


@dataclass
class StatesOutputConfig:
    """Hidden states for the module behind (baseline), which an auxiliary CTC may ground."""

    type: str = "states"
    ctc: AuxiliaryCTCConfig | None = None


@OUTPUTS.add("states")
class StatesOutput(OutputPart):
    """Hidden states for the module behind."""

    Config, kind = StatesOutputConfig, "states"

    @classmethod
    def make(cls, config: StatesOutputConfig, size: int, vocab: Vocabulary | None) -> OutputPart:
        """Without weights, or with those of the auxiliary CTC."""
        if config.ctc is None:
            return cls()
        assert vocab is not None
        return GroundedStates(size, len(vocab), config.ctc.weight)

    @classmethod
    def target(cls, config: StatesOutputConfig) -> AuxiliaryCTCConfig | None:
        """The auxiliary CTC."""
        return config.ctc

    @classmethod
    def teaches(cls, config: StatesOutputConfig) -> bool:
        """Whether the auxiliary CTC has a weight."""
        return config.ctc is not None and config.ctc.weight > 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, D) -> the same."""
        return x


class GroundedStates(CTCInterface):
    """Hidden states for the module behind, with a CTC interface beside them."""

    kind = "states"

    @property
    def share_behind(self) -> float:  # type: ignore[override]
        """1 - weight."""
        return 1.0 - self.ctc_weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, D) -> the same."""
        return x

    def log_probs(self, output: torch.Tensor) -> torch.Tensor:
        """Of the states."""
        return super().forward(output)
