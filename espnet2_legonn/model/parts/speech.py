"""Speech input: waveform to log-mel features (paper IV-A), and what parts/frames.py makes of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import adapt_audio, check_waveform, read_audio
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS, Column, Unfit
from espnet2_legonn.model.parts.frames import FramesConfig, FramesInput

# Of one input of the page. Attention takes memory by the square of the length.
MAX_SECONDS = 120.0


@dataclass
class SpeechConfig(FramesConfig):
    """Waveform input.

    Args:
        fs: sampling rate in Hz.
        n_mels: filters.
        others: see FramesConfig.
    """

    type: str = "speech"
    fs: int = 16000
    n_mels: int = 80

    @property
    def filters(self) -> int:
        return self.n_mels


class LogMel(nn.Module):
    """Log-mel filter banks, 25 ms windows every 10 ms, no frame reaching beyond the item's own samples.

    Args:
        fs: sampling rate in Hz.
        n_mels: number of filters.
    """

    def __init__(self, fs: int = 16000, n_mels: int = 80) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram  # slow to import, needed for speech alone

        self.window, self.hop = fs * 25 // 1000, fs * 10 // 1000
        self.mel = MelSpectrogram(
            fs,
            n_fft=1 << (self.window - 1).bit_length(),
            win_length=self.window,
            hop_length=self.hop,
            n_mels=n_mels,
            center=False,
            power=None,  # complex: the absolute value of complex numbers costs more than its square
        )

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames of waveforms of these lengths, (B,) -> (B,); too short ones are padded to one frame."""
        return (torch.div(samples - self.mel.n_fft, self.hop, rounding_mode="floor") + 1).clamp(min=1)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples) in -1 ... 1, (B,) -> (B, frames, n_mels), (B,)."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            waveform = zero_padding(waveform, lengths)  # a frame shorter than its window reads zeros
            waveform = F.pad(waveform.float(), (0, max(0, self.mel.n_fft - waveform.shape[1])))
            spectrum = torch.view_as_real(self.mel.spectrogram(waveform))
            features = self.mel.mel_scale(spectrum.square().sum(-1)).clamp(min=1e-10).log().transpose(1, 2)
        return features, self.frames(lengths)


@INPUTS.add("speech")
class SpeechInput(FramesInput):
    """Waveform to model width.

    Args:
        config: its description.
        size: width D.
        dropout: on the sum of steps and positions.
    """

    Config, kind, data = SpeechConfig, "speech", Column("wav.scp", "speech", "sound")

    def __init__(self, config: SpeechConfig, size: int, dropout: float = 0.0) -> None:
        super().__init__(config, size, dropout)
        self.features = LogMel(config.fs, config.n_mels)

    # -- the description -------------------------------------------------------------------------------------------

    @classmethod
    def least_values(cls, config: SpeechConfig, size: int, vocab_size: int) -> int:
        """The filter bank, the convolutions and the projection."""
        return config.n_mels * (config.fs * 25 // 2000) + super().least_values(config, size, vocab_size)

    @classmethod
    def card(cls, config: SpeechConfig) -> dict[str, Any]:
        """How speech is read."""
        return {"fs": config.fs, "n_mels": config.n_mels, "normalize": config.normalize}

    # -- data of a recipe ------------------------------------------------------------------------------------------

    @classmethod
    def total_steps(cls, config: SpeechConfig, total: float, items: int) -> float:
        """A step is four frames of 10 ms."""
        return total / (config.fs * 0.04)

    @classmethod
    def probe(cls, config: SpeechConfig) -> Callable[[str], float | None]:
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

    @property
    def fs(self) -> int:
        """Sampling rate in Hz."""
        return int(self.features.mel.sample_rate)

    def read(self, item: Any, place: str) -> np.ndarray:
        """A file of the model's rate, or a waveform."""
        return read_audio(item, self.fs) if isinstance(item, (str, Path)) else check_waveform(item, place)

    def accept(self, given: Any, notes: list[str]) -> np.ndarray:
        """A recording of any rate and number of channels; of its file only the name is told, not its place."""
        if not given:
            raise DataError("no recording yet: speak into the microphone or upload a file")
        path = Path(given)
        try:
            recording = adapt_audio(path, self.fs, most_seconds=MAX_SECONDS)
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

    # -- training --------------------------------------------------------------------------------------------------

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """Steps T made of waveforms of these lengths."""
        return self.conv.steps(self.features.frames(lengths))

    def statistics(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features."""
        return self.features(x, lengths)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples), (B,) -> (B, T, D), (B,)."""
        return self.steps_of(*self.features(waveform, lengths))
