"""What every input adds to the positions, at the sizes that are used: the rms of the content of fresh modules.

Positions have an rms of 0.71 (sine and cosine). Content much smaller is not seen beside them until training has made it
larger; content much larger hides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.model.parts.beam_conv import BeamConvolution
from espnet2_legonn.model.parts.ingestor import Ingestor
from espnet2_legonn.model.parts.speech import SpeechConfig, SpeechInput
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.parts.wemb import WeightedEmbedding
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig

FS, VOCAB, BATCH, SLOTS = 16000, 300, 4, 40
# Width, speech (filters, channels), BeamConv (k, width of its embedding): toy, demo, the paper's widths with the values
# that the recipes use there.
SIZES: dict[str, tuple[int, int, tuple[int, int], tuple[int, int]]] = {
    "toy": (48, 40, (8, 16), (4, 24)),
    "demo": (64, 40, (8, 16), (8, 24)),
    "512": (512, 80, (64, 128), (200, 300)),
    "1024": (1024, 80, (64, 128), (10, 100)),
}


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def positions(module: SinusoidalPositions, x: torch.Tensor) -> torch.Tensor:
    """What was added to x."""
    return module(torch.zeros_like(x), x.dtype)


def blocks(size: int, number: int = 0) -> BodyConfig:
    return BodyConfig(number, size, 4, 4, 0.0, 0.0, 0.0)


def sharp_marginals() -> tuple[torch.Tensor, torch.Tensor]:
    """What a trained interface says: (B, K, V), nearly all of a slot on one token."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, SLOTS, VOCAB, generator=generator)
    best = torch.randint(VOCAB, (BATCH, SLOTS, 1), generator=generator)
    return logits.scatter(2, best, 12.0).log_softmax(-1), torch.full((BATCH,), SLOTS)


def voices(seconds: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Something like speech, (2, samples): harmonics below moving formants in syllables of 150 ms, some silent."""
    generator = torch.Generator().manual_seed(0)
    samples, syllable = int(seconds * FS), int(0.15 * FS)
    number = -(-samples // syllable)
    time = torch.arange(samples) / FS
    rows = []
    for pitch in (110.0, 210.0):
        centres = 300 + 3000 * torch.rand(number, 3, generator=generator)
        loudness = (torch.rand(number, generator=generator) > 0.2).float()
        wave = torch.zeros(samples)
        for harmonic in range(1, int(4000 / pitch)):
            near = torch.exp(-(((harmonic * pitch - centres) / 250) ** 2)).sum(1) * loudness
            wave += near.repeat_interleave(syllable)[:samples] * torch.sin(2 * torch.pi * harmonic * pitch * time)
        rows.append(0.1 * wave + 0.003 * torch.randn(samples, generator=generator))
    return torch.stack(rows), torch.full((2,), samples)


def ingested(embed: WeightedEmbedding | BeamConvolution, size: int) -> torch.Tensor:
    """Content of an ingestor's slots: what goes into its blocks without the positions."""
    found: list[torch.Tensor] = []
    ingestor = Ingestor(embed, blocks(size)).eval()
    ingestor.encoder.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    ingestor(*sharp_marginals())
    return found[0] - positions(ingestor.positions, found[0])


def tokens(size: int) -> torch.Tensor:
    module = TokenInput(VOCAB, size).eval()
    x, _ = module(torch.arange(200).view(BATCH, 50), torch.full((BATCH,), 50))
    return x - positions(module.positions, x)


def decoder_tokens(size: int) -> torch.Tensor:
    vocab = Vocabulary(("<blank>", "<unk>", *(f"t{i}" for i in range(VOCAB - 3)), "<sos/eos>"), "word")
    data = {
        "name": "decoder",
        "input": {"type": "states"},
        "body": {"type": "transformer_decoder", "num_blocks": 0, "size": size, "heads": 4, "linear_units": 4},
        "output": {"vocab": "words"},
    }
    config = parse({"vocabs": {"words": {"tokens": list(vocab.tokens), "unit": "word"}}, "modules": [data]})
    module = DecoderModule(config.modules[0], {"words": vocab}).eval()
    x = module._embed(torch.arange(200).view(BATCH, 50))
    return x - positions(module.positions, x)


def speech(size: int, filters: int, channels: tuple[int, int]) -> torch.Tensor:
    """What varies over time: the mean of an utterance tells no step from another."""
    module = SpeechInput(SpeechConfig(fs=FS, n_mels=filters, channels=list(channels)), size).eval()
    x, _ = module(*voices())
    x = x - positions(module.positions, x)
    return x - x.mean(1, keepdim=True)


def queries(size: int) -> torch.Tensor:
    """Queries of the length controller: they hold positions alone, sinusoidal and learned."""
    controller = LengthController(blocks(size), (2, 1), 200)
    found: list[torch.Tensor] = []
    controller.blocks.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0]))
    controller(torch.zeros(1, 50, size), torch.tensor([50]))
    return found[0]


def contents(name: str) -> dict[str, Callable[[], torch.Tensor]]:
    """Every input at one of SIZES."""
    size, filters, channels, (k, embed_size) = SIZES[name]
    small = min(k, 10)  # a receptive field of 3 with the paper's k = 200 takes 0.7 GB

    def beam(field: int, kept: int) -> Callable[[], Any]:
        return lambda: ingested(BeamConvolution(VOCAB, size, field, kept, embed_size), size)

    return {
        "speech": lambda: speech(size, filters, channels),
        "tokens": lambda: tokens(size),
        "WEmb, RF 1": lambda: ingested(WeightedEmbedding(VOCAB, size, 1), size),
        "WEmb, RF 5": lambda: ingested(WeightedEmbedding(VOCAB, size, 5), size),
        "BeamConv, RF 1": beam(1, k),
        "BeamConv, RF 3": beam(3, small),
        "decoder tokens": lambda: decoder_tokens(size),
        "queries": lambda: queries(size),
    }


def measure(name: str, content: str, seed: int = 0) -> float:
    """rms of one input's content with weights of this seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return rms(contents(name)[content]())


def weight_std(module: nn.Module, name: str) -> float:
    """Standard deviation of a fresh weight."""
    return float(module.get_parameter(name).detach().std())
