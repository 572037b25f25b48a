"""Parts of a module by name, as ``init`` and ``freeze`` of its description use them. No torch.

A part is a submodule: ``input``, ``body``, ``length_control``, ``interface``, ``embed``, ``output``, or one inside them
such as ``input.embed``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from espnet2_legonn.files.schema import nearest

ENCODER_PARTS = ("input", "body", "length_control", "interface")
DECODER_PARTS = ("input", "body", "embed", "output")
MODES = (True, False, "eval")
Freeze = bool | str | list[str] | dict[str, bool | str]


def within(name: str, parts: Iterable[str]) -> bool:
    """Whether a tensor or part lies in one of these parts: ``input.embed.weight`` in ``input``."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@dataclass
class InitConfig:
    """Where a module's weights begin: ``PACK_OR_EXPERIMENT[#module]``, and which of its parts are taken.

    ``only``: these parts alone. ``except``: not these.
    """

    source: str = field(metadata={"key": "from"})
    only: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list, metadata={"key": "except"})

    def takes(self, name: str) -> bool:
        """Whether the tensor or part of this name comes from the donor."""
        return (not self.only or within(name, self.only)) and not within(name, self.left)


def source_of(init: Any) -> str:
    """``PACK_OR_EXPERIMENT[#module]`` of an ``init`` in plain data, short or long."""
    return str(init.get("from", "") if isinstance(init, dict) else init)


def frozen_parts(freeze: Freeze) -> dict[str, bool | str]:
    """Parts with true or eval each, from whatever ``freeze`` is; the part ``""`` is the whole module."""
    if isinstance(freeze, dict):
        return {part: how for part, how in freeze.items() if how}
    if isinstance(freeze, list):
        return dict.fromkeys(freeze, True)
    return {"": freeze} if freeze else {}


def check_parts(module: str, decodes: bool, init: str | InitConfig | None, freeze: Freeze) -> list[str]:
    """Faults of ``init`` and ``freeze``; what lies deeper than the first level is known when a module is built."""
    known = DECODER_PARTS if decodes else ENCODER_PARTS
    faults = _check_freeze(f"{module}.freeze", freeze)
    named = {f"{module}.freeze": list(freeze) if isinstance(freeze, (list, dict)) else []}
    if isinstance(init, InitConfig):
        named |= {f"{module}.init.only": init.only, f"{module}.init.except": init.left}
        if not init.source:
            faults.append(f"{module}.init.from: is empty; name a pack or an experiment")
        if not any(init.takes(part) for part in init.only or known):
            faults.append(f"{module}.init: leaves nothing to take; drop init instead")
    for where, parts in named.items():
        for part in parts:
            if part.partition(".")[0] not in known:
                faults.append(f"{where}: no part {part!r}{nearest(part, known)}; there are {', '.join(known)}")
    return faults


def _check_freeze(where: str, freeze: Freeze) -> list[str]:
    if isinstance(freeze, list):
        return []
    if isinstance(freeze, dict):
        return [f"{where}.{p}: {how!r} is not true, false or eval" for p, how in freeze.items() if how not in MODES]
    known = "is not true, false or eval; parts are a list, [input, body]"
    return [] if freeze in MODES else [f"{where}: {freeze!r} {known}"]
