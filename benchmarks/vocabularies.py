"""Memory and time of a training step over the size of the vocabulary, whole and in pieces (model/bridge.py).

    python -m benchmarks.vocabularies      writes benchmarks/vocabularies.json and docs/images/vocabularies.svg

Each figure is of a process of its own: 32 texts of 20 tokens through a LegoNN chain of width 256.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

SIZES = (2000, 8000, 32000, 64000)
RESULTS = Path(__file__).resolve().parent / "vocabularies.json"
PICTURE = RESULTS.parents[1] / "docs" / "images" / "vocabularies.svg"


def step(vocab: int, pieces: bool) -> dict[str, float]:
    """Megabytes that wait for the gradients, megabytes of the process at its largest, seconds of the processor."""
    import torch

    from benchmarks.systems import Size, translation
    from benchmarks.training import _batch
    from espnet2_legonn.model import bridge
    from espnet2_legonn.training.model import LegoNNModel

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bridge.LARGE, bridge.PIECE = (0, 1 << 22) if pieces else (1 << 60, 1 << 60)
    size = Size(256, 4, 1024, 6, 3, vocab)
    model = LegoNNModel(translation(size)).train()
    batch = _batch(size, ("text_encoder", "text_decoder", "src_text"))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch)[0].backward()
    start = time.process_time()
    for _ in range(2):
        model(**batch)[0].backward()
    return {
        "kept": sum(kept.values()) / 2**20,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": (time.process_time() - start) / 2,
    }


def draw(found: list[dict[str, float]]) -> None:
    """Curves of what waits for the gradients."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "legonn"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3))
    for pieces, label in ((False, "whole"), (True, "in pieces")):
        rows = [row for row in found if row["pieces"] == pieces]
        axes.plot([row["vocab"] for row in rows], [row["kept"] for row in rows], "o-", label=label)
    axes.set(xlabel="tokens of the vocabulary", ylabel="MB kept for the gradients", ylim=(0, None))
    axes.legend()
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Measure, write, and draw."""
    if len(sys.argv) == 3:
        print(json.dumps(step(int(sys.argv[1]), sys.argv[2] == "pieces")))
        return
    found = []
    for vocab in SIZES:
        for mode in ("whole", "pieces"):
            command = [sys.executable, "-m", "benchmarks.vocabularies", str(vocab), mode]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            found.append({"vocab": vocab, "pieces": mode == "pieces", **json.loads(done.stdout.splitlines()[-1])})
            print(found[-1], flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    draw(found)


if __name__ == "__main__":
    main()
