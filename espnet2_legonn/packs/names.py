"""Names of files in packs and experiments, and which weights count. No torch: who only looks waits for nothing."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn.errors import CheckpointError

CONFIG, WEIGHTS = "config.yaml", "weights.safetensors"
CHECKPOINT = "checkpoint.pth"  # where ESPnet's trainer keeps what a broken-off training goes on from
# Weights of the search that were tuned for an experiment; a pack has them in its card.
SEARCH = "search.yaml"
# What an ESPnet experiment offers, best first.
CHECKPOINTS = ("valid.decoded.ave.pth", "train.total_count.ave.pth", "valid.acc.ave.pth", "latest.pth")


def find_weights(folder: Path, model_file: str | Path | None) -> Path:
    """The weights of a saved chain or of an ESPnet experiment.

    Raises:
        CheckpointError: there are none.
    """
    if model_file is not None:
        inside = folder / model_file
        return inside if inside.is_file() else Path(model_file)
    for name in (WEIGHTS, *CHECKPOINTS):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder}: no {WEIGHTS} and none of {', '.join(CHECKPOINTS)}; name the weights with model_file"
    )
