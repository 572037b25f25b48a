"""Tiny chains with random weights, described as plain data that a test may change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN

Data = dict[str, Any]
# A dropout that shows at once when a chain reads in training mode.
BODY = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 16, "dropout": 0.5}


def vocab(words: str, **about: Any) -> Data:
    return {"tokens": ["<blank>", "<unk>", *words.split(), "<sos/eos>"], "unit": "word", **about}


def encoder(name: str, source: str, target: str, ratio: Any = 2, **input: Any) -> Data:
    return {
        "name": name,
        "input": {"type": "tokens", "vocab": source, **input},
        "body": dict(BODY),
        "length_control": {"ratio": ratio, "max_length": 40, "num_blocks": 1},
        "output": {"vocab": target},
    }


def decoder(name: str, source: str, target: str | None = None, **input: Any) -> Data:
    return {
        "name": name,
        "input": {"type": "wemb", "vocab": source, "num_blocks": 1, **input},
        "body": {**BODY, "type": "transformer_decoder"},
        "output": {"vocab": target or source, "label_smoothing": 0.1},
    }


def speech(name: str = "recognizer", target: str = "mid") -> Data:
    return {
        "name": name,
        "input": {"type": "speech", "n_mels": 8, "channels": [2, 3]},
        "body": dict(BODY),
        "length_control": {"ratio": "1/2", "max_length": 40, "num_blocks": 1},
        "output": {"vocab": target},
    }


class Parts:
    """Descriptions of modules and vocabularies, to put together in a test."""

    vocab, encoder, decoder, speech = map(staticmethod, (vocab, encoder, decoder, speech))

    @staticmethod
    def build(data: Data, seed: int = 0) -> LegoNN:
        """Fresh weights, larger than usual so that the answers differ from input to input; evaluation mode."""
        torch.manual_seed(seed)
        chain = LegoNN.from_config(copy.deepcopy(data)).eval()
        with torch.no_grad():
            for parameter in chain.parameters():
                parameter.mul_(1.7)
        return chain

    @staticmethod
    def change(data: Data, place: str, value: Any) -> Data:
        """A copy with one value set; ``place`` is like ``modules.0.body.size``."""
        data = copy.deepcopy(data)
        *path, last = [int(p) if p.isdigit() else p for p in place.split(".")]
        inner: Any = data
        for key in path:
            inner = inner[key]
        inner[last] = value
        return data


@pytest.fixture
def parts() -> type[Parts]:
    return Parts


@pytest.fixture
def data() -> Data:
    """Source words -> middle words -> target words -> text: three modules, an ingestor of each kind."""
    middle = encoder("middle", "mid", "tgt", "1/1.5", type="beam_conv", k=3, embed_size=4, num_blocks=1)
    return {
        "vocabs": {
            "src": vocab("a b c d", language="xx"),
            "mid": vocab("p q r s t", language="yy"),
            "tgt": vocab("x y z", language="yy"),
        },
        "modules": [encoder("first", "src", "mid"), middle, decoder("decoder", "tgt")],
    }


@pytest.fixture
def chain(data: Data) -> LegoNN:
    return Parts.build(data)


@pytest.fixture
def build() -> Callable[..., LegoNN]:
    return Parts.build
