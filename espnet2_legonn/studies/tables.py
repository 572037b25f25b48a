"""Tables of a plan with seeds, with intervals over trainings and sentences, and what became of its claims.

example: python -m espnet2_legonn.studies.tables conf/plan.yaml --claims conf/claims.yaml --out results/real
writes results/real.md, results/real.json and, in results/real/, a picture of each table and the scores of each seed: a
table has the seeds that were trained elsewhere, too
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import DataError, command
from espnet2_legonn.recipes.plan import Cell, ResultColumn, ResultTable, load_plan
from espnet2_legonn.scoring.metrics import speakers_of
from espnet2_legonn.scoring.results import environment, markdown_table
from espnet2_legonn.scoring.tables import write_atomic
from espnet2_legonn.studies.claims import ClaimResult, judge, load_claims
from espnet2_legonn.studies.digest import PAIRED
from espnet2_legonn.studies.figures import draw
from espnet2_legonn.studies.matrix import read_swaps, shares_table, swap_text
from espnet2_legonn.studies.records import Records, Run
from espnet2_legonn.studies.scores import Scores, difference_of, mean_of, origins


def cell_of(column: ResultColumn, cell: Cell, runs: dict[int, Run], first: dict[int, Run]) -> dict[str, Any]:
    """A cell as data: scores by seed, mean, interval, difference to the first row, updates and hours."""
    values = {str(seed): run.value for seed, run in runs.items()}
    deviation = statistics.stdev(values.values()) if len(values) > 1 else None
    updates = [run.updates or 0 for run in runs.values()]
    hours = [run.hours for run in runs.values()]
    return {
        "exp": cell.exp, "search": cell.search, "interface": cell.interface, "metric": column.metric, "set": column.set,
        "seeds": values, "mean": mean_of(runs), "deviation": deviation,
        "less_first": None if runs is first else difference_of(runs, first),
        "updates": round(statistics.fmean(updates)), "hours": statistics.fmean(hours),
        "parameters": next((run.parameters for run in runs.values() if run.parameters), None),
    }  # fmt: skip


def table_of(table: ResultTable, scores: Scores) -> dict[str, Any]:
    """A table as data; a cell that was not run is None, one that the plan leaves empty is {}.

    The first row that was run is what others are compared with. All rows are of the seeds that the table asks for.
    """
    scores = dataclasses.replace(scores, seeds=scores.seeds[: table.seeds or None])
    first: dict[str, dict[int, Run]] = {}
    rows = []
    for row in table.rows:
        cells: list[dict[str, Any] | None] = []
        for column, cell in zip(table.columns, row.cells):
            if cell is None:
                cells.append({})
            elif runs := scores.of(column, cell):
                cells.append(cell_of(column, cell, runs, first.setdefault(column.title, runs)))
            else:
                cells.append(None)
        rows.append({"label": row.label, "baseline": row.baseline, "cells": cells})
    return {"title": table.title, "columns": [column.title for column in table.columns], "rows": rows}


def render(table: dict[str, Any], picture: str) -> str:
    """A table in Markdown, and its picture."""
    rows = []
    for row in table["rows"]:
        texts = [row["label"]]
        for cell in row["cells"]:
            texts += _texts(cell)
        rows.append(texts)
    header = [
        "",
        *(part for title in table["columns"] for part in (title, PAIRED, "weights, updates, hours")),
    ]
    return f"### {table['title']}\n\n{markdown_table(header, rows)}\n\n![{table['title']}]({picture})"


def _texts(cell: dict[str, Any] | None) -> list[str]:
    if not cell:
        return ["not run" if cell is None else "", "", ""]
    seeds = len(cell["seeds"])
    deviation = f" ± {cell['deviation']:.1f}" if seeds > 1 else ", 1 seed"
    mean, less = cell["mean"], cell["less_first"]
    size = f"{cell['parameters'] / 1e6:.2f} M" if cell["parameters"] else "?"
    spent = f"{size}, {cell['updates'] or 0}, {cell['hours'] or 0:.2f}"
    return [f"{mean.as_text()}{deviation}", "" if less is None else less.as_text("+"), spent]


def render_claims(verdicts: Sequence[ClaimResult]) -> str:
    """What was expected, and what came of it. Gains over two or more trainings have two intervals."""
    rows = []
    for verdict in verdicts:
        gains = "; ".join(
            f"{pair.of.exp} {'?' if gain is None else gain.as_text('+')}"
            for pair, gain in zip(verdict.claim.pairs, verdict.gains)
        )
        mean = "" if verdict.mean is None else verdict.mean.as_text("+")
        rows.append([verdict.claim.name, verdict.claim.text, verdict.told, mean, gains])
    said = (
        "Gains have 95 % intervals: first a bootstrap over trainings and sentences, then, behind t, Student's t over "
        "trainings. Of one training there is a bootstrap over sentences alone. A gain counts as shown if all its "
        "intervals lie above 0."
    )
    header = ["", "Expectation", "Verdict", "Mean gain (bootstrap; t)", "Gain of each (bootstrap; t)"]
    return f"{said}\n\n{markdown_table(header, rows)}"


def notes(seeds: Sequence[int], speakers: Mapping[str, int]) -> str:
    """How a page is to be read, in Markdown.

    Args:
        seeds: that are asked for; speakers: number of speakers by test set, of those that have any.
    """
    counts = "".join(f"; {name} has {number}" for name, number in sorted(speakers.items()))
    lines = [
        "Means are over the seeds that are done, ± is the standard deviation over seeds (asked for: "
        f"{' '.join(map(str, seeds))}).",
        "Intervals in the tables are 95 % intervals by a bootstrap over trainings and sentences. Of few trainings they "
        "are too narrow. Each stands for itself: nothing is corrected for the number of comparisons.",
        f"Where a test set has speakers, speakers are drawn in place of sentences{counts}.",
        "A row's difference is of the seeds that both rows have.",
        "Weights: of all modules.",
        "Updates: of a system's last training. A plug has none; those of its encoder and its donor stand in their own "
        "rows.",
        "Hours: wall-clock time of a training from its last start on, on a shared machine. Of one that was resumed "
        "they are no measure of its cost.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def speakers_drawn(raw: Path, tables: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of speakers of each test set of the tables that lies in ``raw``, where some said several utterances."""
    found = {}
    for name in {cell["set"] for table in tables for row in table["rows"] for cell in row["cells"] if cell}:
        if (file := speakers_of(raw / name)) is not None:
            speakers = read_table(file)
            if (number := len(set(speakers.values()))) < len(speakers):
                found[name] = number
    return found


