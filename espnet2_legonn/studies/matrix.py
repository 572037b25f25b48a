"""What swaps found (the paper's Figure 4): a matrix of pairs and what follows from it, as data, text and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bootstrap import SEED
from espnet2_legonn.scoring.hierarchy import Spread, draw_trainings, inside, spread, student
from espnet2_legonn.scoring.metrics import known
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.tables import write_atomic


@dataclass(frozen=True)
class Matrix:
    """What all pairs of n encoder sides and n decoder sides scored; the pairs of the diagonal were trained together.

    Args:
        names: of the n chains.
        values: (n, n), on the whole set; rows are encoder sides.
        draws: (n, n, resamples), on resamples of it, the same for all pairs.
        alike: the chains differ in their training alone, so others of their kind can be judged by them.
    """

    names: tuple[str, ...]
    metric: str
    values: np.ndarray
    draws: np.ndarray
    alike: bool = True

    @property
    def drawn(self) -> bool:
        """Do intervals draw chains too? Of two chains every draw that has a swapped pair is the same."""
        return self.alike and len(self.names) > 2

    @property
    def shares(self) -> np.ndarray:
        """Each pair in per cent of the mean of own pairs; of error rates the other way round: more is better."""
        own = self.values.diagonal().mean()
        whole, part = (own, self.values) if known(self.metric).higher else (self.values, own)
        return np.asarray(100 * np.divide(part, whole, out=np.zeros_like(self.values), where=np.asarray(whole) != 0))

    @property
    def own(self) -> float:
        """Mean of the pairs that were trained together."""
        return float(self.values.diagonal().mean())

    @property
    def swapped(self) -> float:
        """Mean of the pairs that never met."""
        return float(self.values[~np.eye(len(self.names), dtype=bool)].mean())

    @property
    def interaction(self) -> float:
        """Standard deviation of what neither side alone explains (two-way layout with one value a cell)."""
        n = len(self.names)
        rows, columns = self.values.mean(1, keepdims=True), self.values.mean(0, keepdims=True)
        rest = self.values - rows - columns + self.values.mean()
        return float(np.sqrt((rest**2).sum() / (n - 1) ** 2))

    def difference(self, seed: int = SEED) -> Spread:
        """Swapped minus own pairs, with intervals over draws of utterances, and of chains if they are ``drawn``.

        A draw has chains with replacement: its own pairs are those on the diagonal, its swapped ones all pairs of two
        different chains. A draw of one chain n times has no swapped pair and is left out, so of few chains the interval
        is too narrow: see ``jackknife``.
        """
        n, resamples = len(self.names), self.draws.shape[-1]
        picks = draw_trainings(n, resamples, seed) if self.drawn else np.tile(np.arange(n), (resamples, 1))
        rows, columns, draw = picks[:, :, None], picks[:, None, :], np.arange(resamples)[:, None, None]
        scores, apart = self.draws[rows, columns, draw], rows != columns
        own = self.draws[picks, picks, draw[:, 0]].mean(1)
        met = apart.sum((1, 2))
        swapped = np.where(apart, scores, 0).sum((1, 2)) / np.where(met, met, np.nan)
        return spread(self.swapped - self.own, swapped - own, n if self.drawn else 1)

    def as_json(self, margin: float) -> dict[str, object]:
        """Content of swap.json. margin: points within which scores count as equal.

        ``equivalent``: the 90 % intervals of bootstrap and jackknife both lie within the margin. It and the jackknife
        are None where no chains are drawn: utterances alone say nothing of another pair of chains.
        """
        difference = self.difference()
        told = jackknife(self.values) if self.drawn else None
        return {
            "metric": self.metric,
            "chains": list(self.names),
            "values": self.values.tolist(),
            "shares": self.shares.tolist(),
            "own": self.own,
            "swapped": self.swapped,
            "interaction": self.interaction,
            "difference": difference.as_json(),
            "jackknife": told,
            "margin": margin,
            "equivalent": None if told is None else difference.within(margin) and inside(told["tost"], margin),
        }


def pseudo_values(values: np.ndarray) -> list[float]:
    """What each chain says of swapped minus own pairs: n times that of all chains, less n - 1 times that without it.

    Their mean is the difference itself, and they are treated as n independent values of it (Tukey's jackknife; Efron
    and Tibshirani, 1993, ch. 11). The utterances are taken as they are.

    Args:
        values: (n, n), n at least 3: with two chains nothing is swapped once one is left out.
    """
    n = len(values)

    def difference(kept: np.ndarray) -> float:
        square = values[np.ix_(kept, kept)]
        return float(square[~np.eye(len(kept), dtype=bool)].mean() - square.diagonal().mean())

    whole = difference(np.arange(n))
    return [n * whole - (n - 1) * difference(np.delete(np.arange(n), k)) for k in range(n)]


def jackknife(values: np.ndarray) -> dict[str, list[float]]:
    """Intervals of swapped minus own pairs over chains, 95 % and 90 %: Student's t of ``pseudo_values``."""
    found = pseudo_values(values)
    return {"ci": list(student(found)), "tost": list(student(found, 90))}


