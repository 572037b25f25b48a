"""Swaps: every encoder side with every decoder side of chains that were trained alike (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet2_legonn.data.tables import write_table
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.scoring.bootstrap import SEED
from espnet2_legonn.scoring.hierarchy import Spread, draw_trainings, resampled, spread
from espnet2_legonn.scoring.metrics import known, score, speakers_of
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.search.options import BeamOptions


@dataclass(frozen=True)
class Matrix:
    """What all pairs of n encoder sides and n decoder sides scored; the pairs of the diagonal were trained together.

    Args:
        names: of the n chains.
        values: (n, n), on the whole set; rows are encoder sides.
        draws: (n, n, resamples), on resamples of it, the same for all pairs.
    """

    names: tuple[str, ...]
    metric: str
    values: np.ndarray
    draws: np.ndarray

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
        """Swapped minus own pairs, with intervals over draws of chains and of utterances.

        A draw has chains with replacement: its own pairs are those on the diagonal, its swapped ones all pairs of two
        different chains. A draw of one chain n times has no swapped pair and is left out.
        """
        n, resamples = len(self.names), self.draws.shape[-1]
        picks = draw_trainings(n, resamples, seed)
        rows, columns, draw = picks[:, :, None], picks[:, None, :], np.arange(resamples)[:, None, None]
        scores, apart = self.draws[rows, columns, draw], rows != columns
        own = self.draws[picks, picks, draw[:, 0]].mean(1)
        met = apart.sum((1, 2))
        swapped = np.where(apart, scores, 0).sum((1, 2)) / np.where(met, met, np.nan)
        return spread(self.swapped - self.own, swapped - own, n)

    def as_json(self, margin: float) -> dict[str, object]:
        """Content of swap.json."""
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
            "equivalent": difference.within(margin),
        }

    def as_text(self, margin: float) -> str:
        """The matrix and what follows from it, in Markdown."""
        rows = [
            [name, *(f"{value:.1f} ({share:.0f} %)" for value, share in zip(values, shares))]
            for name, values, shares in zip(self.names, self.values, self.shares)
        ]
        label, found = known(self.metric).label, self.difference()
        verdict = "equivalent" if found.within(margin) else "NOT shown to be equivalent"
        low, high = found.tost
        return "\n".join(
            [
                markdown_table([f"{label}: encoder \\ decoder", *self.names], rows),
                "",
                f"own pairs {self.own:.2f}, swapped pairs {self.swapped:.2f}; in brackets the share of own pairs' mean",
                f"swapped - own: {found.value:+.2f}, 95 % interval [{found.ci[0]:+.2f}, {found.ci[1]:+.2f}] "
                f"(bootstrap over {len(self.names)} chains and the utterances)",
                f"{verdict} within +-{margin:g}: 90 % interval [{low:+.2f}, {high:+.2f}] (two one-sided tests at 5 %)",
                f"interaction of encoder and decoder: standard deviation {self.interaction:.2f}",
            ]
        )


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
