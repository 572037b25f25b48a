"""Losses over large vocabularies piece by piece: the same numbers and gradients, and less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.model import bridge
from espnet2_legonn.model.chain import Chain
from tests.modules import toys

READERS = {
    "wemb": toys.wemb("bpe"),
    "wemb5": toys.wemb("bpe", receptive_field=5),
    "beam_conv": toys.beam_conv("bpe"),
    "collapsed": toys.wemb("bpe", collapse=True),
}
Losses = tuple[dict[str, Any], dict[str, torch.Tensor]]


def chain(reader: str, **more: Any) -> Chain:
    encoder = toys.encoder("enc", toys.TEXT, "bpe", "2", **more)
    return toys.chain([encoder, toys.decoder(READERS[reader], label_smoothing=0.1)], seed=5)


def in_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(bridge, "LARGE", 0)
    monkeypatch.setattr(bridge, "PIECE", piece)


def learned(model: Chain) -> Losses:
    """Sums of every figure, and gradients."""
    model.train().zero_grad()
    ids, lengths = toys.padded([[3, 4, 5, 1], [2], [7, 7, 3], [1, 2, 3, 4, 5, 6]])
    labels = toys.labels([2, 3, 3], [5], [1, 2, 4, 4], [5, 4, 3, 2, 1])
    found = model.losses(ids, lengths, {"enc": labels, "decoder": labels})
    sum(part.total / part.tokens for part in found.values()).backward()
    figures = {name: (part.total, part.tokens, part.stats) for name, part in found.items()}
    return figures, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("piece", [1, 100, 300])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.usefixtures("float64")
def test_pieces_are_the_whole(reader: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain(reader)
    wanted, gradients = learned(model)
    crossed = []
    plain = bridge.cross
    in_pieces(monkeypatch, piece)
    monkeypatch.setattr("espnet2_legonn.model.chain.cross", lambda *a: crossed.append(1) or plain(*a))
    found, others = learned(model)
    assert bool(crossed) == (reader != "collapsed"), "runs of slots are merged over a whole item"
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert gradients.keys() == others.keys()
    torch.testing.assert_close(others, gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_no_gradients_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In validation, and of frozen modules."""
    model = chain("wemb", freeze=True)
    wanted, gradients = learned(model)
    in_pieces(monkeypatch, 1)
    found, others = learned(model)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(others, gradients)
    assert others and not any(name.startswith("mods.enc") for name in others)


@pytest.mark.usefixtures("float64")
def test_a_last_interface_is_crossed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.chain([toys.encoder("enc", toys.TEXT, "bpe", "2")], seed=5)
    wanted, gradients = learned(model)
    in_pieces(monkeypatch, 1)
    found, others = learned(model)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(others, gradients)


def kept(model: Chain, vocab: int) -> int:
    """Bytes that wait for the gradients: tensors that are no weights, each once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, vocab - 1, (8, 10), generator=generator)
    labels = toys.Labels(ids, torch.full((8,), 10))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model.train().losses(ids, labels.lengths, {"encoder": labels, "decoder": labels})
    return sum(seen.values())


def test_memory_does_not_grow_with_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    vocab, sizes = 8000, {"size": 32, "heads": 2, "linear_units": 64}
    tokens = ["<blank>", "<unk>", *(f"t{i}" for i in range(vocab - 3)), "<sos/eos>"]
    encoder = {
        "name": "encoder",
        "input": {"type": "tokens", "vocab": "v"},
        "body": {"num_blocks": 1, **sizes},
        "length_control": {"ratio": 2, "max_length": 40, "num_blocks": 1},
        "output": {"vocab": "v"},
    }
    decoder = {
        "name": "decoder",
        "input": {"type": "wemb", "vocab": "v", "num_blocks": 1},
        "body": {"type": "transformer_decoder", "num_blocks": 1, **sizes},
        "output": {"vocab": "v"},
    }
    vocabs = {"v": {"tokens": tokens, "unit": "word"}}
    model = LegoNN.from_config({"vocabs": vocabs, "modules": [encoder, decoder]})
    whole = kept(model, vocab)
    in_pieces(monkeypatch, 1 << 18)
    assert kept(model, vocab) < whole / 4
