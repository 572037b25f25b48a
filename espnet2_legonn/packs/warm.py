"""Warm starts: the weights of a module, or of some of its parts, from a trained one (``init``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch

from espnet2_legonn.errors import CheckpointError, LegoNNError
from espnet2_legonn.files.schema import nearest, to_plain
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.description import ModuleConfig
from espnet2_legonn.model.freeze import within
from espnet2_legonn.model.module import learns, parts_of
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.packs.store import Misfit, pair, tied

# What a description says of each part: facts that shapes follow from, and facts that no shape betrays.
SHAPES = {
    "input": ("type", "receptive_field", "num_blocks", "k", "embed_size", "n_mels", "channels"),
    "body": ("num_blocks", "size", "linear_units"),
    "length_control": ("max_length", "num_blocks"),
    "output": ("type", "tie"),
}
MEANINGS = {"input": ("collapse", "fs", "normalize"), "body": ("heads",), "length_control": ("aligned",)}


def init_modules(chain: Chain, load: Callable[[str], Chain]) -> list[str]:
    """Fill modules from the ``init`` of their descriptions; all of them or, if anything does not fit, none.

    The donor's module is the one of the same name unless given. What ports saw is forgotten unless the module is
    frozen.

    Args:
        load: a chain from what stands before ``#``.

    Returns:
        for each module that was filled, for the log: what was taken, what was left, what had another shape.

    Raises:
        CheckpointError: every donor that is missing or does not fit, with the remedy.
    """
    donors: dict[str, Chain] = {}
    grafts, faults = [], []
    for config in chain.configs:
        if config.donor is None:
            continue
        source = config.donor.source.partition("#")[0]
        try:
            if source not in donors:
                donors[source] = load(source)
            grafts.append(Graft(chain, config, donors[source]))
        except LegoNNError as error:
            faults += error.faults
    if faults:
        raise CheckpointError(dict.fromkeys(faults))
    return [graft.apply() for graft in grafts]


def forget(chain: Chain) -> None:
    """Reset what the ports saw: they are about to be trained on other data."""
    for part in chain.modules():
        if isinstance(part, Seen):
            part.reset()


def freeze_lines(chain: Chain) -> list[str]:
    """What ``freeze`` keeps from being trained, a line for each module that has it, for the log."""
    lines = []
    for config, module in zip(chain.configs, chain):
        if not config.frozen:
            continue
        names = {name: p for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        asked = {name for name in names if not config.trains or within(name, config.frozen)}
        values = sum(p.numel() for p in {id(p): p for p in names.values()}.values())
        total = sum(p.numel() for p in module.parameters())
        line = f"{config.name}: {', '.join(filter(None, config.frozen)) or 'all'}: {values} of {total} values stay"
        if also := sorted(names.keys() - asked):
            line += f"; {', '.join(also)} too, one matrix with a frozen part"
        lines.append(line)
    return lines


class Graft:
    """What a module takes from a donor; made only if it fits.

    A tied matrix is one: it is taken if any of its names is.

    Args:
        chain: with the module that is to be filled.
        config: of that module, with ``init``.
        donor: the trained chain.

    Raises:
        CheckpointError: everything that does not fit, and what to leave out.
    """

    def __init__(self, chain: Chain, config: ModuleConfig, donor: Chain) -> None:
        init = config.donor
        assert init is not None
        source, _, name = init.source.partition("#")
        name = name or config.name
        if name not in donor.mods:
            raise CheckpointError(
                f"{config.name}.init: {source} has no module {name!r}, only {', '.join(donor.names)}"
                f"{nearest(name, donor.names)}"
            )
        self.init, self.config, self.part = init, config, chain[config.name]
        self.donor = donor[name]
        self.own, self.theirs = _state(self.part), _state(self.donor)
        self._require_parts()
        self.taken = {k for keys in tied(self.own) if any(map(init.takes, keys)) for k in keys}
        tensors = {k: v for k, v in self.theirs.items() if init.takes(k)}
        tensors |= {k: v for k, v in self.own.items() if k not in self.taken}
        prefix = f"mods.{config.name}."
        self.given, misfits = pair(self.part, {f"{prefix}{k}": v for k, v in tensors.items()})
        self._require_fit([m._replace(name=m.name.removeprefix(prefix)) for m in misfits])

    def _require_parts(self) -> None:
        known = list(dict.fromkeys([*parts_of(self.part.first), *parts_of(self.donor.first)]))
        faults = []
        for key, parts in (("only", self.init.only), ("except", self.init.left)):
            for part in parts:
                if part not in known:
                    hint = nearest(part, known)
                    faults.append(f"{self.config.name}.init.{key}: no part {part!r} here nor in the donor{hint}")
        if faults:
            raise CheckpointError(faults)

    def _require_fit(self, misfits: list[Misfit]) -> None:
        where = f"{self.config.name}.init: {self.init.source}"
        faults, bad = list[str](), list[str]()
        writes = ("interface",) if "interface" in parts_of(self.part.first) else ("embed", "output")
        ports = zip(("reads", "writes"), self.donor.first.ports, self.part.first.ports, (("input.embed",), writes))
        for side, theirs, ours, parts in ports:
            if theirs.vocab is None or ours.vocab is None or theirs.vocab.sha256 == ours.vocab.sha256:
                continue
            if any(self.init.takes(k) for k in self.own if within(k, parts)):
                sizes = f"{len(theirs.vocab)} tokens there, {len(ours.vocab)} here"
                faults.append(f"{where} {side} another vocabulary, or another order ({sizes})")
                bad += ["input"] if side == "reads" else parts
        misfits = [m for m in misfits if not within(m.name, bad)]
        kinds: dict[str, list[Misfit]] = {}
        for misfit in misfits:
            kinds.setdefault(misfit.kind, []).append(misfit)
        for kind, found in sorted(kinds.items()):
            texts = sorted(m.text for m in found)
            shown = ", ".join(texts[:3]) + (" ..." if len(texts) > 3 else "")
            faults.append(f"{where}: module {self.config.name}: {len(found)} tensors {kind}: {shown}")
        bad += _places(m.name for m in misfits)
        if not faults:
            return
        facts = self._differences(SHAPES, {part.partition(".")[0] for part in bad} | {"body"})
        left = ", ".join(dict.fromkeys([*self.init.left, *bad]))
        because = f"{'; '.join(facts)}; make them equal, or leave" if facts else "leave"
        raise CheckpointError([*faults, f"{where}: {because} out what differs: except: [{left}]"])

    def _differences(self, table: dict[str, tuple[str, ...]], parts: Collection[str]) -> list[str]:
        """Facts in which the two descriptions differ, of these parts (``embed`` and the like belong to ``output``)."""
        theirs, ours = (to_plain(chain.configs[0]) for chain in (self.donor, self.part))
        found = []
        for part, keys in table.items():
            if part not in parts and not (part == "output" and {"interface", "embed"}.intersection(parts)):
                continue
            a, b = theirs[part], ours[part]
            if a is None or b is None:
                found += [f"{part}: {'none there, one' if a is None else 'one there, none'} here"] if a != b else []
                continue
            pairs: list[tuple[str, Any, Any]] = [(key, a.get(key), b.get(key)) for key in keys]
            found += [f"{part}.{key}: {x} there, {y} here" for key, x, y in pairs if x != y]
        return found

    def apply(self) -> str:
        """Fill the module; a line for the log."""
        self.part.load_state_dict(self.given)
        if learns(self.part.first):
            forget(self.part)
        values = sum(self.own[keys[0]].numel() for keys in tied(self.own) if keys[0] in self.taken)
        left = self.own.keys() - self.taken
        line = f"{self.config.name}: {values} values from {self.init.source}: {summary(self.taken, self.own)}"
        if left:
            line += f"; left as made: {summary(left, self.own)}"
        shapes = [
            f"{k} {tuple(self.theirs[k].shape)} there, {tuple(self.own[k].shape)} here"
            for k in self.own
            if k in left and k in self.theirs and self.theirs[k].shape != self.own[k].shape
        ]
        if shapes:
            line += f"; of another shape: {', '.join(shapes[:3])}" + (" ..." if len(shapes) > 3 else "")
        if random := {n for n, p in self.part.first.named_parameters() if n in left and not p.requires_grad}:
            line += f"; frozen as made: {summary(random, self.own)}"
        taken = {k.partition(".")[0] for k in self.taken}
        return "; ".join([line, *self._differences(MEANINGS, taken)])


def _state(chain: Chain) -> dict[str, torch.Tensor]:
    """Tensors of a single module, names from the module on."""
    return {k.split(".", 2)[2]: v for k, v in chain.state_dict().items()}


def _places(names: Iterable[str]) -> list[str]:
    """Where these tensors lie: the part around one, or the module's own part around several."""
    places: dict[str, set[str]] = {}
    for name in sorted(names):
        places.setdefault(name.partition(".")[0], set()).add(name.rpartition(".")[0])
    return [inner.copy().pop() if len(inner) == 1 else top for top, inner in places.items()]


def summary(chosen: Collection[str], names: Collection[str]) -> str:
    """The fewest parts that hold the chosen tensors and no others of ``names``."""
    return ", ".join(_cover("", set(chosen), list(names)))


def _cover(part: str, chosen: set[str], names: list[str]) -> list[str]:
    if not chosen.intersection(names):
        return []
    if part and chosen.issuperset(names):
        return [part]
    inner: dict[str, list[str]] = {}
    start = len(part) + 1 if part else 0
    for name in names:
        inner.setdefault(name[:start] + name[start:].partition(".")[0], []).append(name)
    return [found for child, below in inner.items() for found in _cover(child, chosen, below)]
