"""Every body that the package brings, by ``type``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from espnet2_legonn.model.espnet_body import EspnetBody, EspnetBodyConfig
from espnet2_legonn.model.language_body import LanguageModelBody
from espnet2_legonn.model.transformer import BODIES, BodyConfig, CrossTransformer, TransformerEncoder

__all__ = [
    "BODIES", "BodyConfig", "CrossTransformer", "EspnetBody", "EspnetBodyConfig", "LanguageModelBody", "NoBody",
    "NoBodyConfig", "TransformerEncoder",
]  # fmt: skip


@dataclass
class NoBodyConfig(BodyConfig):
    """Nothing between the input part and what follows; the sizes are those of length control, if there is any.

    Args:
        size: width D, that of the input part.
        others: see BodyConfig.
    """

    num_blocks: int = 0
    heads: int = 1
    linear_units: int = 1
    size: int = 0
    dropout: float = 0.0
    type: str = "none"

    @property
    def places(self) -> bool:
        """Nobody would read positions."""
        return True

    @property
    def shape(self) -> str:
        """For the card of a pack."""
        return f"none, {self.size} wide"


@BODIES.add("none")
class NoBody(nn.Module):
    """For input parts that are encoders themselves; (B, T, D) -> the same."""

    Config: ClassVar[type] = NoBodyConfig
    decodes: ClassVar[bool] = False

    def __init__(self, config: NoBodyConfig) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, T, D), (B,) -> (B, T, D)."""
        return x
