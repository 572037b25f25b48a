"""What a study expected before it was run, as data, and what its scores say of it.

``conf/claims.yaml`` names pairs of systems and the difference that is expected between them. It is written before the
first training. The verdict is a command's. A gain over two or more trainings has two intervals, the bootstrap's and
Student's t over trainings (``scoring/hierarchy.py``), and is shown only if both say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import Reader, nearest
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, cell_fault
from espnet2_legonn.scoring.hierarchy import Spread, inside, with_student
from espnet2_legonn.scoring.metrics import METRICS, known
from espnet2_legonn.studies.records import Run
from espnet2_legonn.studies.scores import Scores, gains_by_seed, mean_of

# Verdicts, in words
HOLDS = "holds"
REFUTED = "refuted"
NOT_SHOWN = "not shown"
UNKNOWN = "not yet known"  # scores are missing
OPEN = "open, nothing was claimed"


@dataclass
class SystemPair:
    """Two systems on one set: ``of`` less ``over``, turned so that more is better for ``of``."""

    of: Cell
    over: Cell
    set: str
    metric: str = "bleu"


@dataclass
class Claim:
    """One expectation.

    Args:
        name: such as H1; text: in words.
        pairs: where it is tested.
        at_least: the mean gain that is expected, over all pairs, with both intervals above 0. Less than that refutes
            it, and so does a pair whose both intervals lie below 0. A mean that is as large shows nothing while one of
            its intervals holds 0, or a pair's bootstrap lies below 0. 0 expects a gain of any size: only intervals
            below 0 refute it.
        each: the gain that every pair must reach, with both intervals above 0. Less than that refutes it; as much, with
            an interval that holds 0, shows nothing.
        within: no pair may differ by more: its 90 % intervals lie inside (two one-sided tests). A bootstrap that does
            not refutes it; if Student's t alone does not, nothing is shown.
        at_most: score that ``of`` of every pair may reach; ``over`` is what it is compared with.
        open: nothing is expected, the gains are told.
        seeds: trainings that it is planned for; default: all that are asked for.
    """

    name: str
    text: str
    pairs: list[SystemPair]
    at_least: float | None = None
    each: float | None = None
    within: float | None = None
    at_most: float | None = None
    open: bool | None = None
    seeds: int | None = None


@dataclass
class Claims:
    """A file of claims."""

    claims: list[Claim]


@dataclass(frozen=True)
class ClaimResult:
    """``words``: the verdict. ``gains``: of each pair that is scored.

    ``seeds``: trainings that every scored pair has, and those that are asked for. One has intervals over sentences.
    """

    claim: Claim
    words: str
    gains: list[Spread | None]
    mean: Spread | None
    seeds: tuple[int, int]

    @property
    def told(self) -> str:
        """The words, and how much of what is asked for they rest on."""
        done, asked = self.seeds
        if self.words in (UNKNOWN, OPEN):
            return self.words
        alone = "intervals over sentences"
        if done >= asked:
            return f"{self.words} (one seed, {alone})" if done == 1 else self.words
        return f"{self.words} so far ({done} of {asked} seeds{f', {alone}' if done == 1 else ''})"

    def as_json(self) -> dict[str, Any]:
        """What a results file has of it."""
        gains = [None if gain is None else gain.as_json() for gain in self.gains]
        where = [{"of": p.of.exp, "over": p.over.exp, "set": p.set, "gain": g} for p, g in zip(self.claim.pairs, gains)]
        mean = None if self.mean is None else self.mean.as_json()
        return {"name": self.claim.name, "text": self.claim.text, "verdict": self.told, "mean": mean, "pairs": where}


def load_claims(path: Path, plan: Plan) -> list[Claim]:
    """Read and check a file of claims.

    Raises:
        ConfigError: everything that is wrong with it, also systems that the plan does not decode or test so.
    """
    reader = Reader()
    found = reader.build(Claims, read_config(path), str(path))
    if reader.faults:
        raise ConfigError(reader.faults)
    faults = [f"{path}: {fault}" for claim in found.claims for fault in _faults(claim, plan)]
    if faults:
        raise ConfigError(faults)
    return found.claims


def _faults(claim: Claim, plan: Plan) -> list[str]:
    faults = []
    kinds = [k for k in ("at_least", "each", "within", "at_most", "open") if getattr(claim, k) is not None]
    if len(kinds) != 1:
        faults.append(f"{claim.name}: give one of at_least, each, within, at_most, open")
    if claim.seeds is not None and claim.seeds < 1:
        faults.append(f"{claim.name}: seeds: must be 1 or more, got {claim.seeds}")
    if not claim.pairs:
        faults.append(f"{claim.name}: pairs: at least one is needed, or nothing is ever known of it")
    for pair in claim.pairs:
        if pair.metric not in METRICS:
            faults.append(f"{claim.name}: no metric {pair.metric!r}{nearest(pair.metric, METRICS)}")
        for cell in (pair.of, pair.over):
            if fault := cell_fault(cell, pair.metric, pair.set, plan.by_name):
                faults.append(f"{claim.name}: {fault}")
    return faults


def judge(claim: Claim, scores: Scores) -> ClaimResult:
    """What the scores say of a claim."""
    found: list[dict[int, Run]] = []
    values = []
    for pair in claim.pairs:
        column = ResultColumn("", pair.metric, pair.set)
        of, over = scores.of(column, pair.of), scores.of(column, pair.over)
        found.append(gains_by_seed(of, over, higher=known(pair.metric).higher))
        values += [run.value for run in of.values()]
    gains = [_spread(by_seed) if by_seed else None for by_seed in found]
    means = mean_by_seed([by_seed for by_seed in found if by_seed])
    mean = _spread(means) if means else None
    complete = [gain for gain in gains if gain is not None]
    verdict = OPEN if claim.open else UNKNOWN
    if not claim.open and len(complete) == len(gains) and (mean is not None or claim.at_least is None):
        verdict = _verdict(claim, complete, mean, values)
    asked = len(scores.seeds) if claim.seeds is None else min(claim.seeds, len(scores.seeds))
    return ClaimResult(claim, verdict, gains, mean, (len(means), asked))


def mean_by_seed(found: Sequence[Mapping[int, Run]]) -> dict[int, Run]:
    """Mean over pairs in each training that all pairs have."""
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found))) if found else []
    rows = {seed: [by_seed[seed] for by_seed in found] for seed in seeds}
    return {
        seed: Run(float(np.mean([r.value for r in row])), np.mean([r.draws for r in row], axis=0))
        for seed, row in rows.items()
    }


def _spread(by_seed: Mapping[int, Run]) -> Spread:
    """Mean over trainings, with the bootstrap's intervals and, of two or more, Student's."""
    return with_student(mean_of(by_seed), [run.value for run in by_seed.values()])


def _verdict(claim: Claim, gains: list[Spread], mean: Spread | None, values: list[float]) -> str:
    if claim.at_least is not None:
        assert mean is not None
        return verdict_of_mean(claim.at_least, gains, mean)
    if claim.each is not None:
        return verdict_of_each(claim.each, gains)
    if claim.within is not None:
        return verdict_of_within(claim.within, gains)
    assert claim.at_most is not None
    return HOLDS if max(values) <= claim.at_most else REFUTED


def verdict_of_mean(least: float, gains: list[Spread], mean: Spread) -> str:
    """See ``at_least`` of Claim."""
    if (least > 0 and mean.value < least) or any(gain.below for gain in (mean, *gains)):
        return REFUTED
    against = any(gain.ci[1] < 0 for gain in gains)
    return HOLDS if mean.value >= least and mean.above and not against else NOT_SHOWN


def verdict_of_each(least: float, gains: list[Spread]) -> str:
    """See ``each`` of Claim."""
    if any(gain.value < least or gain.below for gain in gains):
        return REFUTED
    return HOLDS if all(gain.above for gain in gains) else NOT_SHOWN


def verdict_of_within(margin: float, gains: list[Spread]) -> str:
    """See ``within`` of Claim."""
    if not all(inside(gain.tost, margin) for gain in gains):
        return REFUTED
    return HOLDS if all(gain.within(margin) for gain in gains) else NOT_SHOWN
