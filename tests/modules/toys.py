"""Tiny modules and chains, and batches with garbage behind each item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from espnet2_legonn.model.chain import Chain, Labels
from espnet2_legonn.model.transformer import BodyConfig
from tests.modules import reference as ref

D, HEADS, UNITS = 8, 2, 12
SRC, PHN, BPE = 9, 6, 7  # vocabulary sizes


def tokens(size: int, letter: str) -> list[str]:
    return ["<blank>", "<unk>", *(f"{letter}{i}" for i in range(size - 3)), "<sos/eos>"]


VOCABS = {
    "src": {"unit": "word", "tokens": tokens(SRC, "s")},
    "phn": {"unit": "phn", "tokens": tokens(PHN, "p")},
    "bpe": {"unit": "word", "tokens": tokens(BPE, "b")},
}


def sizes(num_blocks: int = 2, dropout: float = 0.0) -> BodyConfig:
    return BodyConfig(num_blocks, D, HEADS, UNITS, dropout, dropout, dropout)


def body(num_blocks: int = 1, decodes: bool = False, dropout: float = 0.0) -> dict[str, Any]:
    kind = "transformer_decoder" if decodes else "transformer"
    return {
        "type": kind,
        "num_blocks": num_blocks,
        "size": D,
        "heads": HEADS,
        "linear_units": UNITS,
        "dropout": dropout,
    }


def encoder(
    name: str, source: dict[str, Any], vocab: str, ratio: str | None = None, **more: Any
) -> dict[str, Any]:
    """A description; ``dropout`` and ``ctc_weight`` go where they belong."""
    dropout, weight = more.pop("dropout", 0.0), more.pop("ctc_weight", 1.0)
    module = {
        "name": name,
        "input": source,
        "body": body(dropout=dropout),
        "output": {"vocab": vocab, "ctc_weight": weight},
        **more,
    }
    if ratio is not None:
        module["length_control"] = {"ratio": ratio, "max_length": 20, "num_blocks": 1}
    return module


def decoder(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    dropout, smoothing = more.pop("dropout", 0.0), more.pop("label_smoothing", 0.0)
    output = {"vocab": "bpe", "label_smoothing": smoothing, "tie": more.pop("tie", True)}
    return {"name": "decoder", "input": source, "body": body(2, True, dropout), "output": output, **more}


def wemb(vocab: str, **more: Any) -> dict[str, Any]:
    return {"type": "wemb", "vocab": vocab, "num_blocks": 1, **more}


def beam_conv(vocab: str, **more: Any) -> dict[str, Any]:
    return {"type": "beam_conv", "vocab": vocab, "num_blocks": 1, "k": 3, "embed_size": 4, **more}


TEXT = {"type": "tokens", "vocab": "src"}
HYBRID = {"type": "states", "ctc": {"vocab": "bpe", "weight": 0.3}}  # states, and an auxiliary CTC
SPEECH = {"type": "speech", "n_mels": 10, "channels": [2, 3]}


def two(
    source: dict[str, Any], encoder_more: dict[str, Any] | None = None, **decoder_more: Any
) -> list[dict[str, Any]]:
    """Text encoder and a decoder that reads it with ``source``."""
    return [encoder("enc", TEXT, "bpe", "2", **(encoder_more or {})), decoder(source, **decoder_more)]


def three(
    middle: dict[str, Any] | None = None, last: dict[str, Any] | None = None, **more: Any
) -> list[dict[str, Any]]:
    """Text -> P(phn) -> P(bpe) -> text."""
    return [
        encoder("first", TEXT, "phn", "2", **more),
        encoder("second", middle or wemb("phn"), "bpe", "1/1.2", **more),
        decoder(last or wemb("bpe", receptive_field=3)),
    ]


def chain(modules: list[dict[str, Any]], seed: int = 0, sharp: float = 1.0) -> Chain:
    """Random weights, also where the constructors put zeros and ones; ``sharp`` multiplies the CTC logits."""
    torch.manual_seed(seed)
    sides = [side for m in modules for side in (m["input"], m["output"], m["output"].get("ctc", {}))]
    used = {side.get("vocab") for side in sides}
    built = Chain.from_config({"vocabs": {n: v for n, v in VOCABS.items() if n in used}, "modules": modules})
    scramble(built)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "ctc_lo" in name:
                parameter.mul_(sharp)
    return built


def scramble(module: nn.Module) -> nn.Module:
    """Biases and norms away from 0 and 1, so that forgetting one shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def doubled(module: nn.Module) -> nn.Module:
    """In float64; the positions follow."""
    return module.double()


def weights(module: nn.Module) -> ref.Weights:
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def random_log_probs(batch: int, slots: int, size: int, seed: int = 0, sharp: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(batch, slots, size, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


def padded(items: Sequence[Any], fill: float = -1, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Items (T_i, ...) with ``fill`` behind each, ``extra`` more than the longest needs."""
    items = [torch.as_tensor(np.asarray(item) if isinstance(item, list) else item) for item in items]
    lengths = torch.tensor([len(item) for item in items])
    size = int(lengths.max()) + extra
    batch = items[0].new_full((len(items), size, *items[0].shape[1:]), fill)
    for row, item in zip(batch, items):
        row[: len(item)] = item
    return batch, lengths


def labels(*items: list[int], extra: int = 0) -> Labels:
    return Labels(*padded(list(items), -1, extra))


def gap(
    run: Callable[[torch.Tensor, torch.Tensor], Any],
    items: Sequence[torch.Tensor],
    fill: float,
    extra: int = 3,
) -> float:
    """Largest difference between an item alone and in a padded batch with ``fill`` behind it; inf for NaN.

    ``run`` returns (B, T, ...) and (B,) lengths.
    """
    with torch.no_grad():
        together, lengths = run(*padded(items, fill, extra))
        worst = 0.0
        for i, item in enumerate(items):
            alone, length = run(item.unsqueeze(0), torch.tensor([len(item)]))
            if int(length[0]) != int(lengths[i]):
                return float("inf")
            difference = (alone[0, : length[0]] - together[i, : lengths[i]]).abs().max().item()
            worst = max(worst, difference if difference == difference else float("inf"))
    return worst
