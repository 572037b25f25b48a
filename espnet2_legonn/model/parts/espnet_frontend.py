"""ESPnet's own way into an encoder: its front end, normalisation and subsampling, independent of padding.

What ``legonn adopt`` makes of a stock experiment begins so. The names of the weights are ESPnet's. ESPnet is imported
when such a part is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.foreign import load
from espnet2_legonn.model.espnet_body import keywords
from espnet2_legonn.model.masks import zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.frames import NORMALIZE, MaskPolicy, Normalization, SpecAugment
from espnet2_legonn.model.parts.waves import WaveInput
from espnet2_legonn.model.transformer import BodyConfig

# ESPnet's classes by ``input_layer``, and frames of a step.
SUBSAMPLING = {
    "conv2d": ("Conv2dSubsampling", 4),
    "conv2d1": ("Conv2dSubsampling1", 1),
    "conv2d2": ("Conv2dSubsampling2", 2),
    "conv2d6": ("Conv2dSubsampling6", 6),
    "conv2d8": ("Conv2dSubsampling8", 8),
    "conv1d1": ("Conv1dSubsampling1", 1),
    "conv1d2": ("Conv1dSubsampling2", 2),
    "conv1d3": ("Conv1dSubsampling3", 3),
}
_FORBIDDEN = {
    "fs": "it is a key of the input",
    "frontend_conf": "one channel is read, there is nothing to enhance",
    "apply_stft": "waveforms are read",
}


@dataclass
class EspnetFrontendConfig:
    """Waveforms as ESPnet's ASR task reads them.

    Args:
        type: espnet_frontend.
        fs: sampling rate in Hz.
        frontend: ``frontend_conf`` of ESPnet's default front end, without fs.
        normalize: ``global`` (mean and variance of the training data), ``utterance`` or ``none``.
        means, variances: which of them are made alike.
        subsampling: ``input_layer`` of ESPnet's encoder.
        scale: steps are multiplied by sqrt(D), as ESPnet's positions do that are behind them in the body.
        dropout: of these positions.
        specaug: masks in training, or None.
    """

    type: str = "espnet_frontend"
    fs: int = 16000
    frontend: dict[str, Any] = field(default_factory=dict)
    normalize: str = "utterance"
    means: bool = True
    variances: bool = False
    subsampling: str = "conv2d"
    scale: bool = False
    dropout: float = 0.1
    specaug: MaskPolicy | None = None

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return int(self.frontend.get("hop_length", 128))

    @property
    def n_fft(self) -> int:
        """Samples of a frame."""
        return int(self.frontend.get("n_fft", 512))


class MVN(Normalization):
    """ESPnet's global_mvn and utterance_mvn.

    Args:
        kind: global, utterance or none.
        n_mels: features of a frame.
        means, variances: which of them are made alike.
    """

    def __init__(self, kind: str, n_mels: int, means: bool, variances: bool) -> None:
        super().__init__(kind, n_mels)
        self.means, self.variances = means, variances

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, frames, n_mels) -> the same, padding zeroed."""
        x = zero_padding(x, lengths)
        if self.kind == "none":
            return x
        count = lengths[:, None, None]
        mean = self.mean if self.kind == "global" else x.sum(1, keepdim=True) / count
        y = zero_padding(x - mean, lengths)
        if self.variances:
            own = (y.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-20)
            x, y = (values / (self.std if self.kind == "global" else own) for values in (x, y))
        return y if self.means else x


