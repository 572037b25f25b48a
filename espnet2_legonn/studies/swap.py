"""Swaps: every encoder side with every decoder side of chains that were trained alike (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet2_legonn.data.tables import write_table
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.scoring.hierarchy import resampled
from espnet2_legonn.scoring.metrics import known, score, speakers_of
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.matrix import Matrix


def sides(chains: Sequence[LegoNN], at: str | None) -> list[tuple[LegoNN, LegoNN]]:
    """Each chain cut in two: before its last module, or behind the module ``at``.

    Raises:
        ConfigError: fewer than two chains, or chains that cannot be cut there.
    """
    if len(chains) < 2:
        raise ConfigError("swaps need at least two chains that were trained alike")
    found, faults = [], []
    for number, chain in enumerate(chains, 1):
        names = list(chain.names)
        if at is not None and at not in names:
            faults.append(f"chain {number}: no module {at!r}; it has {', '.join(names)}")
            continue
        cut = len(names) - 1 if at is None else names.index(at) + 1
        if not 0 < cut < len(names):
            faults.append(f"chain {number} ({', '.join(names)}): nothing is left on one side of the cut")
            continue
        found.append((chain[:cut], chain[cut:]))
    if faults:
        raise ConfigError(faults)
    return found


def swap(
    chains: Sequence[LegoNN],
    names: Sequence[str],
    data: Path,
    metric: str,
    out: Path,
    options: BeamOptions | None = None,
    at: str | None = None,
) -> Matrix:
    """Decode and score all pairs.

    Args:
        data: a data directory; out: the texts of each pair go there, ``<encoder>+<decoder>``.
        at: the module behind which chains are cut; their last module by default.

    Raises:
        ConfigError: see ``sides``. DataError: sides that do not fit, bad data, no such metric.
    """
    parts = sides(chains, at)
    known(metric)
    inputs = inputs_of(chains[0], data)
    speakers = speakers_of(data)
    found = []
    for i, (encoder, _) in enumerate(parts):
        for j, (_, decoder) in enumerate(parts):
            plugged = encoder + decoder  # own pairs, too: a search that was tuned for them would not be the others'
            place = out / f"{names[i]}+{names[j]}" / "text"
            write_table(place, decode_table(plugged, inputs, options or BeamOptions(), 64).nbest[0].text)
            language = plugged.require_text().language
            found.append(score(metric, data, place, language, speakers).segments)
    n = len(parts)
    values = np.array([segments.value for segments in found]).reshape(n, n)
    return Matrix(tuple(names), metric, values, np.stack([resampled(s) for s in found]).reshape(n, n, -1))


def labels(paths: Sequence[str]) -> tuple[str, ...]:
    """Short names of chains: what differs between their paths, such as ``seed1`` of ``exp/seed1/legonn_mt``.

    Raises:
        ConfigError: one chain is given twice.
    """
    parts = [Path(path).parts for path in paths]
    if len(set(parts)) < len(parts):
        raise ConfigError("a chain is given twice: its pairs would be own pairs")
    if len({len(p) for p in parts}) > 1:
        names = tuple("_".join(p[-2:]) for p in parts)
    else:
        differ = [k for k in range(len(parts[0])) if len({p[k] for p in parts}) > 1]
        names = tuple("_".join(p[k] for k in differ) for p in parts)
    if len(set(names)) < len(names):  # their pairs would write over each other
        return tuple(f"{number}_{name}" for number, name in enumerate(names, 1))
    return names
