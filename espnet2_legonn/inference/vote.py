"""Several encoders vote: one search by the CTC scores of all of them, over one vocabulary."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import Marginals, require_match
from espnet2_legonn.model.module import DecoderModule, produced
from espnet2_legonn.search.answers import Answer
from espnet2_legonn.search.chain_search import ScorerMaker
from espnet2_legonn.search.ctc import CTCScorer
from espnet2_legonn.search.options import BeamOptions, Hypothesis
from espnet2_legonn.search.scorers import Scorer


def voters(heard: Sequence[Marginals], weights: Sequence[float]) -> list[ScorerMaker]:
    """Makers of the scorers of encoders beside the first, for utterances in the order of what they heard."""

    def make(place: int, utterances: int, beam: int, device: torch.device) -> Scorer:
        log_probs, lengths = heard[place].log_probs.to(device), heard[place].lengths.to(device)
        scorer = CTCScorer(log_probs, lengths, beam, weights[place], 2 * beam)
        scorer.name = f"ctc_{place + 2}"
        return scorer

    return [functools.partial(make, place) for place in range(len(heard))]


class Vote:
    """A chain, and encoders that vote with it: of another language of the same text, of its sound, trained apart.

    The score of a text is that of the chain (docs/search.md) plus, of each encoder, its weight times log p of the text
    by its CTC. All of them propose. The decoder reads the interface of the chain alone.

    Args:
        chain: encoder modules and a decoder, or encoder modules alone.
        others: chains of encoder modules, whose last interface has the tokens that ``chain`` writes.
        weights: of the others; by default, and where one is None, that of the chain's own CTC.

    Raises:
        ConfigError: no others, weights for another number of them or below 0, or no CTC that could judge the text.
        InterfaceMismatch: an interface over other tokens, with every reason.
    """

    def __init__(self, chain: LegoNN, others: Sequence[LegoNN], weights: Sequence[float | None] | None = None) -> None:
        if not others:
            raise ConfigError("vote: one encoder alone; give another one, or use the chain itself")
        if weights is not None and len(weights) != len(others):
            raise ConfigError(f"vote: {len(weights)} weights for {len(others)} encoders beside the first")
        self.chain, self.others = chain, list(others)
        self.weights: list[float | None] = [None] * len(others) if weights is None else list(weights)
        if wrong := [f"{w:g}" for w in self.weights if w is not None and not 0 <= w < math.inf]:
            raise ConfigError(f"vote: weight {', '.join(wrong)} is not 0 or a number above it")
        self.vocab, own = chain.require_text(), [i for m in chain if (i := produced(m)) is not None]
        for number, other in enumerate(others, 2):
            made = produced(other.last)
            if made is None or not own:
                raise ConfigError(f"vote: encoder {number}: {other.names[-1]} has no interface whose CTC could vote")
            # Each has slots of its own.
            for message in require_match(made, own[-1], f"vote: encoder {number}", collapse=True):
                warnings.warn(message, stacklevel=2)
        if own[-1].vocab.sha256 != self.vocab.sha256:
            raise ConfigError(
                "vote: the decoder writes other tokens than it reads, so that no interface can judge them"
            )

    @property
    def sources(self) -> list[LegoNN]:
        """What reads each of the inputs."""
        return [self.chain, *self.others]

    def answer(
        self,
        inputs: Sequence[Sequence[Any]],
        options: BeamOptions | None = None,
        more: Sequence[ScorerMaker] = (),
        judge_all: bool = False,
        times: bool = False,
    ) -> list[Answer]:
        """What all say together of each item; they are decoded as one batch.

        Args:
            inputs: for each source a list of as many items, see ``LegoNN.batch``.
            more, judge_all, times: as for ``LegoNN.answer``.

        Raises:
            DataError: lists of different lengths, or inputs that cannot be used.
        """
        options = options or BeamOptions()
        heard = self.heard(inputs, options.dtype)
        more = [*more, *voters(heard, self.filled(options))]
        return self.chain.answer(list(inputs[0]), options, more, judge_all, times)

    def heard(self, inputs: Sequence[Sequence[Any]], dtype: str = "float32") -> list[Marginals]:
        """What the encoders beside the first say; inputs and errors as for ``answer``."""
        if len(inputs) != len(self.sources):
            raise DataError(f"vote: {len(inputs)} lists of inputs for {len(self.sources)} encoders")
        if len({len(items) for items in inputs}) > 1:
            sizes = ", ".join(str(len(items)) for items in inputs)
            raise DataError(f"vote: lists of {sizes} inputs; each encoder reads the same items")
        return [other.converted(dtype).marginals(list(items)) for other, items in zip(self.others, inputs[1:])]

    def own_weight(self, options: BeamOptions) -> float:
        """Of the chain's own CTC in such a search: 1 where there is no decoder."""
        if not isinstance(self.chain.last, DecoderModule):
            return 1.0
        weight = options.filled(self.chain.search, True).ctc_weight
        assert weight is not None
        return weight

    def filled(self, options: BeamOptions) -> list[float]:
        """Weights of the others in such a search."""
        own = self.own_weight(options)
        return [own if weight is None else weight for weight in self.weights]

    def generate(self, inputs: Sequence[Sequence[Any]], **options: Any) -> list[list[Hypothesis]]:
        """``vote.generate([french, german])``: beam search; options are those of BeamOptions."""
        return [answer.nbest for answer in self.answer(inputs, BeamOptions(**options))]

    def __call__(self, inputs: Sequence[Sequence[Any]], **options: Any) -> list[str]:
        """The text of each item."""
        return [answer.text for answer in self.answer(inputs, BeamOptions(**options))]


class VotingText2Text:
    """``Vote`` with what ``legonn translate`` asks of ``Text2Text``; an input has the ids of each source.

    Args:
        options: of the search.
    """

    def __init__(self, vote: Vote, options: BeamOptions) -> None:
        self.vote, self.options = vote, options
        for source in vote.sources:
            if source.input_kind != "tokens":
                raise DataError(f"{source.names[0]} reads {source.input_kind}; in Python, Vote takes any inputs")

    @property
    def source_vocabs(self) -> list[Vocabulary]:
        """Of the texts that each source reads."""
        return [vocab for source in self.vote.sources if (vocab := source.first.ports[0].vocab) is not None]

    def answers(self, inputs: Sequence[Sequence[list[int]]]) -> list[Answer]:
        """All that is said of each input; they are decoded as one batch."""
        return self.vote.answer([list(items) for items in zip(*inputs)], self.options)
