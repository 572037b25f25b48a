"""Sentences a second of an exported chain beside PyTorch, the small chain of systems.py, the ways taking turns.

    python -m benchmarks.decode_onnx --size 1

Times are those of one thread's processor, medians over the rounds: other programs on the machine hardly count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.systems import BEAM, LENGTH, SMALL, translation
from espnet2_legonn.export.runner import Runner
from espnet2_legonn.export.write import write
from espnet2_legonn.search.options import BeamOptions


def main() -> None:
    """Print a table of ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1, help="sentences together")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, options = translation(SMALL), BeamOptions(BEAM, maxlenratio=-LENGTH, minlenratio=-LENGTH)
    with tempfile.TemporaryDirectory() as room:
        ways: dict[str, Callable] = {"PyTorch float32": model.answer, "PyTorch int8": model.converted("int8").answer}
        for dtype in ("float32", "int8"):
            ways[f"export {dtype}"] = Runner(write(model, Path(room) / dtype, dtype), 1).answers
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.rounds + 1):
            source = torch.randint(2, SMALL.end, (args.size, LENGTH)).tolist()
            for name, answer in ways.items():
                start = time.process_time()
                answer(source, options)
                spent[name] += [time.process_time() - start] if turn else []  # the first warms up
    first = statistics.median(spent["PyTorch float32"])
    print(f"| {args.size} together | sentences/s | times PyTorch float32 |\n|---|---|---|")
    for name, times in spent.items():
        print(f"| {name} | {args.size / statistics.median(times):.1f} | {first / statistics.median(times):.2f} |")


if __name__ == "__main__":
    main()
