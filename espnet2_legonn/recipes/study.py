"""A plan over several seeds: mean, deviation and interval of each score, and of differences between rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.errors import DataError
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, ResultTable, folder
from espnet2_legonn.recipes.report import read_score
from espnet2_legonn.recipes.runner import DONE
from espnet2_legonn.scoring.results import environment, markdown_table

# Student's t, two-sided 95 %, for 1 ... 15 degrees of freedom; above that the normal's is close enough.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


def seed_folder(exp_dir: Path, seed: int) -> Path:
    """Where the experiments of one seed lie."""
    return exp_dir / f"seed{seed}"


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean over seeds (Student's t); NaN for one value."""
    if len(values) < 2:
        return math.nan
    t = _T[len(values) - 2] if len(values) - 2 < len(_T) else 1.96
    return t * statistics.stdev(values) / math.sqrt(len(values))


def seed_scores(exp_dir: Path, seeds: Sequence[int], column: ResultColumn, cell: Cell) -> dict[int, float]:
    """A cell's score by seed, of the seeds that are done."""
    found = {}
    for seed in seeds:
        exp = folder(seed_folder(exp_dir, seed), cell.exp)
        if (exp / DONE).is_file():
            found[seed] = float(read_score(exp, column, cell)["value"])
    return found


def _text(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.1f} (1 seed)"
    wide = half_width(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f} ({mean - wide:.1f} to {mean + wide:.1f})"


def render_study(table: ResultTable, exp_dir: Path, seeds: Sequence[int]) -> str:
    """A table: mean ± standard deviation over seeds (95 % interval of the mean), and the difference to the first row.

    Differences are paired by seed. A first row that was not run is passed over.
    """
    first: dict[str, dict[int, float]] = {}
    rows = []
    for row in table.rows:
        cells: list[str] = [row.label]
        for column, cell in zip(table.columns, row.cells):
            scores = {} if cell is None else seed_scores(exp_dir, seeds, column, cell)
            if cell is None:
                cells += ["", ""]
                continue
            base = first.setdefault(column.title, scores) if scores else {}
            both = [scores[s] - base[s] for s in sorted(scores.keys() & base.keys())]
            cells += [_text(list(scores.values())), "" if base is scores else _difference(both)]
        rows.append(cells)
    header = ["", *(part for column in table.columns for part in (column.title, "difference to the first row"))]
    return f"### {table.title}\n\n{markdown_table(header, rows)}"


def _difference(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "" if not values else f"{values[0]:+.1f}"
    mean, wide = statistics.fmean(values), half_width(values)
    return f"{mean:+.1f} ({mean - wide:+.1f} to {mean + wide:+.1f})"


def render_pairs(table: ResultTable, exp_dir: Path, seeds: Sequence[int]) -> str:
    """Each column's differences of a row to each row before it, paired by seed; rows are numbered as in the table."""
    texts = []
    for i, column in enumerate(table.columns):
        cells = {number: row.cells[i] for number, row in enumerate(table.rows, 1)}
        scores = {n: seed_scores(exp_dir, seeds, column, cell) for n, cell in cells.items() if cell is not None}
        known = [number for number, found in scores.items() if found]
        rows = [[f"{n} {table.rows[n - 1].label}", *_before(n, known, scores)] for n in known[1:]]
        header = [f"{column.title}: row less row", *map(str, known[:-1])]
        texts.append(f"#### {column.title}: differences between rows\n\n{markdown_table(header, rows)}")
    return "\n\n".join(texts)


def _before(number: int, known: Sequence[int], scores: dict[int, dict[int, float]]) -> list[str]:
    """Differences of a row to those before it, and empty cells for the others."""
    cells = []
    for other in known[:-1]:
        both = sorted(scores[number].keys() & scores[other].keys())
        cells.append(_difference([scores[number][s] - scores[other][s] for s in both]) if other < number else "")
    return cells


def write_study(plan: Plan, exp_dir: Path, seeds: Sequence[int], path: Path) -> str:
    """Write the tables of a study.

    Raises:
        DataError: no seed is done.
    """
    done = [seed for seed in seeds if any(seed_folder(exp_dir, seed).glob(f"*/{DONE}"))]
    if not done:
        raise DataError(f"{exp_dir}: no seed is done")
    tables = []
    for table in plan.tables:
        tables.append(render_study(table, exp_dir, done))
        if len(table.rows) > 2:
            tables.append(render_pairs(table, exp_dir, done))
    facts = [f"- {name}: `{value}`" for name, value in environment().items()]
    facts.append(f"- seeds: `{' '.join(map(str, done))}`; the data are the same, weights and order of batches differ")
    head = ["<!-- Generated by python -m espnet2_legonn.bin.legonn_plan --seeds -->", "# STUDY", "## Environments"]
    with atomic_text(path) as f:
        f.write("\n\n".join([*head, "\n".join(facts), *tables]).rstrip() + "\n")
    return "\n\n".join(tables)
