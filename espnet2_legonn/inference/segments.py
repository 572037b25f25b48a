"""Long recordings in parts of a length that a model has heard: speech by Silero's detector, or by energy."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet2_legonn.data.audio import change_rate
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.module import produced

DETECTORS = ("auto", "silero", "energy", "none")
# Seconds of a part where the model does not say what it heard in training, and the least and most in any case.
USUAL, LEAST, MOST = 20.0, 4.0, 30.0
SHORTEST = 0.5  # seconds of a part that can be asked for
# Seconds: a part does not go on beyond such a silence; what is kept before and after speech; a frame of energy.
SILENCE, MARGIN, FRAME = 2.0, 0.1, 0.02
# Of the range of energy in dB, from the quiet to the loud tenth: speech is above.
SPEECH_SHARE = 0.35
_RATE = 16000  # Hz, Silero's

Span = tuple[float, float]


def longest_part(chain: LegoNN) -> float:
    """Seconds of the longest sound that a chain heard in training, as its first interface recalls it."""
    seen, second = produced(chain.first), chain.first.input.step_seconds
    if seen is None or not seen.longest or second is None:
        return USUAL
    control = getattr(chain.first, "length_control", None)
    steps = seen.longest if control is None else seen.longest * control.ratio[1] / control.ratio[0]
    return float(np.clip(steps * second, LEAST, MOST))


def segments(wave: np.ndarray, rate: int, longest: float, detector: str = "auto") -> list[Span]:
    """Where the parts of a recording begin and end, in seconds; what is short enough stays whole.

    Args:
        wave: (samples,) at ``rate`` Hz.
        longest: seconds of a part.
        detector: of speech: ``silero``, ``energy``, ``auto`` (Silero's if its package is there), ``none``.

    Raises:
        ConfigError: no such detector, or it is not installed; parts that are too short to hold anything.
    """
    if not longest >= SHORTEST:
        raise ConfigError(f"longest: {longest} s; give at least {SHORTEST} s")
    if detector not in DETECTORS:
        raise ConfigError(f"vad: {detector!r} is not one of {', '.join(DETECTORS)}")
    there = importlib.util.find_spec("silero_vad") is not None
    if detector == "silero" and not there:
        raise ConfigError("vad: silero is not installed: pip install 'espnet2_legonn[vad]', or take energy")
    whole = len(wave) / rate
    if detector == "none" or whole <= longest:
        return [(0.0, whole)]
    found = _by_silero(wave, rate, longest) if there and detector != "energy" else _by_energy(wave, rate, longest)
    return joined(found, longest)


def joined(spans: Sequence[Span], longest: float) -> list[Span]:
    """Neighbours as one part where it is not too long and no long silence lies between them."""
    parts: list[Span] = []
    for start, end in spans:
        if parts and end - parts[-1][0] <= longest and start - parts[-1][1] <= SILENCE:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    return parts


@functools.lru_cache(maxsize=1)
def _silero() -> Any:
    """The model, once for all recordings; it begins each anew."""
    from silero_vad import load_silero_vad

    return load_silero_vad()


def _by_silero(wave: np.ndarray, rate: int, longest: float) -> list[Span]:
    """Speech as Silero's model hears it, which comes with its package; cut at silences where it goes on for long."""
    import torch
    from silero_vad import get_speech_timestamps

    heard = torch.from_numpy(change_rate(wave, rate, _RATE))
    found = get_speech_timestamps(
        heard, _silero(), sampling_rate=_RATE, max_speech_duration_s=longest, speech_pad_ms=round(1000 * MARGIN)
    )
    return [(span["start"] / _RATE, span["end"] / _RATE) for span in found]


def _by_energy(wave: np.ndarray, rate: int, longest: float) -> list[Span]:
    """What is louder than most of the recording's quiet; long speech is cut where it is quietest."""
    frame = max(1, round(FRAME * rate))
    second = frame / rate
    power = np.square(wave[: len(wave) // frame * frame].reshape(-1, frame).astype(np.float64)).mean(1)
    level = 10 * np.log10(np.convolve(power, np.full(5, 0.2), "same") + 1e-10)  # of 0.1 s
    quiet, loud = np.quantile(level, (0.1, 0.9))
    speech = np.flatnonzero(level > quiet + SPEECH_SHARE * (loud - quiet))
    spans: list[Span] = []
    for run in np.split(speech, np.flatnonzero(np.diff(speech) > 2 * MARGIN / second) + 1) if len(speech) else []:
        begin, stop, most = int(run[0]), int(run[-1]) + 1, int((longest - 2 * MARGIN) / second)
        while stop - begin > most:
            cut = begin + most // 2 + int(level[begin + most // 2 : begin + most].argmin())
            spans.append((begin * second, cut * second))
            begin = cut
        spans.append((begin * second, stop * second))
    whole = len(wave) / rate
    ends = [0.0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans[1:]), whole]
    return [
        (max(start - MARGIN, before), min(end + MARGIN, after))
        for (start, end), before, after in zip(spans, ends, starts)
    ]
