"""A chain: modules in order, each output interface equal to the next input interface.

::

    speech -> [encoder module] -> P(phn) -> [encoder module] -> P(bpe) -> [decoder module] -> text
                                  CTC loss                      CTC loss                      CE loss   (eq. 9)
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, InterfaceMismatch
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.model.build import build_modules
from espnet2_legonn.model.ctc import ctc_loss
from espnet2_legonn.model.description import ChainConfig, ModuleConfig, parse
from espnet2_legonn.model.interface import Interface, Marginals, SearchChoice, require_match
from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.model.module import DecoderModule, EncoderModule, Module, consumed, learns, parts_of, produced
from espnet2_legonn.model.parts.ingestor import Ingestor


class Labels(NamedTuple):
    """Target ids (B, L), padded with -1, and their lengths (B,)."""

    ids: torch.Tensor
    lengths: torch.Tensor


@dataclass
class ModuleLoss:
    """What one module's loss adds to equation 9.

    Args:
        total: sum over the batch in nats (0-dim, with gradient), weight included.
        tokens: number of target tokens it is a sum over (0-dim); the loss is ``total / tokens``.
        stats: figures to log, each a (sum, count) pair of 0-dim tensors; ``infeasible`` is of utterances.
    """

    total: torch.Tensor
    tokens: torch.Tensor
    stats: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class Chain(nn.Module):
    """A sequence of modules: ``chain[:-1]``, ``chain[0]``, ``len(chain)`` and ``chain + other`` share the modules.

    Args:
        modules: in order.
        configs: their descriptions, same order.
        vocabs: vocabularies by the names that ``configs`` use.

    ``search`` holds the weights that were tuned for this chain as a whole; a slice or a sum is another chain and has
    none.
    """

    search: SearchChoice | None = None

    def __init__(
        self, modules: Sequence[Module], configs: Sequence[ModuleConfig], vocabs: dict[str, Vocabulary]
    ) -> None:
        super().__init__()
        self.mods = nn.ModuleDict({config.name: module for config, module in zip(configs, modules)})
        self.configs, self.vocabs = list(configs), dict(vocabs)
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
        modules, vocabs = build_modules(config, base)
        return cls(modules, config.modules, vocabs)

    # -- a sequence ------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        return [config.name for config in self.configs]

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
        return len(self.configs)

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
        chosen = self.configs[item] if isinstance(item, slice) else [self.configs[item]]
        if not chosen:
            raise IndexError(f"no module left: this chain has {', '.join(self.names)}")
        used = {name for config in chosen for name in config.vocabs}
        vocabs = {name: v for name, v in self.vocabs.items() if name in used}
        return type(self)([self._module(c.name) for c in chosen], chosen, vocabs)

    def __add__(self, other: Chain) -> Self:
        """Plug ``other`` behind this chain.

        Raises:
            InterfaceMismatch: with every reason. What only differs from training is a warning.
        """
        check_plug(self, other)
        names = _merged_names(self.vocabs, other.vocabs)
        joint = getattr(self.configs[-1].output, "vocab", None)
        if joint is not None:  # checked above: what one writes is what the other reads
            names[getattr(other.configs[0].input, "vocab", joint)] = joint
        vocabs = {**{names[n]: v for n, v in other.vocabs.items()}, **self.vocabs}
        configs = list(self.configs)
        for config in other.configs:
            configs.append(_renamed(config, names, {c.name for c in configs}))
        return type(self)([*self, *other], configs, vocabs)

    # -- training --------------------------------------------------------------------------------------------------

    def apply_freeze(self) -> None:
        """Make parameters follow ``freeze`` of each description; a matrix tied to a frozen part is frozen.

        Raises:
            ConfigError: parts that a module does not have.
        """
        faults = []
        for config, module in zip(self.configs, self):
            known = parts_of(module) if set(config.frozen) - {""} else []
            for part in config.frozen:
                if part and part not in known:
                    top = ", ".join(p for p in known if "." not in p)
                    faults.append(f"{config.name}.freeze: no part {part!r}{nearest(part, known)}; it has {top}, ...")
                else:
                    module.get_submodule(part).requires_grad_(False)
        if faults:
            raise ConfigError(faults)
        self._keep_evaluated()

    def _keep_evaluated(self) -> None:
        for config, module in zip(self.configs, self):
            for part, how in config.frozen.items():
                if how == "eval":
                    module.get_submodule(part).eval()

    def train(self, mode: bool = True) -> Self:
        """As in torch; what has ``freeze: eval`` stays in evaluation mode (no dropout)."""
        super().train(mode)
        self._keep_evaluated()
        return self

    def losses(self, x: torch.Tensor, lengths: torch.Tensor, labels: dict[str, Labels]) -> dict[str, ModuleLoss]:
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
                parts[name] = _cross_entropy(module, x, lengths, labels[name], share)
                break
            x, lengths = module(x, lengths)
            log_probs = module.log_probs(x)
            if log_probs is not None:
                parts[name] = _ctc(module, log_probs, lengths, labels[name], share)
                if i + 1 < len(self) and self.training:
                    _observe(self._module(self.names[i + 1]), lengths, labels[name].lengths)
            share *= module.share_behind
        return parts

    # -- reading ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[dict[str, Marginals], torch.Tensor, torch.Tensor]:
        """Run the encoder modules.

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
            x, lengths = module(x, lengths)
            control = module.length_control
            cut = 0 if control is None else int((lengths >= control.max_length).sum())
            if control is not None and cut:
                warnings.warn(
                    f"{name}: {cut} of {len(lengths)} inputs reached the maximum of {control.max_length} slots; "
                    "what lies beyond is lost, split the input or train with a larger max_length",
                    stacklevel=2,
                )
            interface, log_probs = produced(module), module.log_probs(x)
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
    collapses = isinstance(reader.input, Ingestor) and reader.input.collapse_slots
    for warning in require_match(source, sink, where, collapses):
        warnings.warn(warning, stacklevel=4)


