"""Speech models of transformers: which are read here, what each hears of waveforms, and how many steps it makes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.hf_models import Kinds, library
from espnet2_legonn.model.masks import valid_mask, zero_padding

FS = 16000  # all of these models hear 16 kHz

# -- hearing -------------------------------------------------------------------------------------------------------


class Waves(nn.Module):
    """wav2vec 2.0 and its kin: waveforms to the states of all layers.

    Args:
        model: transformers' model.
        normalize: waveforms get mean 0 and variance 1.

    Attributes:
        alone: items are heard one by one, since padding would change them.
        extractor: transformers' class of what makes its input.
    """

    config: Any
    alone, extractor = False, "Wav2Vec2FeatureExtractor"

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__()
        self.model, self.normalize, self.config = model, normalize, model.config
        # A norm over time reads padding, and so does an adapter.
        group = getattr(self.config, "feat_extract_norm", "group") == "group"
        self.alone = self.alone or group or self.adapted(self.config)

    # -- the model's description -----------------------------------------------------------------------------------

    @staticmethod
    def adapted(config: Any) -> bool:
        """Whether an adapter behind the layers makes fewer steps, maybe of another width."""
        return bool(getattr(config, "add_adapter", False))

    @staticmethod
    def bins(config: Any) -> int:
        """Values of a frame that is read: of a waveform one."""
        return 1

    @classmethod
    def frames(cls, config: Any) -> list[tuple[int, int, int]]:
        """Kernel, stride and padding of each step from samples to what the layers read."""
        return [(kernel, stride, 0) for kernel, stride in zip(config.conv_kernel, config.conv_stride)]

    @classmethod
    def windows(cls, config: Any) -> list[tuple[int, int, int]]:
        """Kernel, stride and padding of each step from samples to what is written."""
        behind = [(config.adapter_kernel_size, config.adapter_stride, 1)] if cls.adapted(config) else []
        return [*cls.frames(config), *behind * getattr(config, "num_adapter_layers", 0)]

    @classmethod
    def maker(cls, config: Any) -> Any:
        """transformers' feature extractor of the model, as published."""
        bins = cls.bins(config)
        return getattr(library(), cls.extractor)(feature_size=bins, num_mel_bins=bins)

    @property
    def width(self) -> int:
        """Of what is written."""
        return int(self.config.output_hidden_size if self.adapted(self.config) else self.config.hidden_size)

    @property
    def least(self) -> int:
        """Samples of the shortest input, which makes a step; SEW squeezes several to one."""
        size = getattr(self.config, "squeeze_factor", 1)
        for kernel, stride, padding in reversed(self.windows(self.config)):
            size = (size - 1) * stride + kernel - 2 * padding
        return int(size)

    def steps(self, samples: torch.Tensor) -> torch.Tensor:
        """Steps of waveforms of these lengths; short ones are padded to the least."""
        steps = samples.clamp(min=self.least)
        for kernel, stride, padding in self.windows(self.config):
            steps = torch.div(steps + 2 * padding - kernel, stride, rounding_mode="floor") + 1
        return steps

    # -- hearing ---------------------------------------------------------------------------------------------------

    def features(self, waves: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the model reads of waveforms (B, samples), and its mask."""
        return waves, mask

    def _heard(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        kind = next(self.model.parameters()).dtype
        waves = zero_padding(waves.to(torch.promote_types(kind, torch.float32)), lengths)
        if not self.normalize:
            return waves
        count = lengths[:, None]
        waves = zero_padding(waves - waves.sum(1, keepdim=True) / count, lengths)
        return waves / (waves.square().sum(1, keepdim=True) / count + 1e-7).sqrt()

    def train(self, mode: bool = True) -> Self:
        """As in torch; batch normalisation keeps its statistics: one item has none, and one step cannot be normed."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()
        return self

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """(B, samples), (B,) -> layers + 1 states (B, T, H); of a model with an adapter the last one."""
        steps, spans = self.steps(lengths), lengths.clamp(min=self.least)
        waves = self._heard(waves, lengths)
        waves = nn.functional.pad(waves, (0, max(0, self.least - waves.shape[1])))
        if not self.alone:
            return self._layers(waves, valid_mask(spans, waves.shape[1]).long(), int(steps.max()))
        items = [self._layers(waves[i : i + 1, :n], None, int(steps[i])) for i, n in enumerate(spans.tolist())]
        return [nn.utils.rnn.pad_sequence([x[0] for x in layer], batch_first=True) for layer in zip(*items)]

    def _layers(self, waves: torch.Tensor, mask: torch.Tensor | None, steps: int) -> list[torch.Tensor]:
        heard, mask = self.features(waves, mask)
        heard = heard.to(next(self.model.parameters()).dtype)
        out = self.model(heard, attention_mask=mask, output_hidden_states=True)
        last = out.last_hidden_state[:, :steps]
        if self.adapted(self.config):
            return [last]
        places = torch.arange(steps, device=last.device) // getattr(self.config, "squeeze_factor", 1)
        return [*(state[:, places.clamp(max=state.shape[1] - 1)] for state in out.hidden_states[:-1]), last]


class Alone(Waves):
    """Those whose convolutions or pooling read padding: items are heard one by one."""

    alone = True


class Features(Alone):
    """Models that read features: transformers' own extractor makes them of each item, on the CPU."""

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        self.make = self.maker(self.config)

    @staticmethod
    def bins(config: Any) -> int:
        """Mel filters."""
        return int(config.num_mel_bins)

    @property
    def least(self) -> int:
        """Two frames are needed: the extractors divide by their variance over time."""
        return max(super().least, 560)

    def features(self, waves: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(1, samples) -> (1, frames, values), (1, frames): the extractor may add a frame, which is masked."""
        with torch.autocast("cpu", enabled=False):
            made = self.make(waves[0].float().cpu().numpy(), sampling_rate=FS, return_tensors="pt")
        made = made.to(waves.device)
        return made["input_features"], made.get("attention_mask")


class Seamless(Features):
    """w2v-BERT 2.0, the encoder of SeamlessM4T: two frames of 10 ms a step."""

    extractor = "SeamlessM4TFeatureExtractor"

    @staticmethod
    def bins(config: Any) -> int:
        """Mel filters: it reads two frames at once."""
        return int(config.feature_projection_input_dim) // 2

    @classmethod
    def frames(cls, config: Any) -> list[tuple[int, int, int]]:
        """Windows of 25 ms, and pairs."""
        return [(400, 160, 0), (2, 2, 0)]


class Parakeet(Features):
    """The encoder of Parakeet, a Fast Conformer."""

    extractor = "ParakeetFeatureExtractor"

    @classmethod
    def frames(cls, config: Any) -> list[tuple[int, int, int]]:
        """10 ms, and convolutions that halve the frames."""
        kernel = config.subsampling_conv_kernel_size
        halves = (kernel, config.subsampling_conv_stride, (kernel - 1) // 2)
        return [(160, 160, 0), *[halves] * int(math.log2(config.subsampling_factor))]


class Lasr(Features):
    """The encoder of LASR (MedASR), a Conformer."""

    extractor = "LasrFeatureExtractor"

    @classmethod
    def frames(cls, config: Any) -> list[tuple[int, int, int]]:
        """Windows of 25 ms, and two convolutions."""
        return [(400, 160, 0), *[(config.subsampling_conv_kernel_size, config.subsampling_conv_stride, 0)] * 2]


class Mels(Waves):
    """Whisper's encoder: waveforms to the states of all layers. It always hears 30 s, so nothing depends on a batch.

    Args:
        model: transformers' WhisperEncoder.
    """

    window, hop, seconds = 400, 160, 30
    extractor = "WhisperFeatureExtractor"
    filters: torch.Tensor

    def __init__(self, model: Any, normalize: bool = False) -> None:
        super().__init__(model, False)
        filters = library().audio_utils.mel_filter_bank(
            num_frequency_bins=1 + self.window // 2, num_mel_filters=self.config.num_mel_bins, min_frequency=0.0,
            max_frequency=8000.0, sampling_rate=FS, norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        self.register_buffer("filters", torch.from_numpy(np.asarray(filters)).float(), persistent=False)

    @property
    def heard(self) -> int:
        """Samples that the encoder reads: two frames a position, 30 s in the models that are published."""
        return int(self.config.max_source_positions) * 2 * self.hop

    @staticmethod
    def bins(config: Any) -> int:
        """Mel filters."""
        return int(config.num_mel_bins)

    @classmethod
    def frames(cls, config: Any) -> list[tuple[int, int, int]]:
        """A step is two frames of 10 ms."""
        return [(1, 2 * cls.hop, 0)]

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """(B, samples), (B,) -> layers + 1 states (B, T, H).

        Raises:
            DataError: every item that is longer than what it hears.
        """
        if faults := [
            f"input {i}: {n / FS:.1f} s, this model hears {self.heard / FS:g} s; give a part of it"
            for i, n in enumerate(lengths.tolist())
            if n > self.heard
        ]:
            raise DataError(faults)
        kind = torch.promote_types(next(self.model.parameters()).dtype, torch.float32)
        waves = zero_padding(waves.to(kind), lengths)[:, : self.heard]
        waves = nn.functional.pad(waves, (0, self.heard - waves.shape[1]))
        with torch.autocast(waves.device.type, enabled=False):
            hann = torch.hann_window(self.window, device=waves.device, dtype=kind)
            power = torch.stft(waves, self.window, self.hop, window=hann, return_complex=True)[..., :-1].abs().square()
            mels = (self.filters.to(kind).T @ power).clamp(min=1e-10).log10()
            mels = (torch.maximum(mels, mels.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
        out = self.model(mels.to(next(self.model.parameters()).dtype), output_hidden_states=True)
        steps = int(self.steps(lengths).max())
        return [state[:, :steps] for state in (*out.hidden_states[:-1], out.last_hidden_state)]


# -- transformers' models ------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """A kind of model.

    Args:
        config, model: transformers' classes.
        ctc: of one with a CTC head, if there is any.
        hears: what makes its input, and knows its steps.
    """

    config: str
    model: str
    ctc: str | None
    hears: type[Waves]


def _kin(name: str, hears: type[Waves] = Waves) -> Family:
    return Family(f"{name}Config", f"{name}Model", f"{name}ForCTC", hears)


_PARAKEET = Family("ParakeetEncoderConfig", "ParakeetEncoder", "ParakeetForCTC", Parakeet)
_LASR = Family("LasrEncoderConfig", "LasrEncoder", "LasrForCTC", Lasr)
FAMILIES = {
    "wav2vec2": _kin("Wav2Vec2"),
    "hubert": _kin("Hubert"),
    "wavlm": _kin("WavLM"),
    "whisper": Family("WhisperConfig", "WhisperModel", None, Mels),
    "unispeech": _kin("UniSpeech"),
    "unispeech-sat": _kin("UniSpeechSat"),
    "wav2vec2-conformer": _kin("Wav2Vec2Conformer", Alone),
    "data2vec-audio": _kin("Data2VecAudio", Alone),
    "sew": _kin("SEW", Alone),
    "sew-d": _kin("SEWD", Alone),
    "wav2vec2-bert": _kin("Wav2Vec2Bert", Seamless),
    # The encoder alone, and within a model with a CTC head, whose description has the encoder's inside.
    "parakeet_encoder": _PARAKEET,
    "parakeet_ctc": _PARAKEET,
    "lasr_encoder": _LASR,
    "lasr_ctc": _LASR,
}
KINDS = Kinds(FAMILIES)
family, described, architecture = KINDS.family, KINDS.described, KINDS.architecture


def hearing(model: Any) -> Any:
    """What hears in a model of transformers: all of it, of Whisper the encoder."""
    return model.encoder if model.config.model_type == "whisper" else model


def fresh(config: Any) -> Any:
    """A model of a configuration, with random weights, see ``hearing``."""
    return hearing(KINDS.fresh(config))


# Settings of a feature extractor that change what is heard.
_SETTINGS = (
    "sampling_rate", "feature_size", "num_mel_bins", "stride", "hop_length", "n_fft", "win_length", "preemphasis",
)  # fmt: skip


def normalizes(model: str, config: Any, where: str, revision: str | None = None) -> bool:
    """Whether the model's preprocessor brings waveforms to mean 0 and variance 1.

    Raises:
        ConfigError: it hears in another way than models of its kind do.
    """
    try:
        extractor = library().AutoFeatureExtractor.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):  # a folder without a preprocessor
        return False
    theirs, ours = extractor.to_dict(), FAMILIES[config.model_type].hears.maker(config).to_dict()
    both = [key for key in _SETTINGS if key in theirs and key in ours]
    if odd := [f"{key} is {theirs[key]}, not {ours[key]}" for key in both if theirs[key] != ours[key]]:
        raise ConfigError(f"{where}: its preprocessor hears in another way: {', '.join(odd)}")
    return bool(getattr(extractor, "do_normalize", False))
