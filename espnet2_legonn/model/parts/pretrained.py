"""Speech models of others as an input: wav2vec 2.0, HuBERT, WavLM and Whisper's encoder, by transformers.

::

    input: {type: pretrained, model: NAME_OF_THE_HUB_OR_FOLDER, layers: weighted, freeze: true}

transformers is imported when such a part is built. A description that has ``architecture`` needs no files of the model:
packs and trained experiments have it, and their weights are the model's. With ``hold: false`` they have the name, the
revision and a digest of the weights instead, and get them from there.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.hf_models import Borrowed, Family, Kinds, keep_digest, library, telling
from espnet2_legonn.model.hf_models import digest as digest  # its first place
from espnet2_legonn.model.masks import valid_mask, zero_padding
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.waves import WaveInput
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig

FS = 16000  # all of these models hear 16 kHz
FAMILIES = {
    "wav2vec2": Family("Wav2Vec2Config", "Wav2Vec2Model", "Wav2Vec2ForCTC"),
    "hubert": Family("HubertConfig", "HubertModel", "HubertForCTC"),
    "wavlm": Family("WavLMConfig", "WavLMModel", "WavLMForCTC"),
    "whisper": Family("WhisperConfig", "WhisperModel"),
}


@dataclass
class PretrainedConfig:
    """A speech model of somebody else's.

    Args:
        type: pretrained.
        model: name on the Hub, or a folder of transformers'.
        revision: of the Hub.
        layers: ``weighted`` (a learned mean of all layers), ``last``, or the number of one (0 is what the first reads).
        freeze: it learns nothing, and its dropout is off.
        project: a linear layer to the width of the module; without, the widths must be equal.
        normalize: waveforms get mean 0 and variance 1, as the model was trained; null: as its folder says.
        hold: packs and checkpoints have its weights; false needs ``freeze``.
        sha256: of its weights, where they are not held.
        architecture: transformers' description of it.
        fs: sampling rate in Hz.
    """

    model: str
    type: str = "pretrained"
    revision: str | None = None
    layers: str | int = "weighted"
    freeze: bool = True
    project: bool = True
    normalize: bool | None = None
    hold: bool = True
    sha256: str | None = None
    architecture: dict[str, Any] | None = None
    fs: int = FS


# -- transformers' models ------------------------------------------------------------------------------------------

KINDS = Kinds(FAMILIES)
family, described, architecture = KINDS.family, KINDS.described, KINDS.architecture


def fresh(config: Any) -> Any:
    """A model of a configuration, with random weights; of Whisper its encoder."""
    model = KINDS.fresh(config)
    return model.encoder if config.model_type == "whisper" else model


def fetch(config: PretrainedConfig, where: str) -> tuple[Any, bool]:
    """The model that a description names, and whether it hears normalised waveforms.

    Raises:
        ConfigError: it is not there, or of a kind that is not read here.
    """
    lib, where = library(), f"{where}.model: {config.model}"
    found, names = KINDS.found(lib, config.model, config.revision, where)
    if getattr(found, "add_adapter", False):
        raise ConfigError(f"{where} has an adapter, which changes the number of steps")
    with telling(where):
        model = getattr(lib, names.model).from_pretrained(config.model, revision=config.revision)
    return (model.encoder if found.model_type == "whisper" else model), normalizes(config.model, config.revision)


def normalizes(model: str, revision: str | None = None) -> bool:
    """Whether the model's preprocessor brings waveforms to mean 0 and variance 1."""
    try:
        extractor = library().AutoFeatureExtractor.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):  # a folder without a preprocessor
        return False
    return bool(getattr(extractor, "do_normalize", False))


# -- hearing -------------------------------------------------------------------------------------------------------


