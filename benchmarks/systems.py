"""What is measured: chains with random weights, and a search without any caches as their oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from espnet2_legonn import LegoNN
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.options import BeamOptions

BEAM, LENGTH = 5, 20
# Sources (N, length) of ids, to the tokens of each best hypothesis.
Decode = Callable[[torch.Tensor], list[list[int]]]


@dataclass(frozen=True)
class Size:
    """Width, heads, inner width, blocks of encoder and decoder, and vocabulary."""

    width: int
    heads: int
    units: int
    encoders: int
    decoders: int
    vocab: int

    @property
    def tokens(self) -> list[str]:
        return ["<blank>", "<unk>", *(f"t{i}" for i in range(self.vocab - 3)), "<sos/eos>"]

    @property
    def end(self) -> int:
        return self.vocab - 1

    def body(self, blocks: int, decodes: bool = False) -> dict[str, Any]:
        kind = "transformer_decoder" if decodes else "transformer"
        sizes = {"size": self.width, "heads": self.heads, "linear_units": self.units, "dropout": 0.1}
        return {"type": kind, "num_blocks": blocks, **sizes}

    def chain(self, modules: list[dict[str, Any]]) -> LegoNN:
        vocab = {"tokens": self.tokens, "unit": "word"}
        torch.manual_seed(0)
        return LegoNN.from_config({"vocabs": {"src": vocab, "tgt": vocab}, "modules": modules}).eval()


SMALL = Size(256, 4, 1024, 6, 3, 8000)
PAPER = Size(1024, 16, 4096, 6, 6, 32000)  # Table XIII, but for the encoder's heads and inner width

SOURCE = {"type": "tokens", "vocab": "src"}
# ESPnet's model has the output untied; label smoothing is of the training benchmark.
TEXT = {"vocab": "tgt", "label_smoothing": 0.1, "tie": False}


def baseline(size: Size) -> LegoNN:
    """The ordinary encoder-decoder model."""
    encoder = {"name": "encoder", "input": SOURCE, "body": size.body(size.encoders), "output": {"type": "states"}}
    decoder = {"name": "decoder", "input": {"type": "states"}, "body": size.body(size.decoders, True), "output": TEXT}
    return size.chain([encoder, decoder])


def translation(size: Size, top_k: int | None = None) -> LegoNN:
    """A LegoNN chain of as many encoder blocks, half of them in the length controller: two slots for each token."""
    return _chain(size, SOURCE, 2, top_k)


def speech(size: Size) -> LegoNN:
    """Speech before the same decoder; the length controller makes two slots for each of the 20 tokens in 5 s."""
    return _chain(size, {"type": "speech", "channels": [64, 128]}, "1/3")


def _chain(size: Size, source: dict[str, Any], ratio: int | str, top_k: int | None = None) -> LegoNN:
    half = size.encoders // 2
    encoder = {
        "name": "encoder",
        "input": source,
        "body": size.body(half),
        "length_control": {"ratio": ratio, "max_length": 160, "num_blocks": size.encoders - half},
        "output": {"vocab": "tgt"},
    }
    reads = {"type": "wemb", "vocab": "tgt", "num_blocks": 1, "top_k": top_k}
    decoder = {"name": "decoder", "input": reads, "body": size.body(size.decoders, True), "output": TEXT}
    return size.chain([encoder, decoder])


def sources(number: int, size: Size, seed: int = 1) -> torch.Tensor:
    """(N, LENGTH) ids, the first ``<sos/eos>``, which ESPnet's model puts there itself."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, size.vocab - 1, (number, LENGTH), generator=generator)
    ids[:, 0] = size.end
    return ids


def waves(number: int, seed: int = 1) -> torch.Tensor:
    """(N, 5 s) of noise at 16 kHz."""
    return 0.1 * torch.randn(number, 5 * 16000, generator=torch.Generator().manual_seed(seed))


def ours(chain: LegoNN, dtype: str = "float32", ctc_weight: float = 0.0) -> Decode:
    """Our search for exactly LENGTH tokens."""
    model = chain.converted(dtype)
    options = BeamOptions(BEAM, maxlenratio=-LENGTH, minlenratio=-LENGTH, ctc_weight=ctc_weight)

    def decode(x: torch.Tensor) -> list[list[int]]:
        lengths = torch.full((len(x),), x.shape[1])
        return [found[0].ids for found in model.decode_encoded(*model.encode(x, lengths), options)]

    return decode


def exported(chain: LegoNN, dtype: str, folder: Path) -> Decode:
    """The export of a chain, run by onnxruntime on one thread."""
    from espnet2_legonn.export.runner import Runner
    from espnet2_legonn.export.write import write

    runner = Runner(write(chain, folder, dtype), 1)
    options = BeamOptions(BEAM, maxlenratio=-LENGTH, minlenratio=-LENGTH)
    return lambda x: [answer.best.ids for answer in runner.answers(x.tolist(), options)]


@torch.inference_mode()
def plain_search(chain: LegoNN, x: torch.Tensor) -> list[list[int]]:
    """The oracle: a beam search that computes every prefix anew and sorts every vocabulary."""
    decoder = chain.last
    assert isinstance(decoder, DecoderModule)
    _, memory, lengths = chain.encode(x, torch.full((len(x),), x.shape[1]))
    number, end = len(x), decoder.sos_eos
    memory, lengths = memory.repeat_interleave(BEAM, 0), lengths.repeat_interleave(BEAM)
    prefixes = torch.zeros(number * BEAM, 0, dtype=torch.long)
    scores = torch.full((number, BEAM), -torch.inf)
    scores[:, 0] = 0.0
    for n in range(LENGTH):
        logits, _ = decoder(memory, lengths, prefixes, torch.full((len(prefixes),), n))
        log_probs = logits[:, -1].float().log_softmax(-1).view(number, BEAM, -1)
        log_probs[..., [0, end]] = -torch.inf
        scores, best = (scores.unsqueeze(-1) + log_probs).flatten(1).topk(BEAM)
        rows = (best // log_probs.shape[-1] + BEAM * torch.arange(number).unsqueeze(1)).flatten()
        tokens = (best % log_probs.shape[-1]).view(-1, 1)
        prefixes = torch.cat([prefixes[rows], tokens], 1)
    ends = decoder(memory, lengths, prefixes, torch.full((len(prefixes),), LENGTH))[0][:, -1]
    scores = scores + F.log_softmax(ends.float(), -1)[:, end].view(number, BEAM)
    return [prefixes[BEAM * i + int(best)].tolist() for i, best in enumerate(scores.argmax(1))]
