"""Scores of a study that outlive its models: one file for each seed, beside the tables.

A seed takes hours, and machines come and go. With these files a table has the seeds that were trained elsewhere, too,
and its intervals are as if all lay here: they need the scores of resampled test sets, not the answers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.data.tables import atomic_path
from espnet2_legonn.errors import DataError
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, Teacher
from espnet2_legonn.scoring.results import environment
from espnet2_legonn.scoring.tables import write_atomic


@dataclass(frozen=True)
class Run:
    """A score of one training.

    Args:
        value: on the whole set; draws: on resamples of it (resamples,).
        updates, hours: of the system's last training, 0 of a plug; None: not known.
        parameters: weights of all modules; None: not known.
        trained: where it was trained or put together (``scoring.results.environment``); None: not known.
        here: it lies in the plan's folder, and is not from a record.
    """

    value: float
    draws: np.ndarray
    updates: int | None = None
    hours: float = 0.0
    parameters: int | None = None
    trained: Mapping[str, str] | None = None
    here: bool = True


@dataclass
class Records:
    """Runs by seed, in ``folder/seed<N>.json`` and ``folder/seed<N>.npz`` (the resampled scores, cells in rows).

    A record counts as long as the plan describes its system as it did then.
    """

    folder: Path
    plan: Plan
    _seeds: dict[int, dict[str, tuple[dict[str, Any], np.ndarray]]] = field(default_factory=dict)
    _new: set[int] = field(default_factory=set)

    def find(self, seed: int, column: ResultColumn, cell: Cell) -> Run | None:
        """What is recorded of a cell.

        Raises:
            DataError: files that do not belong together.
        """
        about, draws = self._of(seed).get(_key(column, cell), ({}, np.empty(0)))
        if about.get("made") != self._made(cell):
            return None
        told = about["value"], draws, about["updates"], about["hours"], about["parameters"], about.get("trained")
        return Run(*told, here=False)

    def keep(self, seed: int, column: ResultColumn, cell: Cell, run: Run) -> None:
        """Take a run for what ``write`` writes, in place of an older one."""
        made = self._made(cell)
        if made is not None:
            about = {
                "made": made,
                "value": run.value,
                "updates": run.updates,
                "hours": run.hours,
                "parameters": run.parameters,
                **({"trained": dict(run.trained)} if run.trained else {}),
            }
            self._of(seed)[_key(column, cell)] = about, run.draws.astype(np.float32)
            self._new.add(seed)

    def write(self) -> None:
        """Files of the seeds that something was kept of."""
        for seed in sorted(self._new):
            cells = {key: about for key, (about, _) in sorted(self._of(seed).items())}
            draws = np.stack([self._of(seed)[key][1] for key in cells])
            path = self.folder / f"seed{seed}.npz"
            with atomic_path(path) as new, open(new, "wb") as file:
                np.savez_compressed(file, draws=draws)
            payload = {"environment": environment(), "cells": cells}
            write_atomic(path.with_suffix(".json"), json.dumps(payload, indent=1) + "\n")

    def _of(self, seed: int) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
        if seed not in self._seeds:
            path = self.folder / f"seed{seed}.json"
            self._seeds[seed] = _read(path) if path.is_file() else {}
        return self._seeds[seed]

    def _made(self, cell: Cell) -> str | None:
        """Digest of what the cell's answers depend on, but for the seed; None: the plan does not have it."""
        known = self.plan.by_name.get(cell.exp)
        return None if known is None else self.plan.taught(Teacher(cell.exp, cell.search))


def _key(column: ResultColumn, cell: Cell) -> str:
    return "/".join((cell.exp, cell.search, cell.interface, column.metric, column.set))


def _read(path: Path) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
    told = path.with_suffix(".npz")
    try:
        cells: Mapping[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
        draws = np.load(told, allow_pickle=False)["draws"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} and {told.name}: cannot be read ({error}); take both from the same commit") from None
    if len(cells) != len(draws):
        raise DataError(
            f"{path}: {len(cells)} cells, {told.name} has {len(draws)}; take both files from the same commit"
        )
    return dict(zip(cells, zip(cells.values(), draws)))
