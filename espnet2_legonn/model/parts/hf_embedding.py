"""Marginals as a language model of somebody else's reads them: the expected row of its own embedding table.

This is WEmb (equation 17) whose table is the model's, as in LegoSLM (Ma et al. 2025, arXiv:2505.11352). The model
itself aggregates over slots, so no positions and no blocks stand between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.language_body import LanguageModelBody
from espnet2_legonn.model.language_model import LanguageModelConfig
from espnet2_legonn.model.masks import valid_mask, zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.ingestor import Embed, Embedded, MarginalsInput
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import BodyConfig


@dataclass(kw_only=True)
class HFEmbeddingConfig:
    """How a language model reads marginals over its own tokens.

    Args:
        vocab: the model's own, which the module writes too.
        temperature: distributions are read to the power of 1 / temperature: above 1 they are flatter.
        blank: ``drop``: slots whose best token is ``<blank>`` are left out (at least one stays), and of the others the
            mass of ``<blank>``. ``keep``: every slot is read, and ``<blank>`` has a row that learns, zeros at first.
        collapse: merge runs of slots with one best token first, without those of ``<blank>``.
        prompt: a text that is read before the slots.
        freeze: rows are those of the model; false: a copy of its table that learns.
    """

    vocab: str
    type: str = "hf_embedding"
    temperature: float = 1.0
    blank: str = "drop"
    collapse: bool = False
    prompt: str = ""
    freeze: bool = True


def spoken(log_probs: torch.Tensor, lengths: torch.Tensor, blank: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the slots whose best token is blank; of an item of blanks alone the first stays.

    Args:
        log_probs: (B, K, V); lengths: (B,).

    Returns:
        (B, K', V) and (B,), K' <= K.
    """
    kept = (log_probs.argmax(-1) != blank) & valid_mask(lengths, log_probs.shape[1])
    kept[:, 0] |= ~kept.any(1)
    number = kept.sum(1)
    places = (~kept).long().argsort(dim=1, stable=True)[:, : int(number.max())]
    return log_probs.gather(1, places.unsqueeze(2).expand(-1, -1, log_probs.shape[2])), number


class ExpectedRow(Embed):
    """Each slot's distribution times the table of a language model. Differentiable.

    Args:
        config: its description.
        shape: V and D.
    """

    def __init__(self, config: HFEmbeddingConfig, shape: tuple[int, int]) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.blank = nn.Parameter(torch.zeros(shape[1])) if config.blank == "keep" and not config.collapse else None
        self.weight = None if config.freeze else nn.Parameter(torch.empty(shape))
        self._body: list[LanguageModelBody] = []  # not a part of this one

    def bind(self, body: LanguageModelBody) -> None:
        """Read with this model's table; a copy begins as it is."""
        self._body = [body]
        if self.weight is not None:
            with torch.no_grad():
                self.weight.copy_(body.lm.table)

    def forward(self, log_probs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, K, V), (B,) -> (B, K, D)."""
        lm = self._body[0].lm
        table = lm.table if self.weight is None else self.weight
        if self.temperature != 1:
            log_probs = (log_probs / self.temperature).log_softmax(-1)
        if self.blank is None:
            log_probs = log_probs[..., 1:].log_softmax(-1)
            rows = log_probs.exp().to(table.dtype) @ table[1:] * lm.read_scale
        else:
            probs = log_probs.exp().to(table.dtype)
            rows = probs[..., 1:] @ table[1:] * lm.read_scale + probs[..., :1] * self.blank.to(table.dtype)
        return zero_padding(rows, lengths)

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """No table of its own goes to other tokens: the model writes them, too."""
        return {}


@INPUTS.add("hf_embedding")
class HFEmbeddingInput(MarginalsInput):
    """What stands before and behind a text for the model, a prompt, and the slots between.

    Args:
        config: its description.
        shape: V and D.
        prompt: ids of it.
    """

    Config = HFEmbeddingConfig

    def __init__(self, config: HFEmbeddingConfig, shape: tuple[int, int], prompt: list[int]) -> None:
        embed = ExpectedRow(config, shape)
        super().__init__(embed, config.collapse)
        self.drops, self.prompt = embed.blank is None and not config.collapse, prompt
        self.keeps_slots = embed.blank is not None
        self._ends: tuple[list[int], list[int]] = ([], [])
        self._body: list[LanguageModelBody] = []
        self.seen = Seen()

    @classmethod
    def faults(cls, config: HFEmbeddingConfig, where: str) -> list[str]:
        """Values out of range."""
        faults = []
        if config.blank not in ("drop", "keep"):
            faults.append(f"{where}.blank: {config.blank!r} is not drop or keep")
        if not config.temperature > 0:
            faults.append(f"{where}.temperature: {config.temperature} is not above 0")
        if config.collapse and config.blank == "keep":
            faults.append(f"{where}.collapse: true leaves <blank> out; it goes with blank: drop")
        return faults

    @classmethod
    def make(
        cls, config: HFEmbeddingConfig, body: BodyConfig | LanguageModelConfig, vocab: Vocabulary | None, where: str
    ) -> Self:
        """What is its own; ``bind`` tells it the model.

        Raises:
            ConfigError: the module has no language model.
        """
        assert vocab is not None
        if not isinstance(body, LanguageModelConfig):
            raise ConfigError(f"{where}: hf_embedding reads with a model's table; it goes with body type hf_causal_lm")
        return cls(config, (len(vocab), body.size), vocab.encode(config.prompt) if config.prompt else [])

    def bind(self, body: LanguageModelBody) -> None:
        """The model of this module."""
        self._body, self._ends = [body], (body.before + self.prompt, body.behind)
        assert isinstance(self.embed, ExpectedRow)
        self.embed.bind(body)

    def forward(self, read: torch.Tensor | Embedded, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Marginals (B, K, V), (B,) -> what the model reads (B, S, D), (B,)."""
        if self.drops and isinstance(read, torch.Tensor):
            read, lengths = spoken(read, lengths)
        h, lengths = self.embedded(read, lengths)
        before, behind = (self._rows(ids, h) for ids in self._ends)
        number, size = before.shape[1], behind.shape[1]
        h, lengths = torch.cat([before, h, torch.zeros_like(behind)], 1), lengths + number
        if size:
            places = (lengths.unsqueeze(1) + torch.arange(size, device=h.device)).unsqueeze(2)
            h = h.scatter(1, places.expand_as(behind), behind)
        return h, lengths + size

    def _rows(self, ids: list[int], like: torch.Tensor) -> torch.Tensor:
        """Of tokens, for each item: (B, L, D)."""
        lm = self._body[0].lm
        rows = lm.table[torch.tensor(ids, dtype=torch.long, device=like.device)] * lm.read_scale
        return rows.to(like.dtype).expand(len(like), -1, -1)
