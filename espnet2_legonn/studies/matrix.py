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
from espnet2_legonn.scoring.hierarchy import Spread, draw_trainings, spread
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
        different chains. A draw of one chain n times has no swapped pair and is left out.
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

        ``equivalent`` is None where no chains are drawn: utterances alone say nothing of another pair of chains.
        """
        difference = self.difference()
        return {
            "metric": self.metric,
            "chains": list(self.names),
            "values": self.values.tolist(),
            "shares": self.shares.tolist(),
            "own": self.own,
            "swapped": self.swapped,
            "interaction": self.interaction,
            "difference": difference.as_json(),
            "margin": margin,
            "equivalent": difference.within(margin) if self.drawn else None,
        }


def swap_text(found: Mapping[str, Any]) -> str:
    """The content of a swap.json in Markdown: the matrix, the difference with its interval, the test."""
    names, difference = found["chains"], found["difference"]
    rows = [
        [name, *(f"{value:.1f} ({share:.0f} %)" for value, share in zip(values, shares))]
        for name, values, shares in zip(names, found["values"], found["shares"])
    ]
    (low, high), (tost_low, tost_high) = difference["ci"], difference["tost"]
    if found["equivalent"] is None:
        drawn = "the utterances alone"
        test = "no test of equivalence: it takes three chains or more that differ in their seeds alone"
    else:
        drawn = f"{len(names)} chains and the utterances"
        verdict = "equivalent" if found["equivalent"] else "NOT shown to be equivalent"
        test = (
            f"{verdict} within +-{found['margin']:g}: 90 % interval [{tost_low:+.2f}, {tost_high:+.2f}] "
            "(two one-sided tests at 5 %)"
        )
    return "\n".join(
        [
            markdown_table([f"{known(found['metric']).label}: encoder \\ decoder", *names], rows),
            f"- own pairs {found['own']:.2f}, swapped pairs {found['swapped']:.2f}; "
            "in brackets the share of own pairs' mean",
            f"- swapped - own: {difference['value']:+.2f}, 95 % interval [{low:+.2f}, {high:+.2f}] "
            f"(bootstrap over {drawn})",
            f"- {test}",
            f"- interaction of encoder and decoder: standard deviation {found['interaction']:.2f}",
        ]
    )


def read_swaps(places: Sequence[str], records: Path) -> dict[str, dict[str, Any]]:
    """Swaps by title, in the order of ``places``, those that were made.

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
            found[title] = told = json.loads(here.read_text(encoding="utf-8"))
            _check(told)
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


def _check(found: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError unless it is the content of a swap.json."""
    n = len(found["chains"])
    for key in ("values", "shares"):
        table = np.array(found[key], dtype=float)
        if table.shape != (n, n) or not np.isfinite(table).all():
            raise ValueError(f"{key}: not {n} times {n} numbers")
    swap_text(found)


def shares_table(swaps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What swapped pairs reach of their own pairs, per cent, as a table that ``figures.draw`` draws.

    Intervals are those of the difference; the mean of own pairs is taken as it is.
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
