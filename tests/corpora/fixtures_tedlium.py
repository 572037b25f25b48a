"""TED-LIUM in form, invented in content: `python -m tests.corpora.fixtures_tedlium FOLDER` writes release 2."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile as sf

from tests.corpora.fixtures_sound import babble, sentence

ROOTS = {2: ("TEDLIUM_release2", "."), 3: ("TEDLIUM_release-3", "legacy")}
TALKS = {"train": ("AnnDoe_2009", "BobRoe_2010", "CyPoe_2011U"), "dev": ("DeeLoe_2003",), "test": ("EdMoe_2009",)}
LABELS = {"train": "<o,f0,female>", "dev": "<F0_F>", "test": "<o,f0,unknown>"}
LENGTH = 1.6  # of a segment
GAP = 0.4


def lines_of(
    talk: str, split: str, segments: int, rng: np.random.Generator
) -> tuple[list[str], list[tuple[float, str]]]:
    """Lines of one stm, and what is said from when on."""
    lines, said, time = [], [], 0.5
    for i in range(segments):
        text = sentence(rng, 4)
        # The corpus is tokenised: it 's, don 't.
        words = text.replace("'", " '").split()
        if i % 3 == 0:
            words = [*words[:1], "<sil>", *words[1:-1], f"{words[-1]}(2)", "{NOISE}"]
        start, end = time, time + LENGTH
        name = f" ({talk}-{start:.2f}-{end:.2f}-F0_F-S1)" if split == "train" else ""
        lines.append(f"{talk} 1 {talk} {start:.2f} {end:.2f} {LABELS[split]} {' '.join(words)}{name}")
        said.append((start, text))
        time = end + GAP
        lines.append(f"{talk} 1 inter_segment_gap {end:.2f} {time:.2f} <o,f0,unknown> ignore_time_segment_in_scoring")
    return lines, said


def write(root: Path, release: int = 2, segments: int = 6, seed: int = 0) -> Path:
    """A whole release below `root`; its folder."""
    name, part = ROOTS[release]
    rng = np.random.default_rng(seed)
    for split, talks in TALKS.items():
        folder = root / name / part / split
        for side in ("sph", "stm"):
            (folder / side).mkdir(parents=True, exist_ok=True)
        for talk in talks:
            lines, said = lines_of(talk, split, segments, rng)
            (folder / "stm" / f"{talk}.stm").write_text("".join(f"{line}\n" for line in lines))
            sound = 0.01 * rng.standard_normal(round(16000 * (said[-1][0] + LENGTH + 1)))
            for start, text in said:
                at = round(16000 * start)
                piece = babble(text, LENGTH)
                sound[at : at + len(piece)] += piece
            path = folder / "sph" / f"{talk}.sph"
            sf.write(path, np.clip(sound, -0.9, 0.9), 16000, format="NIST", subtype="PCM_16")
    return root / name


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
