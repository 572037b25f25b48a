"""Made-up images of lines of English: every letter has a glyph of its own, which nobody has ever seen.

Writes data/train, data/valid and data/test with img.scp, text and utt2spk, from texts of data directories::

    python draw.py --texts ../../egs2/mini_legonn/legonn1/data --out data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

ROWS, COLUMNS = 8, 6
NOISE = 0.3


def glyph(letter: str) -> np.ndarray:
    """The picture (columns, rows) of a letter, always the same; a space has none."""
    if letter == " ":
        return np.zeros((COLUMNS, ROWS), np.float32)
    return (np.random.default_rng(ord(letter)).random((COLUMNS, ROWS)) > 0.5).astype(np.float32)


def draw(text: str, rng: np.random.Generator) -> np.ndarray:
    """A line of text (columns, rows) with gaps that vary, and noise."""
    parts = [np.zeros((int(rng.integers(1, 4)), ROWS), np.float32)]
    for letter in text:
        parts += [glyph(letter), np.zeros((int(rng.integers(1, 3)), ROWS), np.float32)]
    image = np.concatenate(parts)
    return (image + NOISE * rng.standard_normal(image.shape)).astype(np.float32)


def write(texts: dict[str, str], folder: Path, seed: int) -> None:
    """A data directory of these texts."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"img.scp": [], "text": [], "utt2spk": [], "spk2utt": []}
    for uid, text in sorted(texts.items()):
        path = folder.resolve() / "images" / f"{uid}.npy"
        np.save(path, draw(text, rng))
        for name, value in {"img.scp": path, "text": text, "utt2spk": uid, "spk2utt": uid}.items():
            lines[name].append(f"{uid} {value}\n")
    for name, rows in lines.items():
        (folder / name).write_text("".join(rows), encoding="utf-8")


def read_texts(path: Path, limit: int) -> dict[str, str]:
    """The first lines of a ``text`` file by utterance."""
    rows = path.read_text(encoding="utf-8").splitlines()[:limit]
    return dict(row.split(" ", 1) for row in rows)


def main() -> None:
    """Draw three sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder with train_de_en, valid_de_en, test_ro_en")
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--train", type=int, default=2000, help="lines to learn from")
    args = parser.parse_args()
    sets = {"train": ("train_de_en", args.train), "valid": ("valid_de_en", 200), "test": ("test_ro_en", 200)}
    for seed, (name, (source, limit)) in enumerate(sets.items()):
        write(read_texts(args.texts / source / "text", limit), args.out / name, seed)
        print(f"{args.out / name}: drawn")


if __name__ == "__main__":
    main()
