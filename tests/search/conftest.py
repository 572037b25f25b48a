"""Tiny decoders with random weights: five tokens, so that every sequence can be listed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.module import DecoderModule

VOCAB = 5


@pytest.fixture
def decoder() -> DecoderModule:
    return make_decoder(1)


@pytest.fixture
def make() -> Callable[..., DecoderModule]:
    return make_decoder


def make_decoder(seed: int, kind: str = "wemb", vocab: int = VOCAB, collapse: bool = False) -> DecoderModule:
    """A decoder module with random weights, sharp enough to have opinions."""
    torch.manual_seed(seed)
    tokens = ["<blank>", "<unk>", *(f"w{i}" for i in range(vocab - 3)), "<sos/eos>"]
    sizes = {"num_blocks": 2, "size": 16, "heads": 2, "linear_units": 32, "dropout": 0.1}
    ingestor = {"type": kind, "vocab": "v", "num_blocks": 1, "collapse": collapse}
    if kind == "beam_conv":
        ingestor |= {"k": 3, "embed_size": 8, "receptive_field": 3}
    module = {
        "name": "decoder",
        "input": ingestor,
        "body": {"type": "transformer_decoder", **sizes},
        "output": {"vocab": "v"},
    }
    chain = Chain.from_config(
        {"vocabs": {"v": {"tokens": tokens, "unit": "word"}}, "modules": [module]}
    ).eval()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.mul_(1.7)
    decoder = chain.last
    assert isinstance(decoder, DecoderModule)
    return decoder


@pytest.fixture
def marginals() -> tuple[torch.Tensor, torch.Tensor]:
    """Five utterances of 2 to 9 slots; what lies beyond their ends is garbage that nobody may read."""
    torch.manual_seed(7)
    lengths = torch.tensor([4, 9, 2, 6, 9])
    log_probs = (2 * torch.randn(len(lengths), 9, VOCAB)).log_softmax(-1)
    for row, length in zip(log_probs, lengths.tolist()):
        row[length:] = 50.0 * torch.randn_like(row[length:])
    return log_probs, lengths