def _plain(value: object) -> object:
    return value.as_json() if hasattr(value, "as_json") else str(value)


def write(
    tables: list[dict[str, Any]],
    verdicts: Sequence[ClaimResult],
    swaps: Mapping[str, Mapping[str, Any]],
    note: str,
    out: Path,
    trained: Sequence[str] = (),
) -> str:
    """Write ``<out>.md``, ``<out>.json`` and pictures in ``<out>/``; the text is returned.

    Args:
        note: how the page is to be read, above its tables.
        trained: where that was which stands in them, see ``scores.origins``.
    """
    facts = [f"- {name}: `{value}`" for name, value in environment().items()]
    head = ["<!-- Generated by python -m espnet2_legonn.studies.tables -->", f"# Results: {out.name}"]
    parts = [*head, note, "## Environments", "This page was written with:", "\n".join(facts)]
    if trained:
        parts += ["What stands on it was trained, or put together:", "\n".join(f"- {line}" for line in trained)]
    if verdicts:
        parts += ["## What was expected", render_claims(verdicts)]
    parts += ["## Tables"]
    missing = []
    for number, table in enumerate(tables, 1):
        if any(cell for row in table["rows"] for cell in row["cells"]):
            draw(table, out / f"{number}.svg")
            parts.append(render(table, f"{out.name}/{number}.svg"))
        else:
            missing.append(f"- {table['title']}")
    if swaps:
        draw(shares := shares_table(swaps), out / "swaps.svg")
        parts += ["## Swaps", *(f"### {title}\n\n{swap_text(found)}" for title, found in swaps.items())]
        parts.append(f"![{shares['title']}]({out.name}/swaps.svg)")
    if missing:
        parts += ["## Not run yet", "\n".join(missing)]
    text = "\n\n".join(parts) + "\n"
    payload = {
        "environment": environment(),
        "claims": [v.as_json() for v in verdicts],
        "tables": tables,
        "swaps": swaps,
    }
    write_atomic(out.with_suffix(".md"), text)
    write_atomic(out.with_suffix(".json"), json.dumps(payload, indent=1, default=_plain) + "\n")
    return text


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Read scores, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("plan", type=Path)
    add("--claims", type=Path, help="what was expected")
    add("--expdir", type=Path, default=Path("exp/study"))
    add("--raw", type=Path, default=Path("dump/raw"), help="data directories")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--swaps", nargs="+", default=[], metavar="TITLE=DIR", help="what `legonn swap` wrote")
    add("--out", type=Path, required=True, help="path of the files without their ending")
    args = parser.parse_args(cmd)
    plan = load_plan(args.plan, tables="study")
    whole = load_plan(args.plan, tables="all")
    claims = load_claims(args.claims, whole) if args.claims else []
    records = Records(args.out, whole)
    plans = {seed: load_plan(args.plan, tables="all", seed=seed) for seed in args.seeds}
    scores = Scores(args.expdir, args.raw, args.seeds, records, plans=plans)
    tables = [table_of(table, scores) for table in plan.tables]
    if not any(cell for table in tables for row in table["rows"] for cell in row["cells"]):
        raise DataError(f"{args.expdir}: nothing is done yet")
    swaps = read_swaps(args.swaps, args.out)
    note = notes(args.seeds, speakers_drawn(args.raw, tables))
    verdicts = [judge(claim, scores) for claim in claims]
    print(write(tables, verdicts, swaps, note, args.out, origins(scores)))
    records.write()


if __name__ == "__main__":
    sys.exit(main())
