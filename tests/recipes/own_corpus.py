"""A corpus of one's own with 50 invented utterances: words as tones, or a word-by-word translation."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

WORDS = {"red": "rot", "fish": "fisch", "dog": "hund", "runs": "läuft", "sees": "sieht", "two": "zwei", "old": "alt"}
SIZES = {"train": 50, "valid": 10, "test": 10}
FS = 16000


def _sentences(name: str) -> list[list[str]]:
    """No word twice: 3 to 6 of them."""
    rng = random.Random(name)
    return [rng.sample(list(WORDS), rng.randint(3, 6)) for _ in range(SIZES[name])]


def write_text(folder: Path) -> Path:
    """train.tsv, valid.tsv, test.tsv with German and English; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        rows = [
            f"{name}{n:02d}\t{' '.join(WORDS[w] for w in words)}\t{' '.join(words)}\n"
            for n, words in enumerate(_sentences(name))
        ]
        (folder / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
    return folder


def write_speech(folder: Path) -> Path:
    """The same with audio: each word is two tones; the folder."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1)
    steps = np.arange(int(0.24 * FS)) / FS
    for name in SIZES:
        rows = []
        for n, words in enumerate(_sentences(name)):
            parts = []
            for number in (list(WORDS).index(word) for word in words):
                parts += [0.3 * np.sin(2 * np.pi * (300 + 350 * number + 120 * k) * steps[: len(steps) // 2])
                          for k in range(2)]  # fmt: skip
                parts.append(np.zeros(FS // 20))
            wave = np.concatenate(parts)
            wave += 0.01 * noise.standard_normal(len(wave))
            soundfile.write(folder / f"{name}{n:02d}.wav", wave, FS)
            rows.append(f"{name}{n:02d}\t{name}{n:02d}.wav\t{' '.join(words)}\tspk{n % 5}\n")
        (folder / f"{name}.tsv").write_text("".join(rows), encoding="utf-8")
    return folder
