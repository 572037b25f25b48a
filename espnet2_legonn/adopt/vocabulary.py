"""Somebody's tokens in our order: blank first, ``<unk>`` behind it, ``<sos/eos>`` last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, UNK, Vocabulary
from espnet2_legonn.errors import ConfigError

# The bias of a token that the source does not have: its probability is 0 in every format, and no number is infinite.
NEVER = -1e4


@dataclass(frozen=True)
class Order:
    """Our tokens, and which row of the source's output layer each has.

    Args:
        tokens: in our order.
        rows: of the source; -1 for a token that it does not have.
    """

    tokens: list[str]
    rows: list[int]

    @classmethod
    def of(cls, tokens: Sequence[str], names: dict[str, str] | None = None) -> Order:
        """From the source's tokens in its order.

        Args:
            names: what some of its tokens are called here, for instance ``{"[PAD]": "<blank>"}``.

        Raises:
            ConfigError: two tokens would have one name, or none is the blank.
        """
        ours = [(names or {}).get(token, token) for token in tokens]
        twice = sorted({token for token in ours if ours.count(token) > 1}) if len(set(ours)) < len(ours) else []
        if twice:
            raise ConfigError(f"vocabulary: several tokens would be called {' '.join(twice[:5])}")
        if BLANK not in ours:
            raise ConfigError(f"vocabulary: no token is CTC's blank; its last ones are {' '.join(ours[-3:])}")
        place = {token: i for i, token in enumerate(ours)}
        inner = [token for token in ours if token not in (BLANK, UNK, SOS_EOS)]
        order = [BLANK, UNK, *inner, SOS_EOS]
        return cls(order, [place.get(token, -1) for token in order])

    @property
    def added(self) -> list[str]:
        """Tokens that the source does not have."""
        return [token for token, row in zip(self.tokens, self.rows) if row < 0]

    @property
    def moved(self) -> bool:
        """Whether ids differ from those of the source."""
        return self.rows != list(range(len(self.rows)))

    def vocabulary(self, unit: str, language: str | None, normalization: str | None, model: bytes | None) -> Vocabulary:
        """With how text is split."""
        return Vocabulary(tuple(self.tokens), unit, language, normalization, model)

    def layer(self, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The source's output layer (V, D), (V,) in this order."""
        rows = torch.tensor(self.rows)
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        missing = rows < 0
        weight, bias = weight[rows.clamp(min=0)].clone(), bias[rows.clamp(min=0)].clone()
        weight[missing], bias[missing] = 0.0, NEVER
        return weight, bias
