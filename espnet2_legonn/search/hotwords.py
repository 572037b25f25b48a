"""Words that are expected, as an opinion in the search: a prefix tree over the tokens that spell them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from unicodedata import category

import torch

from espnet2_legonn.data.vocabulary import SPACE, Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.inputs import normalized
from espnet2_legonn.search.scorers import BLANK, Scorer

# Punctuation inside words.
_JOINTS = "'\u2019-"


class HotwordTree:
    """Hotwords over the tokens of a vocabulary.

    Each token on the way to the end of a hotword gains 1. What was gained is given back where the text leaves the way
    before its end, or goes on inside the same word: "cat" is no part of "cats". A way begins where a word begins: node
    0 is the root inside a word, where only tokens go on that begin a word by themselves, and node 1 the root where a
    word begins. Nodes are found by their parent and token, as in ``data.ngram.NgramTree``.

    Args:
        phrases: hotwords, of one or more words, in the vocabulary's normalisation.
        vocab: what they are spelled in.

    Raises:
        ConfigError: every hotword that cannot be spelled.
    """

    def __init__(self, phrases: Sequence[str], vocab: Vocabulary, device: torch.device | str = "cpu") -> None:
        self.size, self.end = len(vocab), vocab.sos_eos_id
        begins, closes = _begins(vocab), [vocab.merges and not token.endswith("@@") for token in vocab.tokens]
        children: dict[tuple[int, int], int] = {}
        depth, border, ends, faults = [0, 0], [False, True], set(), []
        for phrase in phrases:
            if not phrase.split() or vocab.unk_id in vocab.encode(phrase):
                faults.append(f"hotwords: {phrase!r} cannot be spelled with the {self.size} tokens of the vocabulary")
                continue
            for ids in _spellings(phrase, vocab):
                node = 0 if begins[ids[0]] else 1
                for token in ids:
                    if (node, token) not in children:
                        children[node, token] = len(depth)
                        depth.append(depth[node] + 1)
                        border.append(closes[token])
                    node = children[node, token]
                ends.add(node)
        if faults:
            raise ConfigError(faults)
        # How much of a node's depth stays if the text goes on inside the word, or with another one. Parents come first.
        inside = [0] * len(depth)
        for (node, token), child in children.items():
            inside[child] = depth[node] if node in ends and (begins[token] or border[node]) else inside[node]
        kept = [depth[n] if n in ends else inside[n] for n in range(len(depth))]
        found = sorted((node * self.size + token, child) for (node, token), child in children.items())
        self.keys, self.children = torch.tensor(found or [(-1, 0)], device=device).T.contiguous()
        self.begins, self.closes = torch.tensor(begins, device=device), torch.tensor(closes, device=device)
        self.border, self.depth = torch.tensor(border, device=device), torch.tensor(depth, device=device)
        self.inside, self.kept = torch.tensor(inside, device=device), torch.tensor(kept, device=device)
        # A text of characters begins as behind a blank.
        self.first = children.get((0, vocab.ids[SPACE]), 1) if vocab.unit == "char" and SPACE in vocab.ids else 1

    def step(self, nodes: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nodes (N, 1) and tokens (N, C) to the next nodes and what is gained, (N, C) each."""
        child, begins = self._find(nodes * self.size + tokens), self.begins[tokens]
        root = self._find(tokens).masked_fill(~begins, -1)
        again = torch.where(self.border[nodes] & (root < 0), self._find(self.size + tokens), root)
        new = torch.where(child >= 0, child, torch.where(again >= 0, again, self.closes[tokens].long()))
        lost = self.depth[nodes] - torch.where(begins | self.border[nodes], self.kept[nodes], self.inside[nodes])
        return new, torch.where(child >= 0, 1, self.depth[new] - lost).float()

    def ahead(self, nodes: torch.Tensor, number: int) -> torch.Tensor:
        """(N, number) tokens that go on from nodes (N,), but the roots; <blank> fills the rest."""
        keys = torch.searchsorted(self.keys, nodes * self.size).unsqueeze(1) + torch.arange(number, device=nodes.device)
        tokens = self.keys[keys.clamp(max=len(self.keys) - 1)] - (nodes * self.size).unsqueeze(1)
        wrong = (keys >= len(self.keys)) | (tokens >= self.size) | (nodes < 2).unsqueeze(1)
        return tokens.masked_fill(wrong, BLANK)

    def _find(self, keys: torch.Tensor) -> torch.Tensor:
        places = torch.searchsorted(self.keys, keys.contiguous()).clamp(max=len(self.keys) - 1)
        return self.children[places].masked_fill(self.keys[places] != keys, -1)


@functools.lru_cache(maxsize=4)
def tree_of(phrases: tuple[str, ...], vocab: Vocabulary, device: str) -> HotwordTree:
    """The tree of these hotwords; it is made once, and not for each batch."""
    return HotwordTree([normalized(phrase, vocab) for phrase in phrases], vocab, device)


def _begins(vocab: Vocabulary) -> list[bool]:
    """Whether each token begins a word whatever stands before it: behind its own blank, or as punctuation."""
    if vocab.unit in ("word", "phn"):
        return [True] * len(vocab)
    if vocab.tokenizer is None:
        texts = [" " if token == SPACE else token.replace("\u2581", " ") for token in vocab.tokens]
    else:
        join, word = vocab.tokenizer.join, _word(vocab)
        behind = len(join([word]))
        texts = [join([word, token])[behind:] or " " for token in vocab.tokens]
    found = [text[0] == " " or (text[0] not in _JOINTS and category(text[0])[0] == "P") for text in texts]
    return [*found[:-1], True]


def _word(vocab: Vocabulary) -> str:
    """A token that is a word of letters, to put others behind it."""
    return max(vocab.tokens, key=lambda token: token.isascii() and token.isalpha())


def _spellings(phrase: str, vocab: Vocabulary) -> list[list[int]]:
    """Tokens of a phrase; as the first ones of a text and behind others, where a tokenizer splits these differently."""
    alone = vocab.encode(phrase)
    if vocab.unit == "char" and SPACE in vocab.ids:
        return [[vocab.ids[SPACE], *alone]]  # characters do not tell where a word begins, but what is before it does
    if vocab.tokenizer is None:
        return [alone]
    first = vocab.encode(_word(vocab))
    both = vocab.encode(f"{_word(vocab)} {phrase}")
    return [alone, both[len(first) :]] if both[: len(first)] == first and len(both) > len(first) else [alone]


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
