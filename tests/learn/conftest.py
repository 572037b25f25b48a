"""A toy pair of languages and a plain PyTorch trainer: what the modularity tests share.

Source sentences are adjectives, nouns, verbs and two symbols whose translation hangs on what came before. The target
puts adjectives behind their noun (local reordering), ``it`` agrees with the last noun's gender and ``again`` copies it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.chain import Labels

GENDERS = 3


@dataclass(frozen=True)
class Language:
    """Sizes of the toy language; sentences have ``shortest`` to ``longest`` words on both sides."""

    nouns: int = 10
    adjectives: int = 6
    verbs: int = 6
    shortest: int = 4
    longest: int = 8

    @property
    def source(self) -> list[str]:
        sizes = (("N", self.nouns), ("A", self.adjectives), ("V", self.verbs))
        return [f"{kind}{i}" for kind, size in sizes for i in range(size)] + ["it", "again"]

    @property
    def target(self) -> list[str]:
        return [word.lower() for word in self.source[:-2]] + [f"it{i}" for i in range(GENDERS)]

    def pairs(self, number: int, seed: int) -> list[tuple[list[str], list[str]]]:
        """Random source sentences and their translations."""
        rng = random.Random(seed)
        weights = [3] * self.nouns + [4] * self.adjectives + [2] * self.verbs + [self.nouns] * 2
        lengths = (rng.randint(self.shortest, self.longest) for _ in range(number))
        return [(s, translate(s)) for s in (rng.choices(self.source, weights, k=n) for n in lengths)]


def translate(source: list[str]) -> list[str]:
    """The rules of the toy language."""
    target: list[str] = []
    noun, i = "n0", 0
    while i < len(source):
        word = source[i]
        if word[0] == "A" and i + 1 < len(source) and source[i + 1][0] == "N":
            noun = source[i + 1].lower()
            target += [noun, word.lower()]
            i += 1
        elif word == "it":
            target.append(f"it{int(noun[1:]) % GENDERS}")
        elif word == "again":
            target.append(noun)
        else:
            noun = word.lower() if word[0] == "N" else noun
            target.append(word.lower())
        i += 1
    return target


@dataclass(frozen=True)
class Recipe:
    """One model of the experiment.

    Args:
        seed: of weights and data order.
        slots_per_token: of the encoder's length controller.
        decodes: a pair, or the encoder alone.
        ingestor: the decoder's input, without its vocabulary.
        size, blocks: width and depth of both modules.
        steps: updates.
    """

    seed: int
    slots_per_token: float = 2.0
    decodes: bool = True
    ingestor: tuple[tuple[str, Any], ...] = (("type", "wemb"), ("num_blocks", 1))
    ctc_weight: float = 1.0
    size: int = 64
    blocks: int = 2
    steps: int = 800


class Toy:
    """Trains chains on the toy task and scores them by whole sentences.

    Args:
        language: what is translated.
        batch: sentences of an update.
        rate: peak learning rate.
    """

    def __init__(self, language: Language, batch: int = 32, rate: float = 3e-3) -> None:
        self.language, self.batch, self.rate = language, batch, rate
        special = ["<blank>", "<unk>"]
        self.vocabs = {
            "src": {"tokens": [*special, *language.source, "<sos/eos>"], "unit": "word", "language": "src"},
            "tgt": {"tokens": [*special, *language.target, "<sos/eos>"], "unit": "word", "language": "tgt"},
        }
        self.test = language.pairs(300, seed=10_000)

    def description(self, recipe: Recipe) -> dict[str, Any]:
        body = {
            "num_blocks": recipe.blocks,
            "size": recipe.size,
            "heads": 4,
            "linear_units": 2 * recipe.size,
            "dropout": 0.0,
        }
        mean = (self.language.shortest + self.language.longest) / 2
        encoder = {
            "name": "encoder",
            "input": {"type": "tokens", "vocab": "src"},
            "body": body,
            # The input has one step more than the sentence has words (its end); sentences keep their length.
            "length_control": {
                "ratio": round(recipe.slots_per_token * mean / (mean + 1), 3),
                "max_length": 40,
                "num_blocks": max(recipe.blocks // 2, 1),
            },
            "output": {"vocab": "tgt", "ctc_weight": recipe.ctc_weight},
        }
        decoder = {
            "name": "decoder",
            "input": {**dict(recipe.ingestor), "vocab": "tgt"},
            "body": {**body, "type": "transformer_decoder"},
            "output": {"vocab": "tgt", "label_smoothing": 0.1},
        }
        return {"vocabs": self.vocabs, "modules": [encoder, decoder] if recipe.decodes else [encoder]}

    def train(self, recipe: Recipe) -> LegoNN:
        """Equation 9, AdamW, linear warm-up and decay."""
        torch.manual_seed(recipe.seed)
        chain = LegoNN.from_config(self.description(recipe)).train()
        optimizer = torch.optim.AdamW(chain.parameters(), lr=self.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        warm = recipe.steps // 8
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda s: min((s + 1) / warm, max(recipe.steps - s, 1) / (recipe.steps - warm))
        )
        data = self.language.pairs(self.batch * recipe.steps, seed=recipe.seed)
        source, target = (chain.vocabs[n].ids for n in ("src", "tgt"))
        for step in range(recipe.steps):
            batch = data[step * self.batch : (step + 1) * self.batch]
            x, lengths = padded([[source[w] for w in s] for s, _ in batch], 0)
            labels = Labels(*padded([[target[w] for w in t] for _, t in batch], -1))
            parts = chain.losses(x, lengths, dict.fromkeys(chain.names, labels))
            loss = sum(p.total / p.tokens.clamp(min=1) for p in parts.values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(chain.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return chain.eval()

    def score(self, chain: LegoNN) -> float:
        """Percent of unseen sentences that are right from the first to the last word."""
        inputs = [" ".join(source) for source, _ in self.test]
        options = {"beam_size": 2} if len(chain) > 1 else {}
        texts = chain(inputs, **options)
        return 100 * sum(text == " ".join(t) for text, (_, t) in zip(texts, self.test)) / len(texts)


def padded(rows: list[list[int]], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(r) for r in rows])
    ids = torch.full((len(rows), int(lengths.max())), value)
    for row, out in zip(rows, ids):
        out[: len(row)] = torch.tensor(row)
    return ids, lengths