def _merged_names(left: dict[str, Vocabulary], right: dict[str, Vocabulary]) -> dict[str, str]:
    """Names in the sum for the vocabularies of ``right``: an equal one of ``left`` wins, clashes are renamed."""
    taken, names = dict(left), {}
    for name, vocab in right.items():
        equal = [n for n, v in left.items() if v == vocab]
        final, i = (equal[0] if equal else name), 2
        while not equal and final in taken:
            final, i = f"{name}_{i}", i + 1
        names[name] = final
        taken[final] = vocab
    return names


def _renamed(config: ModuleConfig, vocabs: dict[str, str], taken: set[str]) -> ModuleConfig:
    """The description with the sum's vocabulary names and a name of its own."""
    config = copy.deepcopy(config)
    config.rename(vocabs)
    name, i = config.name, 2
    while config.name in taken:
        config.name, i = f"{name}_{i}", i + 1
    return config


def _observe(reader: Module, slots: torch.Tensor, tokens: torch.Tensor) -> None:
    """Let a reader that learns note what it reads; a frozen one keeps the contract it was trained with."""
    if isinstance(reader.input, Ingestor) and learns(reader):
        reader.input.seen.update(slots, tokens)


def _ctc(
    module: EncoderModule, log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels, share: float
) -> ModuleLoss:
    assert module.interface is not None
    if module.training and learns(module):
        module.interface.seen.update(slots, labels.lengths)
    nll, impossible = ctc_loss(log_probs, slots, *labels)
    tokens = labels.lengths.masked_fill(impossible, 0).sum()
    with torch.no_grad():
        blanks = ((log_probs.argmax(-1) == 0) & valid_mask(slots, log_probs.shape[1])).sum()
        stats = {
            "ctc": (nll.detach().sum(), tokens),
            "infeasible": (impossible.sum(), torch.full_like(tokens, len(slots))),
            "slots_per_token": (slots.sum(), labels.lengths.sum()),
            "blank": (blanks, slots.sum()),
        }
    return ModuleLoss(share * module.ctc_weight * nll.sum(), tokens, stats)


def _cross_entropy(
    module: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, labels: Labels, share: float
) -> ModuleLoss:
    logits, targets = module(x, lengths, *labels)
    flat = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    wanted = targets.flatten()
    total = F.cross_entropy(flat, wanted, ignore_index=-1, label_smoothing=module.label_smoothing, reduction="sum")
    with torch.no_grad():
        tokens = (wanted >= 0).sum()
        right = ((flat.argmax(-1) == wanted) & (wanted >= 0)).sum()
    return ModuleLoss(share * total, tokens, {"ce": (total.detach(), tokens), "acc": (right, tokens)})
