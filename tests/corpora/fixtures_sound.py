"""Sounds for invented corpora: each word a tone of its own in noise, so that something can be heard and learned."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

WORDS = (
    "we have planted two trees in the garden last year and they grow it's fine don't you think so the rapporteur thanks"
    " madam president for this report on water fish and trade our committee will vote tomorrow about green roads"
).split()


def sentence(rng: np.random.Generator, words: int) -> str:
    """Words in any order."""
    return " ".join(str(w) for w in rng.choice(WORDS, words))


def babble(text: str, seconds: float, fs: int = 16000, seed: int = 0) -> np.ndarray:
    """float32 samples: the words of a text as tones, over faint noise."""
    rng = np.random.default_rng(seed)
    samples = 0.01 * rng.standard_normal(round(seconds * fs))
    words = text.split() or ["-"]
    step = len(samples) // len(words)
    for i, word in enumerate(words):
        hz = 200 + zlib.crc32(word.encode()) % 2000
        piece = np.arange(step) / fs
        samples[i * step : (i + 1) * step] += 0.3 * np.sin(2 * np.pi * hz * piece) * np.hanning(step)
    return samples.astype(np.float32)


def write_m4a(path: Path, samples: np.ndarray, fs: int = 16000) -> None:
    """AAC in MP4, as Europarl-ST has it (PyAV)."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=fs)
        stream.layout = "mono"
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate = fs
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
