"""Speech input: waveform to log-mel features (paper IV-A), and what parts/frames.py makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.frames import FramesConfig, FramesInput
from espnet2_legonn.model.parts.waves import WaveInput


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
class SpeechInput(WaveInput, FramesInput):
    """Waveform to model width.

    Args:
        config: its description.
        size: width D.
        dropout: on the sum of steps and positions.
        places: see FramesInput.
    """

    Config = SpeechConfig

    def __init__(self, config: SpeechConfig, size: int, dropout: float = 0.0, places: bool = False) -> None:
        super().__init__(config, size, dropout, places)
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

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def fs(self) -> int:
        """Sampling rate in Hz."""
        return int(self.features.mel.sample_rate)

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
