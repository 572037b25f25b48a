"""Speech models of others as an input, by transformers: wav2vec 2.0 and its kin, Parakeet, LASR, Whisper's encoder.

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

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.dropout import Dropout
from espnet2_legonn.model.hf_models import Borrowed, keep_digest, library, telling
from espnet2_legonn.model.hf_models import digest as digest  # its first place
from espnet2_legonn.model.parts.base import INPUTS
from espnet2_legonn.model.parts.waves import WaveInput
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.speech_models import (
    FAMILIES,
    FS,
    KINDS,
    Mels,
    Waves,
    architecture,
    described,
    fresh,
    hearing,
    normalizes,
)
from espnet2_legonn.model.speech_models import Family as Family  # it was here
from espnet2_legonn.model.transformer import BodyConfig


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


def fetch(config: PretrainedConfig, where: str) -> tuple[Any, bool]:
    """The model that a description names, and whether it hears normalised waveforms.

    Raises:
        ConfigError: it is not there, or of a kind that is not read here.
    """
    lib, where = library(), f"{where}.model: {config.model}"
    found, names = KINDS.found(lib, config.model, config.revision, where)
    with telling(where):
        model = hearing(getattr(lib, names.model).from_pretrained(config.model, revision=config.revision))
    return model, normalizes(config.model, model.config, where, config.revision)


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

    def __init__(self, config: PretrainedConfig, body: BodyConfig, hears: Waves) -> None:
        super().__init__()
        self.config = config
        self.borrow(hears, config.hold)
        layers, width = hears.config.num_hidden_layers, hears.width
        faults = []
        if config.layers != "last" and hears.adapted(hears.config):
            faults.append(f"input.layers: {config.layers}, but an adapter changes the number of steps; give last")
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
        elif config.layers != "last":  # a layer that is dropped in training has no state
            for holder in (hears.config, *hears.model.modules()):
                if hasattr(holder, "layerdrop"):
                    holder.layerdrop = 0.0

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
        return cls(config, body, FAMILIES[model.config.model_type].hears(model, bool(config.normalize)))

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
        """As the model's description says; if it is not at hand, a step is 20 ms."""
        windows = [(1, 320, 0)]
        with contextlib.suppress(ConfigError):  # whoever builds the part says what is wrong
            if config.architecture is None:
                found, _ = KINDS.found(library(), config.model, config.revision, "input.model")
            else:
                found = architecture(config.architecture, "input.architecture")
            windows = FAMILIES[found.model_type].hears.windows(getattr(found, "encoder_config", found))
        return total / math.prod(stride for _, stride, _ in windows)

    # -- reading ---------------------------------------------------------------------------------------------------

    @property
    def fs(self) -> int:
        """16 kHz."""
        return FS

    @property
    def hears(self) -> Waves:
        """The model."""
        found: Waves = self.borrowed
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
