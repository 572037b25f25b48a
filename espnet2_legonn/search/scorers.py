"""Scorers: opinions on how a hypothesis goes on, which the beam search adds up with weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from espnet2_legonn.errors import ConfigError
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

    def propose(self, number: int) -> torch.Tensor | None:
        self.log_probs[:, BLANK] = -torch.inf
        return best_places(self.log_probs[:, :-1], number).view(-1, self.beam, number)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        return self.log_probs.gather(1, candidates.flatten(0, 1)).view(candidates.shape)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        self.state.select(rows, going)
        self.log_probs = self.decoder.step(tokens, self.state)


class InternalScorer(DecoderScorer):
    """What a decoder module writes whatever it is told: it reads an interface that says nothing.

    To take its share from a score leaves more room for another language model (density ratio, McDermott et al. 2019;
    internal language models, Meng et al. 2021).

    Args:
        decoder: in evaluation mode; it reads distributions, and not their ranks alone.
        x: (B, K, V) distributions in whose place it reads even ones; lengths: (B,).
        beam: hypotheses of an utterance.
        weight: of what is taken away.

    Raises:
        ConfigError: the decoder reads something else.
    """

    def __init__(
        self, decoder: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, beam: int, weight: float
    ) -> None:
        if decoder.ports[0].kind != "marginals" or not decoder.input.passes_gradient:
            raise ConfigError("ilm_weight: only a decoder that reads distributions (wemb) can read an even one; give 0")
        super().__init__(decoder, torch.full_like(x, -math.log(x.shape[2])), lengths, beam, -weight)
        self.name = "internal_lm"

    def propose(self, number: int) -> None:
        """None: its favourites are what it would say of anything."""
        return None


class LengthBonus(Scorer):
    """1 for each token, <sos/eos> counted, as ESPnet's (option ``penalty``)."""

    def __init__(self, weight: float) -> None:
        super().__init__("length_bonus", weight)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        return torch.ones(candidates.shape, device=candidates.device)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        pass
