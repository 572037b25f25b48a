"""A chain described in YAML: schema, validation with all faults at once, overrides by module name.

The schema is the dataclasses below; ``conf/reference.yaml`` shows every key with its meaning.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import Reader, nearest, to_plain
from espnet2_legonn.model.freeze import Freeze, InitConfig, check_parts, frozen_parts

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
MAX_PARTS = 100


@dataclass
class VocabConfig:
    """A vocabulary: token list (file or the tokens themselves), unit and how text is treated."""

    tokens: Any
    unit: str = "bpe"
    bpemodel: str | None = None
    language: str | None = None
    normalization: str | None = None


@dataclass
class SpecAugmentConfig:
    """SpecAugment's policy (model/parts/speech.py: MaskPolicy)."""

    freq_width: int = 27
    num_freq: int = 2
    time_width: int = 70
    num_time: int = 2
    time_share: float = 0.2


@dataclass
class SpeechConfig:
    """Waveform input."""

    type: str = "speech"
    fs: int = 16000
    n_mels: int = 80
    normalize: str = "utterance"
    channels: list[int] = field(default_factory=lambda: [64, 128])
    specaug: SpecAugmentConfig | None = None


@dataclass
class TokensConfig:
    """Source text input."""

    vocab: str
    type: str = "tokens"


@dataclass
class StatesConfig:
    """Hidden states of the module before (baseline)."""

    type: str = "states"


@dataclass
class WEmbConfig:
    """Weighted-embedding ingestor (equations 17, 18)."""

    vocab: str
    type: str = "wemb"
    receptive_field: int = 1
    num_blocks: int = 3
    collapse: bool = False
    attention_dropout: float | None = None


@dataclass
class BeamConvConfig:
    """Beam-convolution ingestor (equations 19-21)."""

    vocab: str
    k: int
    embed_size: int
    type: str = "beam_conv"
    receptive_field: int = 1
    num_blocks: int = 3
    collapse: bool = False
    attention_dropout: float | None = None


@dataclass
class BodyConfig:
    """A transformer stack; ``transformer`` in encoder modules, ``transformer_decoder`` in decoder modules."""

    num_blocks: int
    size: int
    heads: int
    linear_units: int
    type: str = "transformer"
    dropout: float = 0.1
    attention_dropout: float | None = None
    activation_dropout: float | None = None


@dataclass
class LengthControlConfig:
    """Output length controller: ``ratio`` (slots per input step) or ``slots_per_token`` (ratio from the data).

    ``aligned``: positions of queries in input steps (see LengthController), not in slots as in the paper.
    """

    max_length: int
    num_blocks: int = 6
    aligned: bool = False
    ratio: str | float | None = None
    slots_per_token: float | None = None


@dataclass
class OutputConfig:
    """Vocabulary of the output and the weight of its loss; label smoothing and tying for the decoder."""

    vocab: str
    type: str = "tokens"
    ctc_weight: float = 1.0
    label_smoothing: float = 0.0
    tie: bool = True


@dataclass
class AuxiliaryCTCConfig:
    """A CTC loss on hidden states, as in hybrid CTC/attention models.

    ``weight`` is ESPnet's ctc_weight: of this loss and what stands behind it, the shares are weight and 1 - weight.
    """

    vocab: str
    weight: float = 0.3


@dataclass
class StatesOutputConfig:
    """Hidden states for the module behind (baseline), which an auxiliary CTC may ground."""

    type: str = "states"
    ctc: AuxiliaryCTCConfig | None = None


INPUTS = {
    "speech": SpeechConfig,
    "tokens": TokensConfig,
    "states": StatesConfig,
    "wemb": WEmbConfig,
    "beam_conv": BeamConvConfig,
}
OUTPUTS = {"tokens": OutputConfig, "states": StatesOutputConfig}
InputConfig = SpeechConfig | TokensConfig | StatesConfig | WEmbConfig | BeamConvConfig


