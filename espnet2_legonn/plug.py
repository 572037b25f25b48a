"""Modules of saved chains, put together without an update."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.api import LegoNN
from espnet2_legonn.errors import LegoNNError


def pick(spec: str) -> LegoNN:
    """``FOLDER_OR_ZIP[#module[,module...]]`` to a chain.

    Raises:
        LegoNNError: no such module, or modules that do not follow each other.
    """
    source, _, names = spec.partition("#")
    chain = LegoNN.from_pretrained(source)
    if not names:
        return chain
    wanted = names.split(",")
    missing = [n for n in wanted if n not in chain.mods]
    if missing:
        raise LegoNNError(f"{source}: no module {', '.join(missing)}; it has {', '.join(chain.names)}")
    places = [chain.names.index(n) for n in wanted]
    if places != list(range(places[0], places[0] + len(places))):
        raise LegoNNError(f"{spec}: modules must follow each other in the chain ({', '.join(chain.names)})")
    return chain[places[0] : places[-1] + 1]


def plug(specs: Sequence[str], out: Path) -> tuple[LegoNN, list[str]]:
    """Check every joint and save the chain into ``out``.

    Returns:
        the chain, and what its joints had to say.

    Raises:
        InterfaceMismatch: parts that do not fit, with every reason.
        FileExistsError: ``out`` holds something else.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chain = pick(specs[0])
        for spec in specs[1:]:
            chain = chain + pick(spec)
    chain.save(out)
    return chain, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
