"""Europarl-ST v1.1 in form, invented in content: `python -m tests.corpora.fixtures_europarl_st FOLDER`.

English speech with two targets. The pair with French cuts some sentences in two and has a speech of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.corpora.fixtures_sound import babble, sentence, write_m4a

# split -> (speech, speaker); both pairs have the first two of train, French alone has the last.
SPEECHES = {
    "train": (
        ("en.20090101.31.3-243", "MEP_4711"),
        ("en.20090101.31.3-245", "MEP_812"),
        ("en.20090203.4-007", "MEP_99"),
    ),
    "dev": (("en.20100304.2-010", "MEP_1200"),),
    "test": (("en.20110405.17-101", "MEP_1300"),),
}
ONLY_FRENCH = "en.20090203.4-007"
LENGTH = 1.537  # of a sentence; no multiple of 10 ms


def sentences(rng: np.random.Generator, number: int) -> list[str]:
    """Cased and punctuated."""
    return [f"{text[0].upper()}{text[1:]}, {sentence(rng, 2)}." for text in (sentence(rng, 3) for _ in range(number))]


def write_part(
    folder: Path, tgt: str, rows: dict[str, list[tuple[float, float, str]]], speakers: dict[str, str]
) -> None:
    """The files of one split of one pair."""
    folder.mkdir(parents=True)
    flat = [(speech, *row) for speech, own in rows.items() for row in own]
    files = {
        "speeches.lst": list(rows),
        "speakers.lst": [speakers[speech] for speech in rows],
        "speeches.en": [" ".join(text for _, _, text in own) for own in rows.values()],
        f"speeches.{tgt}": ["..." for _ in rows],
        "segments.lst": [f"{speech} {start:g} {end:g}" for speech, start, end, _ in flat],
        "segments.en": [text for *_, text in flat],
        f"segments.{tgt}": [f"[{tgt}] {text}" for *_, text in flat],
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write(root: Path, per_speech: int = 6, seed: int = 0) -> Path:
    """The corpus below `root`; its folder v1.1."""
    rng = np.random.default_rng(seed)
    top = root / "v1.1" / "en"
    (top / "audios").mkdir(parents=True)
    for split, speeches in SPEECHES.items():
        german: dict[str, list[tuple[float, float, str]]] = {}
        french: dict[str, list[tuple[float, float, str]]] = {}
        for speech, _ in speeches:
            texts = sentences(rng, per_speech)
            rows = [(round(i * LENGTH, 3), round((i + 1) * LENGTH, 3), text) for i, text in enumerate(texts)]
            write_m4a(top / "audios" / f"{speech}.m4a", np.concatenate([babble(t, LENGTH) for t in texts]))
            first, second = texts[0].split(", ")
            middle = round(LENGTH / 2, 3)
            french[speech] = [(0.0, middle, f"{first},"), (middle, rows[0][1], second), *rows[1:]]
            if speech != ONLY_FRENCH:
                german[speech] = rows
        write_part(top / "de" / split, "de", german, dict(speeches))
        write_part(top / "fr" / split, "fr", french, dict(speeches))
    (root / "v1.1" / "LICENSE").write_text("CC BY-NC 4.0 (here: an invention)\n")
    return root / "v1.1"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
