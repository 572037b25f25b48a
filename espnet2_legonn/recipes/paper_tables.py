"""The paper's tables with our results beside the published numbers.

python -m espnet2_legonn.recipes.paper_tables IV VI \\
    --found IV.baseline=exp/legonn_baseline/decode/test/score_wer VI.IV.tuned=exp/legonn_tuned/decode/test/score_wer

A result is TABLE.ROW.COLUMN=PLACE; .COLUMN may be left out where a table has one. PLACE is a folder of stage 13
(score_<metric>) or a result.json. espnet2_legonn/recipes/paper_tables.yaml holds the names and the published numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.errors import ConfigError, DataError, command
from espnet2_legonn.files.schema import Reader, nearest, read_yaml, shown
from espnet2_legonn.scoring.metrics import known
from espnet2_legonn.scoring.results import markdown_table, read_result

PUBLISHED = Path(__file__).resolve().with_name("paper_tables.yaml")
LOSS = "ctc_loss"  # of a column; recipes/valid_loss.py finds it
MEASURED = ("bleu", "wer", LOSS)  # what the paper's tables hold
MISSING = "not run"


@dataclass
class _Table:
    """A table as it is written; what is behind the label of a row depends on the columns."""

    title: str
    metric: str
    columns: dict[str, str]
    rows: dict[str, dict[str, Any]]
    measures: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass
class _Row:
    label: str
    metric: str | None = None
    gpu_hours: float | None = None


@dataclass(frozen=True)
class PaperRow:
    """One system: what was measured, the paper's values by column, and its GPU hours."""

    label: str
    metric: str
    values: Mapping[str, float | None]
    gpu_hours: float | None = None


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    ``measures``: columns that hold something else than their row's metric. ``note``: printed below.
    """

    number: str
    title: str
    columns: Mapping[str, str]
    rows: Mapping[str, PaperRow]
    measures: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def metric(self, row: str, column: str) -> str:
        """What a cell holds."""
        return self.measures.get(column, self.rows[row].metric)


@dataclass(frozen=True)
class Score:
    """One result of ours with its 95 % interval, if it has one."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:.1f} to {self.high:.1f})"
        return f"{self.value:.{digits(self.metric)}f}{interval}"


def digits(metric: str) -> int:
    """Decimals that the paper prints."""
    return 2 if metric == LOSS else 1


def unit(metric: str) -> str:
    """A metric with the direction that is better."""
    if metric == LOSS:
        return "CTC loss in nats a token, lower is better"
    return f"{known(metric).label}, {known(metric).direction}"


def load_tables(path: Path = PUBLISHED) -> dict[str, PaperTable]:
    """The published tables.

    Raises:
        ConfigError: the file is not there, or has unknown keys or columns.
    """
    reader, tables = Reader(), {}
    for number, entry in (reader.coerce(dict[str, _Table], read_yaml(path), str(path)) or {}).items():
        if entry is None:
            continue  # a fault that is noted already
        where = f"{path}.{number}"
        given = {name: row for name, row in (entry.rows or {}).items() if row is not None} if entry.columns else {}
        rows = {name: _read_row(reader, entry, row, f"{where}.{name}") for name, row in given.items()}
        for column, metric in entry.measures.items():
            if column not in entry.columns or metric not in MEASURED:
                reader.fault(f"{where}.measures", f"{column}: {metric} is no column with a metric")
        tables[number] = PaperTable(number, entry.title, entry.columns, rows, entry.measures, entry.note)
    if reader.faults:
        raise ConfigError(reader.faults)
    return tables


def _read_row(reader: Reader, table: _Table, given: dict[str, Any], where: str) -> PaperRow:
    """One row: a value in each column, beside the keys that every row has."""
    values = {}
    for column in table.columns:
        if column in given:
            values[column] = reader.coerce(float | None, given[column], f"{where}.{column}")
        else:
            reader.fault(where, f"no value in column {column!r} (null: the paper has none)")
    own = [f.name for f in dataclasses.fields(_Row)]
    keys = [*table.columns, *own]
    for key in given.keys() - set(keys):
        reader.fault(where, f"unknown key {shown(key)}{nearest(key, keys)}; known: {', '.join(keys)}")
    row = reader.build(_Row, {key: given[key] for key in own if key in given}, where)
    if (metric := row.metric or table.metric) not in MEASURED:
        reader.fault(where, f"metric {metric!r} is not one of {', '.join(MEASURED)}{nearest(metric, MEASURED)}")
    return PaperRow(row.label, metric, values, row.gpu_hours)