def completed(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a swap.json; of one that was written before there was a jackknife, with that and its verdict."""
    if "jackknife" in found:
        return dict(found)
    known_before = found["equivalent"]
    told = None if known_before is None else jackknife(np.array(found["values"], dtype=float))
    equivalent = None if told is None else known_before and inside(told["tost"], found["margin"])
    return {**found, "jackknife": told, "equivalent": equivalent}


def swap_text(found: Mapping[str, Any]) -> str:
    """The content of a swap.json in Markdown: the matrix, the difference with its intervals, the test.

    An older file needs to be ``completed`` before.
    """
    names, difference = found["chains"], found["difference"]
    rows = [
        [name, *(f"{value:.1f} ({share:.0f} %)" for value, share in zip(values, shares))]
        for name, values, shares in zip(names, found["values"], found["shares"])
    ]
    if found["equivalent"] is None:
        intervals = f"95 % interval {_ends(difference['ci'])} (bootstrap over the utterances alone)"
        test = "no test of equivalence: it takes three chains or more that differ in their seeds alone"
    else:
        over, told = f"{len(names)} chains", found["jackknife"]
        intervals = f"95 % intervals {_ends(difference['ci'])} (bootstrap over {over} and the utterances), "
        intervals += f"{_ends(told['ci'])} (jackknife over {over})"
        verdict = "equivalent" if found["equivalent"] else "NOT shown to be equivalent"
        test = (
            f"{verdict} within +-{found['margin']:g}: 90 % intervals {_ends(difference['tost'])} (bootstrap), "
            f"{_ends(told['tost'])} (jackknife); both must lie within (two one-sided tests at 5 %)"
        )
    return "\n".join(
        [
            markdown_table([f"{known(found['metric']).label}: encoder \\ decoder", *names], rows),
            f"- own pairs {found['own']:.2f}, swapped pairs {found['swapped']:.2f}; "
            "in brackets the share of own pairs' mean",
            f"- swapped - own: {difference['value']:+.2f}, {intervals}",
            f"- {test}",
            f"- interaction of encoder and decoder: standard deviation {found['interaction']:.2f}",
        ]
    )


def _ends(interval: Sequence[float]) -> str:
    low, high = interval
    return f"[{low:+.2f}, {high:+.2f}]"


def read_swaps(places: Sequence[str], records: Path) -> dict[str, dict[str, Any]]:
    """Swaps by title, in the order of ``places``, those that were made; older ones are ``completed``.

    Args:
        places: ``TITLE=DIR``, where a swap.json lies or will lie.
        records: where what is found is kept as ``swap_<name of DIR>.json``; read from there when DIR is gone.

    Raises:
        DataError: places without a title, names or titles that stand twice, files that are no swap's; all of them.
    """
    pairs = [place.rpartition("=")[::2] for place in places]
    faults = [f"--swaps {place}: must be TITLE=DIR" for place, (title, _) in zip(places, pairs) if not title]
    for kind, names in (("title", [t for t, _ in pairs if t]), ("folder's name", [Path(d).name for _, d in pairs])):
        faults += [f"--swaps: the {kind} {name!r} stands twice" for name in {n for n in names if names.count(n) > 1}]
    found, new = {}, {}
    for title, folder in pairs:
        record = records / f"swap_{Path(folder).name.removeprefix('swap_')}.json"
        here = next((path for path in (Path(folder) / "swap.json", record) if path.is_file()), None)
        if here is None:
            continue
        try:
            found[title] = told = _checked(json.loads(here.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(f"{here}: is not a file of `legonn swap` ({error!r}); make it again")
            continue
        if here != record:
            new[record] = told
    if faults:
        raise DataError(faults)
    for record, told in new.items():
        write_atomic(record, json.dumps(told, indent=1) + "\n")
    return found


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a swap.json, ``completed``; raises ValueError, KeyError or TypeError if it is none."""
    n = len(found["chains"])
    for key in ("values", "shares"):
        table = np.array(found[key], dtype=float)
        if table.shape != (n, n) or not np.isfinite(table).all():
            raise ValueError(f"{key}: not {n} times {n} numbers")
    whole = completed(found)
    swap_text(whole)
    return whole


def shares_table(swaps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What swapped pairs reach of their own pairs, per cent, as a table that ``figures.draw`` draws.

    Intervals are those of the difference by bootstrap; the mean of own pairs is taken as it is.
    """
    rows = [{"label": title, "baseline": False, "cells": [_share(found)]} for title, found in swaps.items()]
    title = "Pairs that never met, in per cent of pairs that were trained together"
    return {"title": title, "columns": [title], "rows": rows}


def _share(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean and interval; each pair that never met is a small dot. None: own pairs say nothing right."""
    own, difference, n = found["own"], found["difference"], len(found["chains"])
    if not own:
        return None

    def per_cent(change: float) -> float:
        whole, part = (own, own + change) if known(found["metric"]).higher else (own + change, own)
        return 100 * part / whole

    low, high = sorted(map(per_cent, difference["ci"]))
    met_not = {f"{i}+{j}": found["shares"][i][j] for i in range(n) for j in range(n) if i != j}
    value = per_cent(difference["value"])
    return {"mean": Spread(value, (low, high), (low, high), n), "seeds": met_not}
