"""What the joint search costs beside the decoder alone: processor time of one batch, random weights.

    python -m benchmarks.search

Setting: that of benchmarks/decode.py (8,000 tokens, 40 slots, exactly 20 tokens out), batch 64, beam 5. Both searches
take turns in one process, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from benchmarks.decode import chain
from espnet2_legonn.search.options import BeamOptions


def cost(sentences: int = 64, rounds: int = 5, weight: float = 0.4) -> tuple[float, float]:
    """Median processor seconds of a batch: the decoder alone, and with CTC of this weight."""
    torch.manual_seed(0)
    model, lengths = chain(), torch.full((sentences,), 20)
    source = torch.randint(2, 7999, (sentences, 20))
    seconds: dict[float, list[float]] = {0.0: [], weight: []}
    for _ in range(rounds):
        for w, times in seconds.items():
            start = time.process_time()
            options = BeamOptions(5, maxlenratio=-20, minlenratio=-20, ctc_weight=w)
            model.decode_encoded(*model.encode(source, lengths), options)
            times.append(time.process_time() - start)
    plain, joint = (statistics.median(times[1:]) for times in seconds.values())  # the first round warms up
    return plain, joint


def main() -> None:
    """Print both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plain, joint = cost(args.sentences, args.rounds)
    print(f"decoder alone {plain:.2f} s, joint {joint:.2f} s, ratio {joint / plain:.3f}")


if __name__ == "__main__":
    main()
