"""A chain described in YAML: schema, validation with all faults at once, overrides by module name.

The schema is the dataclasses below and those of parts and bodies; ``conf/reference.yaml`` explains every key.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import Reader, nearest, to_plain
from espnet2_legonn.model.bodies import BODIES
from espnet2_legonn.model.freeze import Freeze, InitConfig, check_parts, frozen_parts
from espnet2_legonn.model.parts import INPUTS, OUTPUTS, Column, InputPart, OutputPart, beginnings
from espnet2_legonn.model.registry import Configs

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
class ModuleConfig:
    """One module of the list."""

    name: str
    input: Any
    body: Any
    output: Any
    length_control: LengthControlConfig | None = None
    init: str | InitConfig | None = None
    freeze: Freeze = False
    lr_scale: float = 1.0

    @property
    def reads(self) -> type[InputPart]:
        """The class of its input."""
        return INPUTS[self.input.type]

    @property
    def writes(self) -> type[OutputPart]:
        """The class of its output."""
        return OUTPUTS[self.output.type]

    @property
    def decodes(self) -> bool:
        return bool(BODIES[self.body.type].decodes)

    @property
    def donor(self) -> InitConfig | None:
        """``init``, whichever way it is written."""
        return InitConfig(self.init) if isinstance(self.init, str) and self.init else self.init or None

    @property
    def frozen(self) -> dict[str, bool | str]:
        """Parts that are frozen, each with true or eval; the part ``""`` is the whole module."""
        return frozen_parts(self.freeze)

    @property
    def trains(self) -> bool:
        """Is any part of it trained? Not if ``freeze`` names the whole module."""
        return "" not in self.frozen

    @property
    def target(self) -> Any:
        """What holds the vocabulary of this module's labels; None if it has no loss of its own."""
        return self.writes.target(self.output)

    @property
    def source_vocab(self) -> str | None:
        """Name of the vocabulary it reads, if it reads one."""
        return getattr(self.input, "vocab", None)

    @property
    def target_vocab(self) -> str | None:
        """Name of the vocabulary of its labels, if it has any."""
        return None if self.target is None else str(self.target.vocab)

    @property
    def vocabs(self) -> set[str]:
        """Names of the vocabularies it reads, writes or is taught with."""
        return {name for name in (self.source_vocab, self.target_vocab) if name is not None}

    def rename(self, names: dict[str, str]) -> None:
        """Other names for its vocabularies."""
        if self.source_vocab in names:
            self.input.vocab = names[self.source_vocab]
        if self.target_vocab in names:
            self.target.vocab = names[self.target_vocab]


@dataclass
class ChainConfig:
    """Vocabularies by name, and modules in order."""

    vocabs: dict[str, VocabConfig]
    modules: list[ModuleConfig]

    @property
    def column(self) -> Column:
        """Where data directories have what the chain reads.

        Raises:
            ConfigError: none has it.
        """
        first = self.modules[0]
        if first.reads.data is None:
            kinds = " or ".join(beginnings())
            raise ConfigError(f"{first.name}: a recipe begins with {kinds}, not with {first.input.type}")
        return first.reads.data


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
    registries = {"input": (INPUTS, None), "body": (BODIES, "transformer"), "output": (OUTPUTS, "tokens")}
    for key, (registry, usual) in registries.items():
        if key in entry:
            setattr(module, key, reader.choose(Configs(registry), getattr(module, key), f"{where}.{key}", usual))
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
    if module.decodes and module.output.type != "tokens":
        faults.append(f"{name}.output: a decoder module writes tokens, not {module.output.type}")
    if module.decodes and module.reads.data is not None:
        faults.append(f"{name}.input: a decoder module reads marginals (wemb, beam_conv) or states")
    if control is not None:
        faults += _validate_control(name, control)
    if hasattr(body, "faults"):
        faults += body.faults(f"{name}.body")
    faults += _validate_regularization(module)
    return faults + module.reads.faults(module.input, f"{name}.input")


# Least and (excluded) greatest value of numbers, by key.
RANGES = {
    "num_blocks": (0, 1000),
    "size": (2, None),
    "heads": (1, None),
    "linear_units": (1, None),
    "dropout": (0, 1),
    "attention_dropout": (0, 1),
    "references": (0, 1),
    "activation_dropout": (0, 1),
    "max_length": (1, None),
    "slots_per_token": (1e-3, None),
    "k": (1, None),
    "embed_size": (1, None),
    "ctc_weight": (0, None),
    "consistency": (0, None),
    "glancing": (0, 1),
    "weight": (0, 1),
    "label_smoothing": (0, 1),
    "lr_scale": (0, None),
    "fs": (1000, None),
    "n_mels": (4, None),
}


def _validate_numbers(module: ModuleConfig) -> list[str]:
    faults = []
    for place in ("", "input.", "body.", "output.", "output.ctc.", "output.intermediate.", "length_control."):
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


def _validate_regularization(module: ModuleConfig) -> list[str]:
    """What is added to a CTC loss needs one, intermediate CTC blocks to stand between, glancing queries to fill in."""
    output, where = module.output, f"{module.name}.output"
    given = [key for key in ("intermediate", "consistency", "glancing") if getattr(output, key, None)]
    if given and module.decodes:
        return [f"{where}.{key}: is for CTC, which encoder modules have; put it into the one before" for key in given]
    if given and not module.writes.teaches(output):
        return [f"{where}.{key}: is a part of the CTC loss, and ctc_weight is 0" for key in given]
    faults = []
    if "glancing" in given and module.length_control is None:
        faults.append(f"{where}.glancing: shows tokens to the slots that length_control makes; give length_control")
    if "intermediate" in given:
        faults += _validate_intermediate(module, f"{where}.intermediate")
    return faults


def _validate_intermediate(module: ModuleConfig, where: str) -> list[str]:
    """Intermediate CTC stands between blocks: those of length control, or of a body that opens."""
    control, kind = module.length_control, module.body.type
    if control is None and not getattr(BODIES[kind], "opens", False):
        return [
            f"{where}: nothing can stand between the blocks of a body of type {kind}; give length_control, "
            "whose own blocks it then stands between, or a body of type transformer"
        ]
    stack, number = ("body", module.body.num_blocks) if control is None else ("length_control", control.num_blocks)
    if number < 2:
        return [f"{where}: stands between blocks, and {stack} has {number}; give it two or more"]
    blocks = module.output.intermediate.blocks
    if not blocks or len(set(blocks)) < len(blocks) or not all(0 < block < number for block in blocks):
        return [
            f"{where}.blocks: {blocks}: must be different numbers from 1 to {number - 1}; {stack} has {number} blocks, "
            "and behind the last one stands the interface itself"
        ]
    return []


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
    writes, reads = before.writes.kind, after.reads.kind
    if writes != reads:
        return [f"{where}: {before.name} writes {writes}, {after.name} reads {reads}"]
    if writes == "states" and before.body.size != after.body.size:
        return [f"{where}: states of width {before.body.size} are written, {after.body.size} are read"]
    if writes == "marginals" and before.target_vocab != after.source_vocab:
        return [f"{where}: vocabulary {before.target_vocab!r} is written, {after.source_vocab!r} is read"]
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
        shut = behind is not None and not behind.reads.passes_gradient
        reached = module.decodes or module.writes.teaches(module.output) or (reached and not shut)
        if not reached and module.trains:
            why = "nothing behind it passes a gradient" if behind else "nothing stands behind it"
            if behind and shut:
                why = f"{behind.name} reads ranks ({behind.input.type}), which pass no gradient"
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
