"""Scores of a study's experiments, by seed, with the scores of resampled test sets."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from espnet2_legonn.data.tables import atomic_path, target_table
from espnet2_legonn.errors import DataError
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.packs.names import CONFIG
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, folder
from espnet2_legonn.recipes.report import read_score
from espnet2_legonn.recipes.runner import DONE, is_scored
from espnet2_legonn.recipes.stages import chain_config, vocabs_said
from espnet2_legonn.recipes.study import seed_folder
from espnet2_legonn.scoring.hierarchy import Spread, mean_spread, resampled
from espnet2_legonn.scoring.metrics import score, speakers_of
from espnet2_legonn.scoring.results import count_parameters
from espnet2_legonn.studies.records import Records, Run

DRAWS = "resamples.npy"  # beside result.json: scores of the resampled set


@dataclass(frozen=True)
class Scores:
    """Where scores are found.

    Args:
        exp_dir: of a plan with seeds; raw: data directories; seeds: those that are asked for.
        plans: what is asked for, by seed. What was scored otherwise does not count; without a plan all does.
        records: of seeds that were trained elsewhere. What is found here is kept in them.
        seen: a run of each seed and experiment that a cell was asked of.
    """

    exp_dir: Path
    raw: Path
    seeds: Sequence[int]
    records: Records | None = None
    seen: dict[tuple[int, str], Run] = field(default_factory=dict)
    plans: Mapping[int, Plan] = field(default_factory=dict)

    def of(self, column: ResultColumn, cell: Cell) -> dict[int, Run]:
        """A cell's scores by seed, of the seeds that are done, here or on record."""
        found = {}
        for seed in self.seeds:
            exp = folder(seed_folder(self.exp_dir, seed), cell.exp)
            run = None
            if self._as_asked(exp, seed, cell):
                run = self._run(exp, column, cell)
                if self.records is not None:
                    self.records.keep(seed, column, cell, run)
            elif self.records is not None:
                run = self.records.find(seed, column, cell)
            if run is not None:
                found[seed] = self.seen[seed, cell.exp] = run
        return found

    def _as_asked(self, exp: Path, seed: int, cell: Cell) -> bool:
        """Is it done, by the description that the plan has of it now?"""
        if not (exp / DONE).is_file():
            return False
        plan = self.plans.get(seed)
        return plan is None or (cell.exp in plan.by_name and is_scored(plan, plan.by_name[cell.exp], cell.search, exp))

    def _run(self, exp: Path, column: ResultColumn, cell: Cell) -> Run:
        value = float(read_score(exp, column, cell)["value"])
        answers = exp / cell.search / column.set
        answers = answers / "interfaces" / cell.interface if cell.interface else answers
        kept = answers / f"score_{column.metric}" / DRAWS
        if not kept.is_file() or kept.stat().st_mtime_ns < kept.with_name("result.json").stat().st_mtime_ns:
            data = self.raw / column.set
            speakers = speakers_of(data)
            table, language = _reference(exp, cell, data)
            report = score(column.metric, data, answers / "text", language, speakers, table)
            if abs(report.value - value) > 1e-6:
                raise DataError(f"{answers}/text: scores {report.value}, result.json says {value}; run the plan again")
            with atomic_path(kept) as new, open(new, "wb") as file:
                np.save(file, resampled(report.segments))
        told = json.loads((exp / DONE).read_text(encoding="utf-8")).get("environment")
        return Run(value, np.load(kept), *_spent(exp), parameters=_parameters(exp), trained=told)


@functools.cache  # many cells ask for one training, and its checkpoint is large
def _spent(exp: Path) -> tuple[int | None, float]:
    """Updates and hours of a system's last training; (0, 0) for a plug."""
    from espnet2_legonn.recipes.packing import updates_of

    if not (exp / "train.yaml").is_file():
        return 0, 0.0
    told = json.loads((exp / DONE).read_text(encoding="utf-8"))
    return updates_of(exp), told["seconds"] / 3600


def _parameters(exp: Path) -> int | None:
    """Of a training by its config, of a plug by the card of its pack."""
    found = count_parameters(exp)
    if found is None and (exp / CARD).is_file():
        found = sum(module.parameters for module in read_card(exp).modules)
    return found


def _reference(exp: Path, cell: Cell, data: Path) -> tuple[str, str | None]:
    """Table of references of the text that is scored, and its language: BLEU cuts it into words accordingly."""
    config = chain_config(exp / CONFIG)
    *_, last = said = vocabs_said(config)
    name = said[cell.interface or last]
    return target_table(data, name, config.vocabs[name].unit), config.vocabs[name].language


def origins(scores: Scores) -> list[str]:
    """Where what was asked for was trained or put together, a line for each commit and machine."""
    counts = Counter[tuple[bool, str]]()
    for run in scores.seen.values():
        told = run.trained or {}
        known = f"{_commit(told['Git hash'])}, {told['Machine']}" if told else "commit and machine are not on record"
        counts[run.here, known] += 1
    whose = {True: "here", False: "from the scores on record beside this page"}
    ordered = sorted(counts.items(), key=lambda item: (not item[0][0], item[0][1]))
    return [f"{number} chains {whose[here]}: {known}" for (here, known), number in ordered]


def _commit(told: str) -> str:
    return f"commit {told[:7]}" if re.fullmatch("[0-9a-f]{40}", told) else told


def mean_of(runs: Mapping[int, Run]) -> Spread:
    """The mean over seeds."""
    return mean_spread([run.value for run in runs.values()], np.stack([run.draws for run in runs.values()]))


def gains_by_seed(of: Mapping[int, Run], over: Mapping[int, Run], higher: bool = True) -> dict[int, Run]:
    """Difference of two systems in each training that both have: its value and draws (resamples,).

    Each resample has the same sentences on both sides.

    Args:
        higher: is more better? Differences are turned so that it is.
    """
    sign, both = 1 if higher else -1, sorted(of.keys() & over.keys())
    return {s: Run(sign * (of[s].value - over[s].value), sign * (of[s].draws - over[s].draws)) for s in both}


def difference_of(over: Mapping[int, Run], under: Mapping[int, Run]) -> Spread | None:
    """Mean difference over the seeds that both have, with its interval; None where there are none."""
    gains = gains_by_seed(over, under)
    return mean_of(gains) if gains else None