def read_score(place: Path) -> Score:
    """The result in a folder of stage 13, or in a result.json; see ``results.read_result``."""
    data = read_result(place)
    return Score(data["metric"], data["value"], data.get("ci_low"), data.get("ci_high"))


def read_found(items: Sequence[str], tables: Mapping[str, PaperTable]) -> dict[tuple[str, str, str], Score]:
    """`TABLE.ROW[.COLUMN]=PLACE` to scores.

    Raises:
        DataError: every item that names nothing, is no result, or was measured otherwise than the paper.
    """
    faults: list[str] = []
    found: dict[tuple[str, str, str], Score] = {}
    for item in items:
        key, _, place = item.partition("=")
        number, name, column = (*key.split(".", 2), "", "")[:3]
        table = tables.get(number)
        if table is not None and not column and len(table.columns) == 1:
            column = next(iter(table.columns))
        if table is None:
            faults.append(f"--found {item}: no table {number!r}{nearest(number, tables)}")
        elif name not in table.rows:
            faults.append(f"--found {item}: Table {number} has no row {name!r}{nearest(name, table.rows)}")
        elif column not in table.columns:
            faults.append(f"--found {item}: Table {number} has the columns {', '.join(table.columns)}; name one")
        else:
            try:
                score = read_score(Path(place))
            except DataError as error:
                faults += error.faults
                continue
            if not score.metric.startswith(table.metric(name, column)):
                faults.append(f"--found {item}: is {score.metric}, the paper measured {table.metric(name, column)}")
            found[number, name, column] = score
    if faults:
        raise DataError(faults)
    return found


def render(table: PaperTable, found: Mapping[tuple[str, str, str], Score]) -> str:
    """One table in Markdown: for each column what the paper has, what we have, and by how much they differ."""
    metrics = {row.metric for row in table.rows.values()}
    head = [""]
    for heading in table.columns.values():
        head += [f"{heading}: paper", "ours (95 % interval)", "difference"]
    hours = any(row.gpu_hours is not None for row in table.rows.values())
    rows = []
    for name, row in table.rows.items():
        cells = [row.label if len(metrics) == 1 else f"{row.label}, {row.metric.upper()}"]
        for column in table.columns:
            paper, ours = row.values[column], found.get((table.number, name, column))
            decimals = digits(table.metric(name, column))
            cells.append("-" if paper is None else f"{paper:.{decimals}f}")
            cells.append(MISSING if ours is None else str(ours))
            cells.append("" if ours is None or paper is None else f"{ours.value - paper:+.{decimals}f}")
        if hours:
            cells.append("" if row.gpu_hours is None else f"{row.gpu_hours:g}")
        rows.append(tuple(cells))
    if hours:
        head.append("GPU hours: paper")
    units = "; ".join(map(unit, [*sorted(metrics), *sorted(set(table.measures.values()))]))
    note = f"\n{table.note}\n" if table.note else ""
    return f"### Table {table.number}: {table.title}\n\n{units}\n\n{markdown_table(tuple(head), rows)}{note}"


def get_parser() -> argparse.ArgumentParser:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="Roman numerals of the paper")
    parser.add_argument("--found", nargs="*", default=[], metavar="TABLE.ROW[.COLUMN]=PLACE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there too")
    parser.add_argument("--published", type=Path, default=PUBLISHED, metavar="YAML")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print tables; 0 when all results could be read."""
    args = get_parser().parse_args(argv)
    published = load_tables(args.published)
    if unknown := [number for number in args.tables if number not in published]:
        raise ConfigError(f"no table {', '.join(unknown)}; there are {', '.join(published)}")
    found = read_found(args.found, published)
    text = "\n".join(render(published[number], found) for number in args.tables)
    print(text, end="")
    if args.out:
        with atomic_text(args.out) as stream:
            stream.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
