"""A chain: modules in order, each output interface equal to the next input interface.

::

    speech -> [encoder module] -> P(phn) -> [encoder module] -> P(bpe) -> [decoder module] -> text
                                  CTC loss                      CTC loss                      CE loss   (eq. 9)
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import time
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, InterfaceMismatch
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.model.bridge import can_cross, cross
from espnet2_legonn.model.build import build_modules
from espnet2_legonn.model.description import ChainConfig, ModuleConfig, parse
from espnet2_legonn.model.interface import Interface, Marginals, SearchChoice, require_match
from espnet2_legonn.model.losses import Labels, ModuleLoss
from espnet2_legonn.model.module import DecoderModule, EncoderModule, Module, Read, consumed, learns, parts_of, produced
from espnet2_legonn.model.parts import InputPart, OutputPart

__all__ = ["Chain", "Labels", "ModuleLoss", "check_plug", "warn_of_plug"]


class Chain(nn.Module):
    """A sequence of modules: ``chain[:-1]``, ``chain[0]``, ``len(chain)`` and ``chain + other`` share the modules.

    Args:
        modules: in order; each knows its description.
        vocabs: vocabularies by name; where a module's description calls one otherwise, ``configs`` uses this name.
        names: of the modules here; by default those of their descriptions.

    ``search`` holds the weights that were tuned for this chain as a whole; a slice or a sum is another chain and has
    none.
    """

    search: SearchChoice | None = None

    def __init__(
        self, modules: Sequence[Module], vocabs: Mapping[str, Vocabulary], names: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.mods = nn.ModuleDict()
        for name, module in zip(names or [module.config.name for module in modules], modules):
            self.mods[_free(name, list(self.mods))] = module
        self.vocabs = dict(vocabs)
        # Shared modules keep their mode: a slice or a sum of evaluated chains is evaluated.
        self.training = self.mods.training = any(module.training for module in modules)
        self.apply_freeze()

    @classmethod
    def from_config(cls, config: str | Path | dict[str, Any] | ChainConfig) -> Self:
        """Fresh weights from a YAML file, plain data or a parsed description.

        Raises:
            ConfigError, DataError: everything that is wrong with it.
        """
        base = None
        if isinstance(config, (str, Path)):
            base, config = Path(config).parent, read_config(config)
        if isinstance(config, dict):  # a training config holds options of training besides
            config = {k: v for k, v in config.items() if k in ("vocabs", "modules")}
        if not isinstance(config, ChainConfig):
            config = parse(config)
        return cls(*build_modules(config, base))

    # -- a sequence ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return list(self.mods)

    @property
    def configs(self) -> list[ModuleConfig]:
        """Copies of the modules' descriptions, with the names that modules and vocabularies have in this chain.

        To change one, change ``module.config``.
        """
        found: list[ModuleConfig] = []
        for name, module in zip(self.names, self):
            found.append(_described(module, name, self.vocabs, found[-1].target_vocab if found else None))
        return found

    @property
    def input_kind(self) -> str:
        return self.first.ports[0].kind

    @property
    def first(self) -> Module:
        return self._module(self.names[0])

    @property
    def last(self) -> Module:
        return self._module(self.names[-1])

    def _module(self, name: str) -> Module:
        return cast(Module, self.mods[name])  # ModuleDict knows only nn.Module

    def __len__(self) -> int:
        return len(self.mods)

    def __iter__(self) -> Iterator[Module]:
        return iter(cast(list[Module], list(self.mods.values())))

    def __getitem__(self, item: int | str | slice) -> Self:
        """A shorter chain that shares its modules with this one."""
        if isinstance(item, str):
            if item not in self.mods:
                raise KeyError(f"no module is called {item!r}; this chain has {', '.join(self.names)}")
            item = self.names.index(item)
        if isinstance(item, slice) and item.step not in (None, 1):
            raise IndexError("a chain has no steps: modules that do not follow each other do not fit")
        names = self.names[item] if isinstance(item, slice) else [self.names[item]]
        if not names:
            raise IndexError(f"no module left: this chain has {', '.join(self.names)}")
        used = {vocab for config in self.configs if config.name in names for vocab in config.vocabs}
        vocabs = {name: v for name, v in self.vocabs.items() if name in used}
        return type(self)([self._module(name) for name in names], vocabs, names)

    def __add__(self, other: Chain) -> Self:
        """Plug ``other`` behind this chain.

        Raises:
            InterfaceMismatch: with every reason. What only differs from training is a warning.
        """
        check_plug(self, other)
        vocabs = dict(self.vocabs)
        for name, vocab in other.vocabs.items():
            # An equal one has a name here already; what one writes is what the other reads, as was checked.
            if vocab not in (*vocabs.values(), other.first.ports[0].vocab):
                vocabs[_free(name, vocabs)] = vocab
        names = self.names
        for name in other.names:
            names.append(_free(name, names))
        return type(self)([*self, *other], vocabs, names)

    # -- training --------------------------------------------------------------------------------------------------

    def apply_freeze(self) -> None:
        """Make parameters follow ``freeze`` of each description; a matrix tied to a frozen part is frozen.

        Raises:
            ConfigError: parts that a module does not have.
        """
        faults = []
        for name, module in zip(self.names, self):
            frozen = module.config.frozen
            known = parts_of(module) if set(frozen) - {""} else []
            for part in frozen:
                if part and part not in known:
                    top = ", ".join(p for p in known if "." not in p)
                    faults.append(f"{name}.freeze: no part {part!r}{nearest(part, known)}; it has {top}, ...")
                else:
                    module.get_submodule(part).requires_grad_(False)
        if faults:
            raise ConfigError(faults)
        self._keep_evaluated()

    def _keep_evaluated(self) -> None:
        for module in self:
            for part, how in module.config.frozen.items():
                if how == "eval":
                    module.get_submodule(part).eval()

    def train(self, mode: bool = True) -> Self:
        """As in torch; what has ``freeze: eval`` stays in evaluation mode (no dropout)."""
        super().train(mode)
        self._keep_evaluated()
        return self

    def losses(self, x: Read, lengths: torch.Tensor, labels: dict[str, Labels]) -> dict[str, ModuleLoss]:
        """Loss of each module: CTC at every inner interface, cross-entropy at the end (equation 9).

        Frozen leading modules keep no graph: nothing that needs a gradient goes into them.

        Args:
            x: input of the first port: waveforms (B, samples), ids (B, T) or marginals (B, K, V).
            lengths: (B,).
            labels: targets by module name.

        Raises:
            DataError: labels of a module are missing.
        """
        missing = [n for n, m in zip(self.names, self) if n not in labels and m.ports[1].vocab is not None]
        if missing:
            raise DataError(f"no labels for module {', '.join(missing)}: give text, or text_<module>")
        parts: dict[str, ModuleLoss] = {}
        share = 1.0
        for i, (name, module) in enumerate(zip(self.names, self)):
            if isinstance(module, DecoderModule):
                last = module.loss(x, lengths, labels[name])
                parts[name] = dataclasses.replace(last, total=share * last.total)
                break
            loss, x, lengths = self._passed(i, x, lengths, labels.get(name))
            output = module.interface
            if loss is not None:
                parts[name] = dataclasses.replace(loss, total=share * loss.total)
                if module.training:
                    _observe(module, output, lengths, labels[name].lengths)
                if i + 1 < len(self) and self.training:
                    reader = self._module(self.names[i + 1])
                    _observe(reader, reader.input, lengths, labels[name].lengths)
            share *= output.share_behind
        return parts

    def _passed(
        self, i: int, x: Read, lengths: torch.Tensor, labels: Labels | None
    ) -> tuple[ModuleLoss | None, Read, torch.Tensor]:
        """Loss of encoder module i, and what the next one reads."""
        module = self._module(self.names[i])
        assert isinstance(module, EncoderModule)
        reader = self._module(self.names[i + 1]).input if i + 1 < len(self) else None
        output, kept = module.interface, list[torch.Tensor]()
        states, slots = module.states(x, lengths, kept, labels)
        if labels is not None and can_cross(output, reader, states):
            return *cross(output, reader, states, slots, labels), slots
        written = output(states)
        log_probs = output.log_probs(written)
        if log_probs is None or labels is None:
            return None, written, slots
        passes = [[*kept, log_probs]]
        if module.passes_twice:
            again = list[torch.Tensor]()
            other = output.log_probs(output(module.states(x, lengths, again, labels)[0]))
            assert other is not None
            passes.append([*again, other])
        read = written if reader is None else reader.taught(written, slots, labels)
        return output.loss_of_passes(passes, slots, labels), read, slots

    # -- reading ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(
        self, x: torch.Tensor, lengths: torch.Tensor, seconds: dict[str, float] | None = None
    ) -> tuple[dict[str, Marginals], torch.Tensor, torch.Tensor]:
        """Run the encoder modules.

        Args:
            x: a batch of the first port's kind; lengths: (B,).
            seconds: what each module took goes there.

        Returns:
            marginals of every interface by module name, and input (B, ...) and lengths (B,) of the decoder
            (or the last output where there is none).

        Raises:
            DataError: probabilities are NaN.
        """
        found: dict[str, Marginals] = {}
        for name, module in zip(self.names, self):
            if isinstance(module, DecoderModule):
                break
            started = time.perf_counter()
            x, lengths = module(x, lengths)
            if seconds is not None:
                seconds[name] = time.perf_counter() - started
            control = module.length_control
            cut = 0 if control is None else int((lengths >= control.max_length).sum())
            if control is not None and cut:
                warnings.warn(
                    f"{name}: {cut} of {len(lengths)} inputs reached the maximum of {control.max_length} slots; "
                    "what lies beyond is lost, split the input or train with a larger max_length",
                    stacklevel=2,
                )
            interface, log_probs = produced(module), module.interface.log_probs(x)
            if interface is not None and log_probs is not None:
                found[name] = Marginals(log_probs, lengths, interface)
                found[name].require_numbers(name)
        return found, x, lengths


def check_plug(left: Chain, right: Chain) -> None:
    """May ``right`` read what ``left`` writes? Warnings for what only differs from training.

    Raises:
        InterfaceMismatch: with every reason.
    """
    writer, reader = left.last, right.first
    where = f"{left.names[-1]} -> {right.names[0]}"
    out, into = writer.ports[1], reader.ports[0]
    if out.kind != into.kind:
        raise InterfaceMismatch(f"{where}: {left.names[-1]} writes {out.kind}, {right.names[0]} reads {into.kind}")
    if out.kind == "states":
        if out.size != into.size:
            raise InterfaceMismatch(f"{where}: states of width {out.size} are written, {into.size} are read")
        warnings.warn(
            f"{where}: hidden states are no interface; only modules trained together understand them", stacklevel=3
        )
        return
    source = produced(writer)
    assert source is not None
    warn_of_plug(source, reader, where)


def warn_of_plug(source: Interface, reader: Module, where: str) -> None:
    """May ``reader`` read what is written so, by a module or in Marginals? Warnings for what differs from training.

    Raises:
        InterfaceMismatch: with every reason.
    """
    sink = consumed(reader)
    assert sink is not None
    for warning in require_match(source, sink, where, reader.input.collapse_slots):
        warnings.warn(warning, stacklevel=4)


def _free(name: str, taken: Container[str]) -> str:
    """The name, or the first of ``name_2``, ``name_3``, ... that is not taken."""
    numbered = (f"{name}_{i}" for i in itertools.count(2))
    return name if name not in taken else next(n for n in numbered if n not in taken)


def _described(module: Module, name: str, vocabs: Mapping[str, Vocabulary], written: str | None) -> ModuleConfig:
    """The module's description with these names of itself and of its vocabularies.

    Args:
        written: name of the vocabulary before it; of several that fit, the module reads that one.
    """
    config = copy.deepcopy(module.config)
    reads, writes = (port.vocab for port in module.ports)
    names: dict[str, str] = {}
    if config.source_vocab is not None and reads is not None:
        names[config.source_vocab] = written or _name_of(config.source_vocab, reads, vocabs)
    if config.target_vocab is not None and writes is not None and config.target_vocab not in names:
        names[config.target_vocab] = _name_of(config.target_vocab, writes, vocabs)
    config.name = name
    config.rename(names)
    return config


def _name_of(own: str, vocab: Vocabulary, vocabs: Mapping[str, Vocabulary]) -> str:
    """The module's own name for it, that of an equal one, or that of one with its tokens, which a plug found to fit."""
    if vocabs.get(own) == vocab:
        return own
    equal = [name for name, other in vocabs.items() if other == vocab]
    return next(iter(equal or [name for name, other in vocabs.items() if other.sha256 == vocab.sha256]))


def _observe(module: Module, part: InputPart | OutputPart, slots: torch.Tensor, tokens: torch.Tensor) -> None:
    """Let a part of a module that learns note what it saw; a frozen module keeps the contract it was trained with."""
    if part.contract is not None and learns(module):
        part.contract.update(slots, tokens)
