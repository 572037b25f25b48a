"""The packs that ship with the repository, and the demo's own sentences and voices to try them with."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKS = ROOT / "packs"
sys.path.insert(0, str(ROOT / "egs2" / "mini_legonn" / "legonn1" / "local"))

SIZES = {"de_en": 8000, "ro_en": 700, "asr": 1000, "ted": 1000, "valid": 200, "test": 1000}


def pairs_of(language: str) -> list[tuple[str, str]]:
    """Source and English of the demo's test set, as ``make demo`` writes it."""
    from mini import corpus

    triples = corpus.write_sets(SIZES, 0)[f"test_{language}_en"]
    return [(getattr(t, language), t.en) for t in triples]


def speak(folder: Path, number: int = 1000) -> tuple[list[Path], list[str]]:
    """Files and texts of the demo's English test speech."""
    from mini import corpus, dirs, speech

    texts = [t.en for t in corpus.write_sets(SIZES, 0)["test_asr"]][:number]
    lexicon = dirs.read_lexicon(ROOT / "egs2/mini_legonn/legonn1/local/lexicon.txt")
    dirs.write_speech(folder, speech.plan("test_asr", texts, 0), lexicon, 1)
    rows = dict(line.split(maxsplit=1) for line in (folder / "wav.scp").read_text().splitlines())
    said = dict(line.split(" ", 1) for line in (folder / "text").read_text().splitlines())
    return [Path(rows[k]) for k in rows], [said[k] for k in rows]