@dataclass
class ModuleConfig:
    """One module of the list."""

    name: str
    input: Any
    body: BodyConfig
    output: Any
    length_control: LengthControlConfig | None = None
    init: str | InitConfig | None = None
    freeze: Freeze = False
    lr_scale: float = 1.0

    @property
    def decodes(self) -> bool:
        return self.body.type == "transformer_decoder"

    @property
    def donor(self) -> InitConfig | None:
        """``init``, whichever way it is written."""
        return InitConfig(self.init) if isinstance(self.init, str) and self.init else self.init or None

    @property
    def frozen(self) -> dict[str, bool | str]:
        """Parts that are frozen, each with true or eval; the part ``""`` is the whole module."""
        return frozen_parts(self.freeze)

    @property
    def target(self) -> OutputConfig | AuxiliaryCTCConfig | None:
        """What holds the vocabulary of this module's labels; None if it has no loss of its own."""
        return self.output.ctc if isinstance(self.output, StatesOutputConfig) else self.output

    @property
    def vocabs(self) -> set[str]:
        """Names of the vocabularies it reads, writes or is taught with."""
        named = (getattr(side, "vocab", None) for side in (self.input, self.target))
        return {name for name in named if name is not None}

    def rename(self, names: dict[str, str]) -> None:
        """Other names for its vocabularies."""
        for side in (self.input, self.target):
            if side is not None and getattr(side, "vocab", None) in names:
                side.vocab = names[side.vocab]


@dataclass
class ChainConfig:
    """Vocabularies by name, and modules in order."""

    vocabs: dict[str, VocabConfig]
    modules: list[ModuleConfig]


def parse_ratio(value: str | float | int) -> Fraction:
    """``1/1.2``, ``0.83`` or ``2`` to an exact fraction.

    Raises:
        ValueError: not a positive number or quotient of such.
    """
    texts = [part.strip() for part in str(value).split("/")]
    # Before Fraction: 1e999999999 as an exact number would fill the memory.
    if len(texts) > 2 or not all(1e-9 < float(text) < 1e9 for text in texts):
        raise ValueError(value)
    parts = [Fraction(text) for text in texts]
    ratio = parts[0] / parts[1] if len(parts) == 2 else parts[0]
    ratio = ratio.limit_denominator(10000)
    if not ratio:
        raise ValueError(value)
    return ratio


def parse(data: Any) -> ChainConfig:
    """Plain data (from YAML) to a checked ChainConfig.

    Raises:
        ConfigError: every fault found, each with its place.
    """
    reader = Reader()
    if not isinstance(data, dict) or "modules" not in data:
        raise ConfigError("a chain is a mapping with 'vocabs' and 'modules'; see conf/reference.yaml")
    for key in sorted(set(data) - {"vocabs", "modules"}):
        reader.fault(key, f"unknown key{nearest(key, ('vocabs', 'modules'))}")
    vocabs = {}
    raw = data.get("vocabs") or {}
    if not isinstance(raw, dict):
        raise ConfigError("vocabs: must be a mapping of names to vocabularies")
    for name, value in list(raw.items())[:MAX_PARTS]:
        vocabs[name] = reader.build(VocabConfig, value, f"vocabs.{name}")
    if not isinstance(data["modules"], list) or not data["modules"]:
        raise ConfigError([*reader.faults, "modules: must be a list with at least one module, in order"])
    if max(len(raw), len(data["modules"])) > MAX_PARTS:  # checks grow with their product
        raise ConfigError(f"{len(raw)} vocabs and {len(data['modules'])} modules; at most {MAX_PARTS} of each are read")
    modules = [read_module(reader, entry, f"modules[{i}]") for i, entry in enumerate(data["modules"])]
    if reader.faults:
        raise ConfigError(reader.faults)
    config = ChainConfig(vocabs, modules)
    faults = validate(config)
    if faults:
        raise ConfigError(faults)
    return config


def read_module(reader: Reader, entry: Any, where: str) -> Any:
    """One module's description; its name, if it has one, is the place of its faults."""
    if isinstance(entry, dict) and isinstance(entry.get("name"), str):
        where = entry["name"]
    module = reader.build(ModuleConfig, entry, where)
    if module is None:
        return None
    if "input" in entry:
        module.input = reader.choose(INPUTS, module.input, f"{where}.input")
    if "output" in entry:
        module.output = reader.choose(OUTPUTS, module.output, f"{where}.output", "tokens")
    return module