@INPUTS.add("espnet_frontend")
class EspnetFrontendInput(WaveInput):
    """Waveforms to the steps of an encoder of ESPnet's.

    Args:
        config: its description.
        body: of the module. One without positions gets ESPnet's sinusoids here.
        where: for errors.

    Raises:
        ConfigError: ESPnet refuses the description, or is not installed.
    """

    Config = EspnetFrontendConfig

    def __init__(self, config: EspnetFrontendConfig, body: BodyConfig, where: str) -> None:
        super().__init__()
        self.config = config
        try:
            default = load("espnet2.asr.frontend.default").DefaultFrontend
            layers = load("espnet.nets.pytorch_backend.transformer.subsampling")
            places = load("espnet.nets.pytorch_backend.transformer.embedding").PositionalEncoding
        except ImportError as error:
            raise ConfigError(f"{where}: input type espnet_frontend is ESPnet's: {error}") from None
        given = keywords(default, config.frontend, f"{where}.frontend", _FORBIDDEN)
        try:
            self.frontend = default(**given, fs=config.fs, frontend_conf=None)
            filters = self.frontend.output_size()
            behind = nn.Dropout(config.dropout) if body.places else places(body.size, config.dropout)
            cls = getattr(layers, SUBSAMPLING[config.subsampling][0])
            self.embed = cls(filters, body.size, config.dropout, behind)
        except (AssertionError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: ESPnet refuses it: {str(error) or type(error).__name__}") from None
        self.normalization = MVN(config.normalize, filters, config.means, config.variances)
        self.augment = None if config.specaug is None else SpecAugment(config.specaug)
        self.factor = body.size**0.5 if config.scale else 1.0

    # -- the description -------------------------------------------------------------------------------------------

    @classmethod
    def faults(cls, config: EspnetFrontendConfig, where: str) -> list[str]:
        """Kinds of normalisation and subsampling."""
        faults = []
        if config.normalize not in NORMALIZE:
            faults.append(f"{where}.normalize: {config.normalize!r} is not utterance, global or none")
        if config.subsampling not in SUBSAMPLING:
            faults.append(f"{where}.subsampling: {config.subsampling!r} is not one of {', '.join(SUBSAMPLING)}")
        for key in ("hop_length", "n_fft"):
            number = config.frontend.get(key, 1)
            if not isinstance(number, int) or number < 1:
                faults.append(f"{where}.frontend.{key}: {number!r} is no number of samples")
        return faults

    @classmethod
    def make(cls, config: EspnetFrontendConfig, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights."""
        return cls(config, body, where)

    @classmethod
    def least_values(cls, config: EspnetFrontendConfig, size: int, vocab_size: int) -> int:
        """The last layer, and the filters."""
        return size * size + int(config.frontend.get("n_mels", 80)) * (config.n_fft // 2 + 1)

    @classmethod
    def card(cls, config: EspnetFrontendConfig) -> dict[str, Any]:
        """How speech is read."""
        own = {"fs": config.fs, "n_mels": config.frontend.get("n_mels", 80), "normalize": config.normalize}
        return {**own, "part": f"espnet_frontend: ESPnet's own front end, {config.subsampling}"}

    @classmethod
    def total_steps(cls, config: EspnetFrontendConfig, total: float, items: int) -> float:
        """By the shift of frames and the subsampling."""
        return total / (config.hop * SUBSAMPLING[config.subsampling][1])

    @property
    def fs(self) -> int:
        """Sampling rate in Hz."""
        return self.config.fs

    # -- training --------------------------------------------------------------------------------------------------

    @property
    def statistics_part(self) -> str | None:
        """``normalization``, if it is global."""
        return "normalization" if self.normalization.kind == "global" else None

    def statistics(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features."""
        return self._features(x, lengths), self.frames(lengths)

    def frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames of waveforms of these lengths; short ones are padded to one window."""
        width = samples.clamp(min=self.config.n_fft)
        beyond = self.config.n_fft // 2 * 2 if self.frontend.stft.center else 0
        return torch.div(width + beyond - self.config.n_fft, self.config.hop, rounding_mode="floor") + 1

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """Steps T made of waveforms of these lengths, at least one."""
        steps = self.frames(lengths)
        for layer in self._convolutions():
            steps = torch.div(steps - layer.kernel_size[0], layer.stride[0], rounding_mode="floor") + 1
        return steps.clamp(min=1)

    def _convolutions(self) -> list[Any]:
        return [layer for layer in self.embed.conv if isinstance(layer, (nn.Conv1d, nn.Conv2d))]

    @property
    def _least_frames(self) -> int:
        """Frames of one step."""
        frames = 1
        for layer in reversed(self._convolutions()):
            frames = (frames - 1) * layer.stride[0] + layer.kernel_size[0]
        return frames

    def _features(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, samples), (B,) -> (B, frames, n_mels). One by one: ESPnet reflects what is behind the end of an item."""
        kind = self.frontend.logmel.melmat.dtype
        items = []
        with torch.no_grad(), torch.autocast(waves.device.type, enabled=False):
            for wave, length in zip(waves.to(kind), lengths.tolist()):
                wave = nn.functional.pad(wave[:length], (0, max(0, self.config.n_fft - length)))
                samples = torch.tensor([len(wave)], device=waves.device)
                items.append(self.frontend(wave.unsqueeze(0), samples)[0][0])
        return pad_sequence(items, batch_first=True)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples), (B,) -> (B, T, D), (B,)."""
        frames = self.frames(lengths)
        x = self.normalization(self._features(waveform, lengths), frames)
        if self.augment is not None:
            x = self.augment(x, frames)
        x = nn.functional.pad(x, (0, 0, 0, max(0, self._least_frames - x.shape[1])))
        with torch.inference_mode(False):  # what is first needed in decoding must serve training, too
            for part in self.embed.modules():
                if hasattr(part, "extend_pe"):
                    part.extend_pe(x.new_empty(1, 1).expand(1, x.shape[1]))
        x, _ = self.embed(x.to(next(self.embed.parameters()).dtype), None)
        return x * self.factor, self.steps(lengths)
