"""What every part that reads sound has in common: files, waveforms, recordings of visitors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import adapt_audio, check_waveform, read_audio
from espnet2_legonn.model.parts.base import Column, InputPart, Unfit

# Of one input of the page. Attention takes memory by the square of the length.
MAX_SECONDS = 120.0


class WaveInput(InputPart):
    """A part that reads waveforms; its description has ``fs``.

    Attributes:
        fs: sampling rate in Hz.
        longest: most seconds of one item, where the model has a limit of its own.
    """

    kind, data = "speech", Column("wav.scp", "speech", "sound")
    longest: float = float("inf")

    @property
    def fs(self) -> int:
        """Sampling rate in Hz."""
        raise NotImplementedError

    @property
    def step_seconds(self) -> float:
        """Seconds from one step to the next, as ``steps`` counts them."""
        steps = self.steps(torch.tensor([1000, 2000]) * self.fs)
        return 1000 / float(steps[1] - steps[0])

    # -- data of a recipe ------------------------------------------------------------------------------------------

    @classmethod
    def probe(cls, config: Any) -> Callable[[str], float | None]:
        """The rate is the model's, there is one channel, and the file is not cut short."""
        from espnet2_legonn.data.audio import seconds

        return functools.partial(seconds, fs=config.fs)

    def measure(self, value: str) -> float:
        """Seconds."""
        from espnet2_legonn.data.audio import seconds

        return seconds(value) or 0.0

    def fetch(self, value: str, channel: str | None = None) -> np.ndarray:
        """One channel of a file; another rate, or several channels without a choice, are faults of the whole set."""
        from espnet2_legonn.data import audio

        samples, rate = audio.read_audio(value)
        faults = []
        try:
            samples = audio.to_mono(samples, channel)
        except DataError as error:
            faults.append(f"'{value}' {error}")
        if rate != self.fs:
            faults.append(
                f"'{value}' is sampled at {rate} Hz, this model was trained at {self.fs} Hz; "
                "resample it first (stage 3, `format --fs`)"
            )
        if faults:
            raise Unfit(faults)
        return samples

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, item: Any, place: str) -> np.ndarray:
        """A file of the model's rate, or a waveform."""
        return read_audio(item, self.fs) if isinstance(item, (str, Path)) else check_waveform(item, place)

    def accept(self, given: Any, notes: list[str]) -> np.ndarray:
        """A recording of any rate and number of channels; of its file only the name is told, not its place."""
        if not given:
            raise DataError("no recording yet: speak into the microphone or upload a file")
        path = Path(given)
        try:
            recording = adapt_audio(path, self.fs, most_seconds=min(MAX_SECONDS, self.longest))
        except DataError as error:
            raise DataError(fault.replace(str(path), path.name) for fault in error.faults) from None
        if recording.channels > 1:
            notes.append(f"{recording.channels} channels were averaged to one")
        if recording.rate != self.fs:
            notes.append(f"resampled from {recording.rate / 1000:g} kHz to the encoder's {self.fs / 1000:g} kHz")
        if not recording.wave.any():
            notes.append("the recording is silent: is the microphone on?")
        return recording.wave

    @classmethod
    def prepare(cls, value: Any, vocab: Vocabulary | None, where: str) -> np.ndarray:
        """A waveform."""
        return check_waveform(np.asarray(value), where)

    def seconds(self, lengths: torch.Tensor) -> float:
        """Samples over the rate."""
        return float(lengths.sum()) / self.fs