def validate(config: ChainConfig) -> list[str]:
    """Faults that concern several keys or modules."""
    faults = []
    names = [m.name for m in config.modules]
    for name, vocab in config.vocabs.items():
        if not NAME.fullmatch(str(name)):  # it becomes a file name
            faults.append(f"vocabs.{name}: a name is letters, digits and '_', beginning with a letter")
        if isinstance(vocab.tokens, list):
            odd = [t for t in vocab.tokens if not isinstance(t, str)]
            if odd:
                faults.append(f"vocabs.{name}.tokens: {odd[0]!r} is no string; YAML reads yes, no and 1.0 so, quote it")
        elif not isinstance(vocab.tokens, str):
            faults.append(f"vocabs.{name}.tokens: must be a file or a list of tokens, found {vocab.tokens!r}")
    from torch import nn  # here, so that reading cards needs no torch

    for name in names:
        if hasattr(nn.ModuleDict, name):
            faults.append(f"{name}: is a word of PyTorch's; choose another name")
        if not NAME.fullmatch(name):
            faults.append(f"{name}: a module's name is letters, digits and '_', beginning with a letter")
    if len(set(names)) != len(names):
        faults.append(f"modules: names must differ, found {', '.join(names)}")
    for i, module in enumerate(config.modules):
        faults += _validate_module(config, module, first=i == 0, last=i == len(names) - 1)
    for before, after in zip(config.modules, config.modules[1:]):
        faults += _validate_pair(before, after)
    return faults


def _validate_module(config: ChainConfig, module: ModuleConfig, first: bool, last: bool) -> list[str]:
    faults, name, body, control = [], module.name, module.body, module.length_control
    for side in ("input", "output", "output.ctc"):
        vocab = getattr(_inner(module, side), "vocab", None)
        if vocab is not None and vocab not in config.vocabs:
            faults.append(f"{name}.{side}.vocab: {vocab!r} is not in vocabs{nearest(vocab, config.vocabs)}")
    if body.type not in ("transformer", "transformer_decoder"):
        faults.append(f"{name}.body.type: {body.type!r} is not transformer or transformer_decoder")
    faults += _validate_numbers(module)
    if body.heads < 1 or body.size % body.heads or body.size % 2:
        faults.append(f"{name}.body: size {body.size} must be even and a multiple of heads ({body.heads})")
    faults += check_parts(name, module.decodes, module.init, module.freeze)
    if module.decodes and not last:
        faults.append(f"{name}: a decoder module ends a chain, but {name} is followed by another module")
    if module.decodes and control is not None:
        faults.append(
            f"{name}.length_control: a decoder module has no slots to control; put it into the encoder module"
        )
    if module.decodes and isinstance(module.output, StatesOutputConfig):
        faults.append(f"{name}.output: a decoder module writes tokens, not states")
    if module.decodes and isinstance(module.input, (SpeechConfig, TokensConfig)):
        faults.append(f"{name}.input: a decoder module reads marginals (wemb, beam_conv) or states")
    if control is not None:
        faults += _validate_control(name, control)
    field_width = getattr(module.input, "receptive_field", 1)
    if field_width < 1 or field_width % 2 == 0:
        faults.append(f"{name}.input.receptive_field: {field_width} is not an odd number >= 1")
    if isinstance(module.input, SpeechConfig):
        if module.input.normalize not in ("utterance", "global", "none"):
            faults.append(f"{name}.input.normalize: {module.input.normalize!r} is not utterance, global or none")
        if len(module.input.channels) != 2:
            faults.append(f"{name}.input.channels: two numbers, one for each block")
        elif min(module.input.channels) < 1:
            faults.append(f"{name}.input.channels: {min(module.input.channels)} is not at least 1")
    return faults


# Least and (excluded) greatest value of numbers, by key.
RANGES = {
    "num_blocks": (0, 1000),
    "size": (2, None),
    "heads": (1, None),
    "linear_units": (1, None),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
    "activation_dropout": (0, 1),
    "max_length": (1, None),
    "slots_per_token": (1e-3, None),
    "k": (1, None),
    "embed_size": (1, None),
    "ctc_weight": (0, None),
    "weight": (0, 1),
    "label_smoothing": (0, 1),
    "lr_scale": (0, None),
    "fs": (1000, None),
    "n_mels": (4, None),
}


