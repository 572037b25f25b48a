"""Token input: embedded source text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.inputs import checked_ids, encode_text, normalized, unknown_tokens
from espnet2_legonn.model.parts.base import INPUTS, Column, InputPart
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig

# Of one input of the page. Attention takes memory by the square of the length.
MAX_CHARACTERS = 2000


@dataclass
class TokensConfig:
    """Source text input."""

    vocab: str
    type: str = "tokens"


@INPUTS.add("tokens")
class TokenInput(InputPart):
    """Embedding scaled by sqrt(D) plus sinusoidal positions; the end of the source is a token of its own.

    Args:
        vocab_size: V of the source; its last id is ``<sos/eos>``.
        size: width D.
        dropout: on the sum.
        places: whether the body brings positions, so that none are added here.
    """

    Config, kind, data = TokensConfig, "tokens", Column("src_text", "src_text", "text")
    dtype = torch.long

    def __init__(self, vocab_size: int, size: int, dropout: float = 0.0, places: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, size)
        nn.init.normal_(self.embed.weight, std=size**-0.5)
        self.positions = None if places else SinusoidalPositions(size)
        self.dropout = Dropout(dropout)
        self.eos, self.scale = vocab_size - 1, size**0.5

    @classmethod
    def make(cls, config: TokensConfig, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights."""
        assert vocab is not None
        return cls(len(vocab), body.size, body.dropout, body.places)

    @classmethod
    def least_values(cls, config: TokensConfig, size: int, vocab_size: int) -> int:
        """The table."""
        return vocab_size * size

    @classmethod
    def total_steps(cls, config: TokensConfig, total: float, items: int) -> float:
        """One more than its tokens for each text."""
        return total + items

    def measure(self, value: str) -> float | None:
        """Characters; None where there are no words."""
        assert self.vocab is not None
        return len(value) if normalized(value, self.vocab).strip() else None

    def unknown(self, value: str) -> list[str]:
        """Those that the vocabulary lacks."""
        assert self.vocab is not None
        return unknown_tokens(normalized(value, self.vocab), self.vocab)

    def read(self, item: Any, place: str) -> list[int]:
        """Raw text or ids to ids; see ``inputs.encode_text``."""
        assert self.vocab is not None
        return encode_text(item, self.vocab, place)

    def accept(self, given: Any, notes: list[str]) -> str:
        """A text, in the normalisation of the vocabulary."""
        text = str(given or "").strip()
        if len(text) > MAX_CHARACTERS:
            raise DataError(f"{len(text)} characters, at most {MAX_CHARACTERS} are read: give a part of it")
        assert self.vocab is not None
        treated = normalized(text, self.vocab)
        if not treated:
            raise DataError("nothing to read: type a sentence first")
        if treated != text:
            kind = self.vocab.normalization
            notes.append(f"read as “{treated}”, as the encoder's training text was written ({kind})")
        return text

    @classmethod
    def prepare(cls, value: Any, vocab: Vocabulary | None, where: str) -> np.ndarray:
        """Text, or ids of tokens."""
        assert vocab is not None
        return checked_ids(value, vocab, where)

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """One more for each source."""
        return lengths + 1

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T-1) ids (padding: any value), (B,) -> (B, T, D), (B,)."""
        ids = F.pad(ids.clamp(min=0), (0, 1)).scatter(1, lengths.unsqueeze(1), self.eos)
        x = self.embed(ids) * self.scale
        if self.positions is not None:
            x = self.positions(x, self.embed.weight.dtype)
        return self.dropout(x), self.steps(lengths)
