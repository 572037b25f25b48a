"""Sentences a second of batched beam search, random weights: what a decoder of this size costs on this machine.

    python benchmarks/decode.py --threads 1

Setting: width 256, 4 heads, 3 + 3 encoder blocks, 3 decoder blocks, 8,000 tokens, source 20 tokens, beam 5, exactly 20
tokens out.
"""

from __future__ import annotations

import argparse
import time

import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.search.beam import BeamOptions

TOKENS = ["<blank>", "<unk>", *(f"t{i}" for i in range(7997)), "<sos/eos>"]
SIZES = {"size": 256, "heads": 4, "linear_units": 1024}


def chain() -> LegoNN:
    """A De-En sized chain with random weights."""
    encoder = {
        "name": "encoder",
        "input": {"type": "tokens", "vocab": "src"},
        "body": {"num_blocks": 3, **SIZES},
        "length_control": {"ratio": 2, "max_length": 160, "num_blocks": 3},
        "output": {"vocab": "tgt"},
    }
    decoder = {
        "name": "decoder",
        "input": {"type": "wemb", "vocab": "tgt", "num_blocks": 1},
        "body": {"type": "transformer_decoder", "num_blocks": 3, **SIZES},
        "output": {"vocab": "tgt"},
    }
    vocabs = {name: {"tokens": TOKENS, "unit": "word"} for name in ("src", "tgt")}
    return LegoNN.from_config({"vocabs": vocabs, "modules": [encoder, decoder]}).eval()


def main() -> None:
    """Print a table of batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, options = chain(), BeamOptions(5, maxlenratio=-20, minlenratio=-20)
    source = torch.randint(2, 7999, (args.sentences, 20))
    print("| sentences together | sentences/s | tokens/s |\n|---|---|---|")
    for size in (1, 4, 16, 64):
        parts = [p for p in source.split(size) if len(p) == size][: max(1, 16 // size) if size < 16 else None]
        model.decode_encoded(*model.encode(parts[0], torch.full((size,), 20)), options)  # warm up
        start = time.perf_counter()
        for part in parts:
            model.decode_encoded(*model.encode(part, torch.full((len(part),), 20)), options)
        rate = len(parts) * size / (time.perf_counter() - start)
        print(f"| {size} | {rate:.1f} | {rate * 20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
