"""Swaps: every encoder side with every decoder side of chains that were trained alike (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.data.tables import read_table, write_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import decode_table, inputs_of, source_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.scoring.hierarchy import resampled
from espnet2_legonn.scoring.metrics import known, reference_files, require_scored_by, score, speakers_of
from espnet2_legonn.scoring.tables import read_references
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
        ConfigError: see ``sides``; chains that read different things.
        DataError: sides that do not fit, bad data (before anything is decoded), no such metric.
    """
    parts = sides(chains, at)
    known(metric)
    require_scored_by(metric, {name: chain.require_text().unit for name, chain in zip(names, chains)})
    _require_one_input(chains, names)
    inputs = inputs_of(chains[0], data)
    speakers = speakers_of(data)
    _require_scorable(metric, data, source_of(chains[0], data), inputs, speakers)
    for told in ("swap.json", "swap.md"):  # of an earlier run, whose texts are about to be replaced
        (out / told).unlink(missing_ok=True)
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
    alike = all(_make(chain) == _make(chains[0]) for chain in chains)
    return Matrix(tuple(names), metric, values, np.stack([resampled(s) for s in found]).reshape(n, n, -1), alike)


def _require_one_input(chains: Sequence[LegoNN], names: Sequence[str]) -> None:
    """Raise ConfigError unless all chains read the same kind of input, in the same vocabulary."""
    ports = [chain.first.ports[0] for chain in chains]
    faults = []
    for name, port in zip(names[1:], ports[1:]):
        if port.kind != ports[0].kind:
            faults.append(f"{name} reads {port.kind}, {names[0]} reads {ports[0].kind}; swap chains of one task")
        elif port.vocab != ports[0].vocab:
            faults.append(
                f"{name} reads another vocabulary than {names[0]} ({_named(port.vocab)}, not "
                f"{_named(ports[0].vocab)}), so one data directory cannot serve both; swap chains that were trained on "
                "the same source"
            )
    if faults:
        raise ConfigError(faults)


def _named(vocab: Vocabulary | None) -> str:
    """A vocabulary in a message."""
    return "none" if vocab is None else f"{vocab.language or vocab.unit}, {len(vocab)} tokens, {vocab.sha256[:12]}"


def _require_scorable(metric: str, data: Path, source: Path, inputs: Mapping[str, str], speakers: Path | None) -> None:
    """Raise DataError unless there are references of all inputs, and two units or more for intervals."""
    faults = []
    try:
        read_references(reference_files(metric, data), source, inputs)
    except DataError as error:
        faults += error.faults
    if len(inputs) < 2:
        faults.append(f"{data}: {len(inputs)} utterance(s): an interval takes two or more")
    elif speakers is not None:
        said = {speaker for uid, speaker in read_table(speakers).items() if uid in inputs}
        if len(said) == 1:
            faults.append(f"{speakers}: one speaker, so there is no interval; take it away to draw utterances")
    if faults:
        raise DataError(faults)


def _make(chain: LegoNN) -> list[list[Any]]:
    """How a chain is made, without names: chains of one make differ in their training alone."""
    modules = [(c.input, c.body, c.length_control, c.output) for c in chain.configs]
    return [[part and _unnamed(asdict(part)) for part in parts] for parts in modules]


def _unnamed(part: dict[str, Any]) -> dict[str, Any]:
    """Values of a part and of what it holds, but for the names of vocabularies."""
    return {key: _unnamed(value) if isinstance(value, dict) else value for key, value in part.items() if key != "vocab"}


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
