"""Tiny pairs of modules as plain data."""

from __future__ import annotations

import copy
from typing import Any

import torch

from espnet2_legonn import LegoNN

BODY = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 16, "dropout": 0.1}


def vocab(words: str, **about: Any) -> dict[str, Any]:
    return {"tokens": ["<blank>", "<unk>", *words.split(), "<sos/eos>"], "unit": "word", **about}


def pair(target: str = "a b c d", **reader: Any) -> dict[str, Any]:
    """A text encoder with two slots a token, and a decoder that reads it."""
    encoder = {
        "name": "encoder",
        "input": {"type": "tokens", "vocab": "src"},
        "body": dict(BODY),
        "length_control": {"ratio": 2, "max_length": 40, "num_blocks": 1},
        "output": {"vocab": "tgt"},
    }
    decoder = {
        "name": "decoder",
        "input": {"type": "wemb", "vocab": "tgt", "num_blocks": 1, **reader},
        "body": {**BODY, "type": "transformer_decoder"},
        "output": {"vocab": "tgt"},
    }
    return {"vocabs": {"src": vocab("k l m n"), "tgt": vocab(target)}, "modules": [encoder, decoder]}


def change(data: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with one value set; ``place`` is like ``modules.0.body.size``."""
    data = copy.deepcopy(data)
    *path, last = [int(p) if p.isdigit() else p for p in place.split(".")]
    inner: Any = data
    for key in path:
        inner = inner[key]
    inner[last] = value
    return data


def build(data: dict[str, Any], seed: int = 0) -> LegoNN:
    """Fresh weights, larger than usual so that the answers differ from input to input; evaluation mode."""
    torch.manual_seed(seed)
    chain = LegoNN.from_config(copy.deepcopy(data)).eval()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.mul_(1.7)
    return chain
