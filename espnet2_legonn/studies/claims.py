"""What a study expected before it was run, as data, and what its scores say of it.

``conf/claims.yaml`` names pairs of systems and the difference that is expected between them. It is written before the
first training. The verdict is a command's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import Reader, nearest
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, cell_fault
from espnet2_legonn.scoring.hierarchy import Spread, spread
from espnet2_legonn.scoring.metrics import METRICS, known
from espnet2_legonn.studies.scores import Scores, paired

# Verdicts, in words
HOLDS = "holds"
WEAK = "holds, weakly"  # the interval would hold 0 if it were WIDER
REFUTED = "refuted"
NOT_SHOWN = "not shown"
UNKNOWN = "not yet known"  # scores are missing
OPEN = "open, nothing was claimed"

WIDER = 1.25  # a bootstrap of three trainings understates their spread by about a fifth


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
        at_least: the mean gain that is expected, over all pairs, with an interval above 0. Less than that refutes it,
            and so does a pair whose interval lies below 0. A mean that is as large, and an interval that holds 0,
            shows nothing. 0 expects a gain of any size: only an interval below 0 refutes it.
        each: the gain that every pair must reach, with an interval above 0.
        within: no pair may differ by more: its 90 % interval lies inside (two one-sided tests).
        at_most: score that ``of`` of every pair may reach; ``over`` is what it is compared with.
        open: nothing is expected, the gains are told.
    """

    name: str
    text: str
    pairs: list[SystemPair]
    at_least: float | None = None
    each: float | None = None
    within: float | None = None
    at_most: float | None = None
    open: bool | None = None


@dataclass
class Claims:
    """A file of claims."""

    claims: list[Claim]


@dataclass(frozen=True)
class ClaimResult:
    """``words``: the verdict. ``gains``: of each pair that is scored.

    ``seeds``: trainings that every scored pair has, and those that are asked for.
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
        if self.words in (UNKNOWN, OPEN) or done >= asked:
            return self.words
        return f"{self.words} so far ({done} of {asked} seeds)"

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
    found, values = [], []
    for pair in claim.pairs:
        column = ResultColumn("", pair.metric, pair.set)
        of, over = scores.of(column, pair.of), scores.of(column, pair.over)
        sign = 1 if known(pair.metric).higher else -1
        gain = paired(of, over)
        found.append(None if gain is None else (sign * gain[0], sign * gain[1], gain[2]))
        values += [run.value for run in of.values()]
    gains = [None if gain is None else spread(*gain) for gain in found]
    known_gains = [gain for gain in found if gain is not None]
    mean = None
    if known_gains:
        draws = np.mean([draws for _, draws, _ in known_gains], axis=0)
        mean = spread(float(np.mean([v for v, _, _ in known_gains])), draws, min(n for _, _, n in known_gains))
    complete = [gain for gain in gains if gain is not None]
    verdict = OPEN if claim.open else UNKNOWN
    if not claim.open and len(complete) == len(gains) and mean is not None:
        verdict = _verdict(claim, complete, mean, values)
    seeds = min((n for _, _, n in known_gains), default=0), len(scores.seeds)
    return ClaimResult(claim, verdict, gains, mean, seeds)


def _verdict(claim: Claim, gains: list[Spread], mean: Spread, values: list[float]) -> str:
    if claim.at_least is not None:
        return verdict_of_mean(claim.at_least, gains, mean)
    if claim.each is not None:
        if not all(gain.value >= claim.each and gain.ci[0] > 0 for gain in gains):
            return REFUTED
        return HOLDS if all(map(_clear, gains)) else WEAK
    if claim.within is not None:
        fine = all(gain.within(claim.within) for gain in gains)
    else:
        assert claim.at_most is not None
        fine = max(values) <= claim.at_most
    return HOLDS if fine else REFUTED


def verdict_of_mean(least: float, gains: list[Spread], mean: Spread) -> str:
    """See ``at_least`` of Claim."""
    if (least > 0 and mean.value < least) or any(gain.ci[1] < 0 for gain in (mean, *gains)):
        return REFUTED
    if mean.value < least or mean.ci[0] <= 0:
        return NOT_SHOWN
    return HOLDS if _clear(mean) else WEAK


def _clear(gain: Spread) -> bool:
    """Is a gain above 0 by an interval that is wide enough for few trainings, too?"""
    return gain.trainings == 1 or gain.value > WIDER * (gain.value - gain.ci[0])
