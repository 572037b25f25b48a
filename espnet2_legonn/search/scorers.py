"""Scorers: opinions on how a hypothesis goes on, which the beam search adds up with weights."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from espnet2_legonn.model.best import best_places
from espnet2_legonn.model.module import DecoderModule

BLANK = 0


class Scorer(ABC):
    """One opinion; an object is the state of one search.

    There are ``B`` utterances that are still searched, each with ``beam`` hypotheses in a row: row ``b * beam + i`` is
    hypothesis i of utterance b. Scores are log-probabilities in nats, in float32.

    Args:
        name: key of ``Hypothesis.parts``.
        weight: scores are multiplied by it.
    """

    def __init__(self, name: str, weight: float) -> None:
        self.name, self.weight = name, weight

    def propose(self, number: int) -> torch.Tensor | None:
        """(B, beam, number) ids of the best next tokens, without <blank> and <sos/eos>; None: only judges others'."""
        return None

    @abstractmethod
    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        """(B, beam, C) ids to the log-probability (B, beam, C) of each as the next token; <sos/eos> ends the text."""

    @abstractmethod
    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Hypotheses ``rows`` (N',) of before go on with ``tokens`` (N',).

        Args:
            going: (B',) utterances that are still searched; None if all are.
        """


class DecoderScorer(Scorer):
    """A decoder module: equation 7, a step at a time.

    Args:
        decoder: in evaluation mode.
        x: its input (B, K, V) or (B, T, D); lengths: (B,).
        beam: hypotheses of an utterance.
    """

    def __init__(
        self, decoder: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, beam: int, weight: float = 1.0
    ) -> None:
        super().__init__("decoder", weight)
        self.decoder, self.beam = decoder, beam
        self.state = decoder.start(x, lengths)
        start = torch.full((len(lengths) * beam,), decoder.sos_eos, dtype=torch.long, device=lengths.device)
        self.log_probs = decoder.step(start, self.state)

    def propose(self, number: int) -> torch.Tensor:
        self.log_probs[:, BLANK] = -torch.inf
        return best_places(self.log_probs[:, :-1], number).view(-1, self.beam, number)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        return self.log_probs.gather(1, candidates.flatten(0, 1)).view(candidates.shape)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        self.state.select(rows, going)
        self.log_probs = self.decoder.step(tokens, self.state)
