"""Tiny speech chains and files for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.zoo.toys import BODY, pair

FS = 16000


def speech_pair(**reader: Any) -> dict[str, Any]:
    """A speech encoder and a decoder that reads it."""
    data = pair(**reader)
    encoder = {
        "name": "recognizer",
        "input": {"type": "speech", "n_mels": 8, "channels": [2, 3]},
        "body": dict(BODY),
        "length_control": {"ratio": "1/2", "max_length": 40, "num_blocks": 1},
        "output": {"vocab": "tgt"},
    }
    return {"vocabs": {"tgt": data["vocabs"]["tgt"]}, "modules": [encoder, data["modules"][1]]}


def tone(seconds: float = 0.3, seed: int = 0, fs: int = FS) -> np.ndarray:
    """A tone that sweeps upwards, of its own for each seed; the same sound at any rate."""
    time = np.arange(round(seconds * fs)) / fs
    return (0.4 * np.sin(2 * np.pi * (300 + 150 * seed + 400 * time) * time)).astype(np.float32)


def write(path: Path, samples: np.ndarray, fs: int = FS) -> Path:
    """An audio file, in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, fs)
    return path
