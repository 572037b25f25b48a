"""Hidden states as input: the ordinary encoder-decoder model, which is the paper's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.parts.base import INPUTS, InputPart
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
