"""A language model of ESPnet's as an opinion in the search."""

from __future__ import annotations

from typing import Any

import torch

from espnet2_legonn.search.scorers import Scorer


class LMScorer(Scorer):
    """A language model over the tokens that are searched (see ``Scorer`` for the methods).

    Args:
        model: ESPnet's ``lm`` of its LM task, in evaluation mode; its ``batch_score`` is called.
        end: id of ``<sos/eos>``.
        utterances: of the batch; beam: hypotheses of each.
        weight: log-probabilities are multiplied by it.
    """

    def __init__(
        self, model: Any, end: int, utterances: int, beam: int, weight: float, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__("lm", weight)
        self.model = model
        self.texts = torch.full((utterances * beam, 1), end, device=device)
        self.states: list[Any] = [None] * len(self.texts)
        self._read()

    def _read(self) -> None:
        self.log_probs, self.states = self.model.batch_score(self.texts, self.states, self.texts)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        return self.log_probs.float().gather(1, candidates.flatten(0, 1)).view(candidates.shape)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        self.texts = torch.cat([self.texts[rows], tokens.unsqueeze(1)], 1)
        self.states = [self.states[row] for row in rows.tolist()]
        self._read()
