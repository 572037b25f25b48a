"""An n-gram model as an opinion in the search: whole batches of hypotheses and candidates at once."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from espnet2_legonn.data.arpa import read_arpa
from espnet2_legonn.data.ngram import NgramTree
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.search.scorers import Scorer

NAT = math.log(10.0)


class NgramModel:
    """A back-off model over a vocabulary, for batches of contexts.

    A context is a row (order,) of nodes: entry n is the n-gram of its last n tokens, -1 where the model has none.
    Probabilities are natural logarithms in float32; ``<sos/eos>`` is the end of a text, ``<blank>`` is impossible.

    Args:
        tree: see there.
    """

    def __init__(self, tree: NgramTree, device: torch.device | str = "cpu") -> None:
        self.vocab_size, self.order = tree.vocab_size, tree.order
        self.keys = torch.from_numpy(tree.keys).to(device)
        self.log_probs = torch.from_numpy(tree.log_probs * NAT).float().to(device)
        self.backoffs = torch.from_numpy(tree.backoffs * NAT).float().to(device)

    @classmethod
    def read(cls, path: Path | str, vocab: Vocabulary, device: torch.device | str = "cpu") -> NgramModel:
        """From an ARPA file; see ``read_arpa`` for what is missing or wrong in it."""
        return cls(read_arpa(path, vocab), device)

    def start(self, number: int) -> torch.Tensor:
        """(number, order) contexts at the beginning of a text."""
        nodes = torch.full((number, self.order), -1, dtype=torch.long, device=self.keys.device)
        nodes[:, 0] = 0
        nodes[:, 1:2] = self.vocab_size  # <s>
        return nodes

    def step(self, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Contexts (N, order) that go on with tokens (N,): the new contexts (N, order)."""
        new = nodes.clone()
        new[:, 1:] = self._find(nodes[:, :-1], tokens.unsqueeze(1))
        return new

    def score(self, nodes: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """(N, C) log-probability of each candidate (N, C) after contexts (N, order)."""
        found = self._find(nodes.unsqueeze(2), candidates.unsqueeze(1))  # (N, order, C)
        total = self.log_probs[found[:, 0]]
        for n in range(1, self.order):
            total = torch.where(found[:, n] >= 0, self.log_probs[found[:, n]], total + self._backoff(nodes[:, n]))
        return total

    def distributions(self, nodes: torch.Tensor) -> torch.Tensor:
        """(N, V) log-probability of every token after contexts (N, order); each different context is computed once."""
        contexts, rows = nodes.unique(dim=0, return_inverse=True)
        total = self.log_probs[1 : 1 + self.vocab_size].repeat(len(contexts), 1)
        for n in range(1, self.order):
            parents = contexts[:, n].contiguous()
            total += self._backoff(parents)
            begin = torch.searchsorted(self.keys, parents * self.vocab_size)
            many = torch.searchsorted(self.keys, (parents + 1) * self.vocab_size) - begin
            many = many.masked_fill(parents < 0, 0)
            # The children of all contexts in one row: (which context, which node).
            which = torch.repeat_interleave(many)
            places = torch.arange(len(which), device=which.device) - (many.cumsum(0) - many)[which] + begin[which]
            total[which, self.keys[places] - parents[which] * self.vocab_size] = self.log_probs[places]
        return total[rows]

    def _backoff(self, nodes: torch.Tensor) -> torch.Tensor:
        return self.backoffs[nodes].masked_fill(nodes < 0, 0.0).unsqueeze(1)

    def _find(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        keys = parents * self.vocab_size + tokens
        places = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return places.masked_fill((self.keys[places] != keys) | (parents < 0), -1)


class NgramScorer(Scorer):
    """What an n-gram model says of the candidates of others in a beam search (see ``Scorer`` for the methods).

    Args:
        model: over the tokens that are searched.
        utterances: of the batch; beam: hypotheses of each.
        weight: log-probabilities are multiplied by it.
    """

    def __init__(self, model: NgramModel, utterances: int, beam: int, weight: float) -> None:
        super().__init__("ngram", weight)
        self.model = model
        self.nodes = model.start(utterances * beam)

    def propose(self, number: int) -> torch.Tensor | None:
        """None: a language model has not seen the input, so its favourites would only take places."""
        return None

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        """(B, beam, C) ids to the log-probability (B, beam, C) of each as the next token."""
        return self.model.score(self.nodes, candidates.flatten(0, 1)).view(candidates.shape)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Hypotheses ``rows`` (N',) of before go on with ``tokens`` (N',); rows of the other utterances are gone."""
        self.nodes = self.model.step(self.nodes[rows], tokens)