def _validate_numbers(module: ModuleConfig) -> list[str]:
    faults = []
    for place in ("", "input.", "body.", "output.", "output.ctc.", "length_control."):
        for key, (least, bound) in RANGES.items():
            value = getattr(_inner(module, place), key, None)
            if value is not None and (value < least or (bound is not None and value >= bound)):
                limits = f"at least {least}" + (f" and less than {bound}" if bound is not None else "")
                faults.append(f"{module.name}.{place}{key}: {value} is not {limits}")
    return faults


def _inner(module: ModuleConfig, place: str) -> Any:
    inner: Any = module
    for key in filter(None, place.split(".")):
        inner = getattr(inner, key, None)
    return inner


def _validate_control(name: str, control: LengthControlConfig) -> list[str]:
    if control.ratio is None and control.slots_per_token is None:
        return [f"{name}.length_control: give ratio, or slots_per_token to derive it from the data"]
    if control.ratio is not None:
        try:
            parse_ratio(control.ratio)
        except (ValueError, ZeroDivisionError):
            return [
                f"{name}.length_control.ratio: {control.ratio!r} is not a positive number or quotient such as 1/1.2"
            ]
    return []


def _validate_pair(before: ModuleConfig, after: ModuleConfig) -> list[str]:
    where = f"{before.name} -> {after.name}"
    writes = "states" if isinstance(before.output, StatesOutputConfig) else "marginals"
    reads = {SpeechConfig: "speech", TokensConfig: "tokens", StatesConfig: "states"}.get(type(after.input), "marginals")
    if writes != reads:
        return [f"{where}: {before.name} writes {writes}, {after.name} reads {reads}"]
    if writes == "states" and before.body.size != after.body.size:
        return [f"{where}: states of width {before.body.size} are written, {after.body.size} are read"]
    if writes == "marginals" and before.output.vocab != after.input.vocab:
        return [f"{where}: vocabulary {before.output.vocab!r} is written, {after.input.vocab!r} is read"]
    return []


def require_taught(config: ChainConfig) -> None:
    """Does every module that is to be trained get a gradient? Chains that are only loaded need none.

    Raises:
        ConfigError: modules that no loss reaches.
    """
    faults: list[str] = []
    behind: ModuleConfig | None = None
    reached = False
    for module in reversed(config.modules):
        shut = behind is not None and isinstance(behind.input, BeamConvConfig)
        own = isinstance(module.output, OutputConfig) and module.output.ctc_weight > 0
        own |= isinstance(module.output, StatesOutputConfig) and bool(module.output.ctc and module.output.ctc.weight)
        reached = module.decodes or own or (reached and not shut)
        if not reached and "" not in module.frozen:
            why = "nothing behind it passes a gradient" if behind else "nothing stands behind it"
            if behind and shut:
                why = f"{behind.name} reads ranks (beam_conv), which pass no gradient"
            faults.append(
                f"{module.name}: no loss would train it: its ctc_weight is 0, and {why}; give it a ctc_weight above 0, "
                "put a wemb ingestor behind it, or freeze it"
            )
        behind = module
    if faults:
        raise ConfigError(faults)


def override(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Plain data with changes by module name (``{"decoder": {"body": {"num_blocks": 3}}}``) merged in.

    Raises:
        ConfigError: a change names no module.
    """
    data = copy.deepcopy(data)
    odd = [
        f"modules_conf: {name} must be a mapping of changes, found {c!r}"
        for name, c in changes.items()
        if not isinstance(c, dict)
    ]
    if odd:
        raise ConfigError(odd)
    by_name = {m.get("name"): m for m in data["modules"]}
    unknown = [f"modules_conf: no module is called {n!r}{nearest(n, by_name)}" for n in changes if n not in by_name]
    if unknown:
        raise ConfigError(unknown)
    for name, change in changes.items():
        _merge(by_name[name], change)
    return data


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key == "init" and isinstance(into.get(key), str) and isinstance(value, dict):
            into[key] = {"from": into[key], **value}  # the short form names the donor
        else:
            into[key] = value


def plain(config: ChainConfig | ModuleConfig | VocabConfig) -> dict[str, Any]:
    """Back to plain data, ready for safe YAML; ``parse(plain(c)) == c``."""
    return to_plain(config)
