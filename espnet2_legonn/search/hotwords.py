"""Words that are expected, as an opinion in the search: a prefix tree over the tokens that spell them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from espnet2_legonn.data.vocabulary import SPACE, Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.search.scorers import BLANK, Scorer


class HotwordTree:
    """Hotwords over the tokens of a vocabulary.

    Each token on the way to the end of a hotword gains 1. What was gained is given back where the text leaves the way
    before its end, or goes on inside the same word: "cat" is no part of "cats". A way begins where a word begins. Node
    0 is its root; nodes are found by their parent and token, as in ``data.ngram.NgramTree``.

    Args:
        phrases: hotwords, of one or more words, in the vocabulary's normalisation.
        vocab: what they are spelled in.

    Raises:
        ConfigError: every hotword that cannot be spelled.
    """

    def __init__(self, phrases: Sequence[str], vocab: Vocabulary, device: torch.device | str = "cpu") -> None:
        self.size, self.end = len(vocab), vocab.sos_eos_id
        starts = [_starts_word(token, vocab) for token in vocab.tokens]
        # Characters do not tell where a word begins, but what is before it does.
        border = [vocab.ids[SPACE]] if vocab.unit == "char" and SPACE in vocab.ids else []
        children: dict[tuple[int, int], int] = {}
        depth, inside, ends, faults = [0], [0], set(), []
        for phrase in phrases:
            node, ids = 0, [*border, *vocab.encode(phrase)]
            if not phrase.split() or vocab.unk_id in ids:
                faults.append(f"hotwords: {phrase!r} cannot be spelled with the {self.size} tokens of the vocabulary")
                continue
            for token in ids:
                if (node, token) not in children:
                    children[node, token] = len(depth)
                    inside.append(depth[node] if node in ends and starts[token] else inside[node])
                    depth.append(depth[node] + 1)
                node = children[node, token]
            ends.add(node)
        if faults:
            raise ConfigError(faults)
        # An end that was found later counts for what lies behind it, too: parents come first.
        for (node, token), child in children.items():
            inside[child] = depth[node] if node in ends and starts[token] else inside[node]
        found = sorted((node * self.size + token, child) for (node, token), child in children.items())
        self.keys, self.children = torch.tensor(found or [(-1, 0)], device=device).T.contiguous()
        self.starts, self.depth = torch.tensor(starts, device=device), torch.tensor(depth, device=device)
        # How much of a node's depth stays if the text goes on inside the word, or with another word.
        self.inside = torch.tensor(inside, device=device)
        self.kept = torch.tensor([depth[n] if n in ends else inside[n] for n in range(len(depth))], device=device)
        self.first = children[0, border[0]] if border and children else 0  # a text begins as behind a blank

    def step(self, nodes: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nodes (N, 1) and tokens (N, C) to the next nodes and what is gained, (N, C) each."""
        child, starts = self._find(nodes * self.size + tokens), self.starts[tokens]
        again = self._find(tokens).masked_fill(~starts, -1).clamp(min=0)
        new = torch.where(child >= 0, child, again)
        lost = self.depth[nodes] - torch.where(starts, self.kept[nodes], self.inside[nodes])
        return new, torch.where(child >= 0, 1, self.depth[again] - lost).float()

    def ahead(self, nodes: torch.Tensor, number: int) -> torch.Tensor:
        """(N, number) tokens that go on from nodes (N,), but the root; <blank> fills the rest."""
        keys = torch.searchsorted(self.keys, nodes * self.size).unsqueeze(1) + torch.arange(number, device=nodes.device)
        tokens = self.keys[keys.clamp(max=len(self.keys) - 1)] - (nodes * self.size).unsqueeze(1)
        wrong = (keys >= len(self.keys)) | (tokens >= self.size) | (nodes == 0).unsqueeze(1)
        return tokens.masked_fill(wrong, BLANK)

    def _find(self, keys: torch.Tensor) -> torch.Tensor:
        places = torch.searchsorted(self.keys, keys.contiguous()).clamp(max=len(self.keys) - 1)
        return self.children[places].masked_fill(self.keys[places] != keys, -1)


def _starts_word(token: str, vocab: Vocabulary) -> bool:
    if token == vocab.tokens[vocab.sos_eos_id]:
        return True
    if vocab.unit == "char":
        return token == SPACE
    return vocab.unit != "bpe" or vocab.merges or token.startswith("\u2581")


class HotwordScorer(Scorer):
    """Hotwords in a beam search (see ``Scorer`` for the methods); it proposes how a begun one goes on.

    Args:
        tree: over the tokens that are searched.
        utterances: of the batch; beam: hypotheses of each.
        weight: nats that each token of a hotword gains.
    """

    def __init__(self, tree: HotwordTree, utterances: int, beam: int, weight: float) -> None:
        super().__init__("hotwords", weight)
        self.tree, self.beam = tree, beam
        self.nodes = torch.full((utterances * beam, 1), tree.first, device=tree.keys.device)

    def propose(self, number: int) -> torch.Tensor:
        return self.tree.ahead(self.nodes.squeeze(1), number).view(-1, self.beam, number)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        return self.tree.step(self.nodes, candidates.flatten(0, 1))[1].view(candidates.shape)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        self.nodes = self.tree.step(self.nodes[rows], tokens.unsqueeze(1))[0]