class Waves(nn.Module):
    """wav2vec 2.0 and its kin: waveforms to the states of all layers.

    Args:
        model: transformers' model.
        normalize: waveforms get mean 0 and variance 1.
    """

    config: Any

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__()
        self.model, self.normalize, self.config = model, normalize, model.config
        # A norm over time reads padding: such a model hears items one by one.
        self.alone = getattr(self.config, "feat_extract_norm", "group") == "group"

    @property
    def least(self) -> int:
        """Samples of one step."""
        size = 1
        for kernel, stride in reversed(list(zip(self.config.conv_kernel, self.config.conv_stride))):
            size = (size - 1) * stride + kernel
        return int(size)

    def steps(self, samples: torch.Tensor) -> torch.Tensor:
        """Steps of waveforms of these lengths; short ones are padded to one step."""
        steps = samples.clamp(min=self.least)
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride):
            steps = torch.div(steps - kernel, stride, rounding_mode="floor") + 1
        return steps

    def _heard(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        kind = next(self.model.parameters()).dtype
        waves = zero_padding(waves.to(torch.promote_types(kind, torch.float32)), lengths)
        if not self.normalize:
            return waves
        count = lengths[:, None]
        waves = zero_padding(waves - waves.sum(1, keepdim=True) / count, lengths)
        return waves / (waves.square().sum(1, keepdim=True) / count + 1e-7).sqrt()

    def forward(self, waves: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
        """(B, samples), (B,) -> layers + 1 states (B, T, H)."""
        steps = self.steps(lengths)
        waves = self._heard(waves, lengths)
        short = self.least - waves.shape[1]
        waves = nn.functional.pad(waves, (0, max(0, short))).to(next(self.model.parameters()).dtype)
        spans = lengths.clamp(min=self.least)
        if not self.alone:
            return self._layers(waves, valid_mask(spans, waves.shape[1]).long(), int(steps.max()))
        items = [self._layers(waves[i : i + 1, :n], None, int(steps[i])) for i, n in enumerate(spans.tolist())]
        return [nn.utils.rnn.pad_sequence([x[0] for x in layer], batch_first=True) for layer in zip(*items)]

    def _layers(self, waves: torch.Tensor, mask: torch.Tensor | None, steps: int) -> list[torch.Tensor]:
        out = self.model(waves, attention_mask=mask, output_hidden_states=True)
        return [state[:, :steps] for state in (*out.hidden_states[:-1], out.last_hidden_state)]


class Mels(nn.Module):
    """Whisper's encoder: waveforms to the states of all layers. It always hears 30 s, so nothing depends on a batch.

    Args:
        model: transformers' WhisperEncoder.
    """

    window, hop, seconds = 400, 160, 30
    config: Any
    filters: torch.Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config
        filters = library().audio_utils.mel_filter_bank(
            num_frequency_bins=1 + self.window // 2, num_mel_filters=self.config.num_mel_bins, min_frequency=0.0,
            max_frequency=8000.0, sampling_rate=FS, norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        self.register_buffer("filters", torch.from_numpy(np.asarray(filters)).float(), persistent=False)

    @property
    def heard(self) -> int:
        """Samples that the encoder reads: two frames a position, 30 s in the models that are published."""
        return int(self.config.max_source_positions) * 2 * self.hop

    def steps(self, samples: torch.Tensor) -> torch.Tensor:
        """A step is two frames of 10 ms."""
        return torch.div(samples + 2 * self.hop - 1, 2 * self.hop, rounding_mode="floor").clamp(min=1)

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


# -- the part ------------------------------------------------------------------------------------------------------


@INPUTS.add("pretrained")
class PretrainedInput(Borrowed, WaveInput):
    """Waveforms to model width by somebody else's speech model.

    Args:
        config: its description; what was found out about the model is written into it.
        body: of the module.
        hears: the model.

    Raises:
        ConfigError: a layer that it does not have, or another width without a projection.
    """

    Config = PretrainedConfig

    def __init__(self, config: PretrainedConfig, body: BodyConfig, hears: Waves | Mels) -> None:
        super().__init__()
        self.config = config
        self.borrow(hears, config.hold)
        layers, width = hears.config.num_hidden_layers, int(hears.config.hidden_size)
        faults = []
        if isinstance(config.layers, int) and not 0 <= config.layers <= layers:
            faults.append(f"input.layers: {config.layers} is not one of 0 to {layers}, the model's layers")
        if not config.project and width != body.size:
            faults.append(f"input.project: false, but the model is {width} wide and the body {body.size}")
        if faults:
            raise ConfigError(faults)
        self.mix = nn.Parameter(torch.zeros(layers + 1)) if config.layers == "weighted" else None
        self.out = nn.Linear(width, body.size) if config.project else None
        plain = body.places or not config.project
        self.positions = None if plain else SinusoidalPositions(body.size)
        self.dropout = Dropout(body.dropout)
        self.int8 = hears.config.model_type != "wavlm"  # whose attention takes the weights out of its layers
        if isinstance(hears, Mels):
            self.longest = hears.heard / FS
        if config.freeze:
            hears.requires_grad_(False).eval()

    # -- the description -------------------------------------------------------------------------------------------

    @classmethod
    def faults(cls, config: PretrainedConfig, where: str) -> list[str]:
        """Values that do not go together."""
        faults = []
        if config.fs != FS:
            faults.append(f"{where}.fs: {config.fs}; these models hear {FS} Hz")
        if isinstance(config.layers, str) and config.layers not in ("weighted", "last"):
            faults.append(f"{where}.layers: {config.layers!r} is not weighted, last or a number")
        if not config.hold and not config.freeze:
            faults.append(f"{where}.hold: false, but freeze is false: what is learned must be kept")
        return faults

    @classmethod
    def make(cls, config: PretrainedConfig, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """The model's own weights, or random ones of its architecture to be filled from a pack.

        Raises:
            ConfigError: it is not there, of another kind, or transformers is not installed.
            CheckpointError: weights that a description names are others now.
        """
        if config.architecture is not None and config.hold:
            model, normalize = fresh(architecture(config.architecture, f"{where}.architecture")), False
        else:
            model, normalize = fetch(config, where)
        config.normalize = normalize if config.normalize is None else config.normalize
        keep_digest(config, model, f"{where}: the weights of {config.model}")
        config.architecture = described(model.config)
        whisper = config.architecture["model_type"] == "whisper"
        return cls(config, body, Mels(model) if whisper else Waves(model, bool(config.normalize)))

    @property
    def settled(self) -> dict[str, Any]:
        """Its architecture, and what else makes it again without its source."""
        c = self.config
        return {"architecture": c.architecture, "normalize": c.normalize, "sha256": c.sha256}

    @classmethod
    def least_values(cls, config: PretrainedConfig, size: int, vocab_size: int) -> int:
        """The model's, if it is held."""
        if config.architecture is None or not config.hold:
            return 0
        with torch.device("meta"):
            return sum(p.numel() for p in fresh(architecture(config.architecture, "input.architecture")).parameters())

    @classmethod
    def card(cls, config: PretrainedConfig) -> dict[str, Any]:
        """What is heard, and where the weights are."""
        held = "" if config.hold else f", weights not in the pack (SHA-256 {config.sha256})"
        name = f"{config.model}@{config.revision}" if config.revision else config.model
        return {"fs": config.fs, "part": f"pretrained: {name}, layers {config.layers}{held}"}

    @classmethod
    def total_steps(cls, config: PretrainedConfig, total: float, items: int) -> float:
        """A step is 20 ms, unless the architecture says otherwise."""
        strides = (config.architecture or {}).get("conv_stride")
        return total / (math.prod(strides) if strides else 320)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def fs(self) -> int:
        """16 kHz."""
        return FS

    @property
    def hears(self) -> Waves | Mels:
        """The model."""
        found: Waves | Mels = self.borrowed
        return found

    # -- training --------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """As in torch; a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze:
            self.hears.eval()
        return self

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """Steps T made of waveforms of these lengths."""
        return self.hears.steps(lengths)

    def forward(self, waveform: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, samples), (B,) -> (B, T, D), (B,)."""
        with torch.no_grad() if self.config.freeze else contextlib.nullcontext():
            states = self.hears(waveform, lengths)
        if self.mix is not None:
            x = (torch.stack(states, -1) * self.mix.softmax(0)).sum(-1)
        else:
            x = states[-1 if self.config.layers == "last" else int(self.config.layers)]
        if self.out is not None:
            kind = getattr(self.out, "weight", x).dtype  # int8 reads floats
            x = self.out(x.to(kind))
            x = x if self.positions is None else self.positions(x, kind)
        return self.dropout(x), self.steps(lengths)
