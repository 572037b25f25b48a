"""Small data directories and sounds, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

Write = Callable[[str, Mapping[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("train", {"text": "a x\\n", ...}) -> path of the directory with these files, byte for byte."""

    def make(name: str, files: Mapping[str, str]) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content.encode("utf-8", errors="surrogateescape"))
        return folder

    return make


@pytest.fixture
def tone(tmp_path: Path) -> Callable[..., Path]:
    """tone("a.wav", seconds, fs, hz) -> path of a 16-bit sine; channels: 1 or more, each a tenth weaker."""

    def make(name: str, seconds: float = 1.0, fs: int = 16000, hz: float = 440.0, channels: int = 1) -> Path:
        wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * fs)) / fs)
        path = tmp_path / name
        sf.write(path, np.stack([wave * (1 - 0.1 * c) for c in range(channels)], axis=1), fs)
        return path

    return make


@pytest.fixture
def good() -> dict[str, str]:
    """Files of a valid directory: two speakers, three utterances in two recordings."""
    return {
        "wav.scp": "r1 r1.wav\nr2 r2.wav\n",
        "segments": "a-1 r1 0.0 0.4\na-2 r1 0.4 1.0\nb-1 r2 0 -1\n",
        "text": "a-1 the cat\na-2 sat\nb-1 on a mat\n",
        "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
        "spk2utt": "a a-1 a-2\nb b-1\n",
        "spk2gender": "a m\nb f\n",
    }
