"""What a chain says of one input, whoever shows it: a recipe, ESPnet's classes, the page, the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.length_control import slots_for
from espnet2_legonn.model.module import DecoderModule, consumed, produced
from espnet2_legonn.model.timeline import Spans
from espnet2_legonn.search.options import BeamOptions, Hypothesis
from espnet2_legonn.search.words import Word, align


class BestPath(NamedTuple):
    """What an interface says by itself.

    Args:
        ids: repeats merged, blanks dropped.
        score: log-probability of the path.
        marginals: of this input alone, without padding.
    """

    ids: list[int]
    score: float
    marginals: Marginals

    @property
    def text(self) -> str:
        return self.marginals.interface.vocab.decode(self.ids)


@dataclass
class Answer:
    """All that a chain says of one input.

    Args:
        nbest: hypotheses, best first.
        vocab: of their ids.
        interfaces: what each encoder module with an interface says, by module name.
        notes: joints that carry more slots than in training.
        seconds: that each module took, by name; of the whole batch.
        options: of the search, every one filled in.
        words: of the best hypothesis with their times, if those were asked for and the chain reads sound.
        exact: whether slots are tied to time; else the times are estimates (``model/timeline.py``).
    """

    nbest: list[Hypothesis]
    vocab: Vocabulary
    interfaces: dict[str, BestPath] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    options: BeamOptions = field(default_factory=BeamOptions)
    words: list[Word] = field(default_factory=list)
    exact: bool = True

    @property
    def best(self) -> Hypothesis:
        return self.nbest[0]

    @property
    def text(self) -> str:
        """Of the best hypothesis."""
        return self.vocab.decode(self.best.ids)

    @property
    def texts(self) -> list[str]:
        """Of all hypotheses."""
        return [self.vocab.decode(hypothesis.ids) for hypothesis in self.nbest]


def best_paths(marginals: Marginals) -> list[BestPath]:
    """The best path of each item."""
    best, lengths = marginals.log_probs.max(-1).values, marginals.lengths.tolist()
    found = zip(marginals.greedy_ids(), best, lengths)
    return [BestPath(ids, float(row[:n].sum()), marginals[i]) for i, (ids, row, n) in enumerate(found)]


def add_words(answers: Sequence[Answer], marginals: Marginals, spans: Spans) -> None:
    """Words of each answer with their times.

    Args:
        marginals: of the last interface for all of them; spans: of its slots.
    """
    for i, answer in enumerate(answers):
        own = marginals[i]
        size = own.log_probs.shape[1]
        alone = Spans(spans.start[i : i + 1, :size], spans.end[i : i + 1, :size], spans.exact)
        answer.words, answer.exact = align(own, alone, answer.best.ids, answer.vocab), spans.exact


def beyond_training(chain: Chain, lengths: torch.Tensor, found: Mapping[str, Marginals]) -> list[list[str]]:
    """For each input, the joints that carry more slots than any did in training, and by how much.

    Args:
        lengths: (B,) of the chain's input; found: marginals of its interfaces.
    """
    notes: list[list[str]] = [[] for _ in lengths]
    steps = chain.first.input.steps(lengths)
    for name, module, reader in zip(chain.names, chain, [*list(chain)[1:], None]):
        if isinstance(module, DecoderModule):
            break
        control, wanted = module.length_control, steps
        if module.input.collapse_slots:
            wanted = found[name].lengths if name in found else steps  # how much collapses is in the data
        elif control is not None:  # more than it can make, perhaps
            wanted = slots_for(steps, *control.ratio, torch.iinfo(torch.long).max)
        seen = [produced(module), None if reader is None else consumed(reader)]
        limit = min((port.longest for port in seen if port is not None and port.longest), default=0)
        for i, slots in enumerate(wanted.tolist()):
            if limit and slots > limit:
                most = f"at most {limit} were seen in training ({slots / limit:.1f} times)"
                notes[i].append(f"{slots} slots behind {name}, {most}; the text is not to be trusted, split the input")
        steps = wanted if control is None else wanted.clamp(max=control.max_length)
    return notes
