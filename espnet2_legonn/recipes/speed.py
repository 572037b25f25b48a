"""How fast decoding was: seconds for a second of audio (the real-time factor), utterances a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.scoring.tables import write_atomic

FILE, LOG = "speed.json", "calculate_rtf.log"  # of a job; of all jobs, named as by asr.sh


def write_speed(folder: Path, utterances: int, seconds: float, audio: float) -> str:
    """Keep the speed of one job in its output folder; what there is to say of it is returned.

    Args:
        seconds: that decoding took, without loading; audio: seconds that were decoded, 0 for texts.
    """
    figures = {"utterances": utterances, "seconds": seconds, "audio": audio}
    write_atomic(folder / FILE, json.dumps(figures) + "\n")
    return _said(figures)


def gather_speed(parts: Sequence[Path], logs: Path) -> str:
    """The same of all jobs together, in ``calculate_rtf.log``; nothing where no job told."""
    found = [json.loads((part / FILE).read_text(encoding="utf-8")) for part in parts if (part / FILE).is_file()]
    if not found:
        return ""
    said = _said({key: sum(figures[key] for figures in found) for key in found[0]})
    write_atomic(logs / LOG, said + "\n")
    return said


def _said(figures: dict[str, float]) -> str:
    number, seconds, sound = figures["utterances"], max(figures["seconds"], 1e-9), figures["audio"]
    words = f"{number} utterances in {seconds:.1f} s ({number / seconds:.1f} a second and job)"
    if sound:
        words += f", {sound:.1f} s of audio: real-time factor {seconds / sound:.3f}"
    return f"{words}, latency {1000 * seconds / max(number, 1):.0f} ms an utterance"
