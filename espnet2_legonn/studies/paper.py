"""The paper's tables beside what was measured here in kind: one page from the results pages of all recipes.

example: python -m espnet2_legonn.studies.paper docs/results/paper.yaml
writes docs/results/paper.md

The YAML names, for each cell, a row of a published table (recipes/paper_tables.yaml) or of a results page. Corpora and
sizes differ, so scores are not comparable with the paper's: what can be compared is a difference to the same row.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from espnet2_legonn.errors import ConfigError, DataError, command
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import Reader, nearest
from espnet2_legonn.recipes.paper_tables import PaperTable, digits, load_tables
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.tables import write_atomic

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_BAR = re.compile(r"(?<!\\)\|")


@dataclass
class CellPlace:
    """Where a cell's score stands, as far as its column does not say it."""

    row: str
    table: str | None = None
    column: str | None = None


@dataclass
class Setting:
    """One setting: the paper's, or one of ours.

    Args:
        page: a name of ``pages``; none: the paper.
        table: its heading, or headings with `` / `` between, or the number of a published table.
        column: its heading; interval: heading of a column that has the interval apart.
    """

    title: str
    table: str
    column: str
    page: str | None = None
    interval: str | None = None


@dataclass
class SystemRow:
    """One system: a place (or the name of a row) in each column; null where it was not built."""

    label: str
    cells: list[CellPlace | str | None]


@dataclass
class PaperComparison:
    """A table of the paper. less: label of the row that others are compared with."""

    title: str
    text: str
    columns: list[Setting]
    rows: list[SystemRow]
    less: str


@dataclass
class PageSpec:
    """The whole page."""

    title: str
    text: str
    pages: dict[str, str]
    tables: list[PaperComparison]
    closing: str = ""


@dataclass
class PageTable:
    """A table of a Markdown page: rows by their first cell, each with its cells by heading."""

    headings: tuple[str, ...]
    rows: dict[str, dict[str, str]] = field(default_factory=dict)


def read_page(path: Path) -> list[PageTable]:
    """All tables of a page that a command wrote, each with the headings above it.

    Raises:
        DataError: there is no such page.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such page")
    headings: dict[int, str] = {}
    sections: list[PageTable] = []
    header: list[str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            headings = {n: text for n, text in headings.items() if n < level} | {level: line[level:].strip()}
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _BAR.split(line)[1:-1]]
        if header is None:
            header = cells
            sections.append(PageTable(tuple(headings.values())))
        elif not set(line) <= set("|-: "):
            sections[-1].rows[cells[0]] = dict(zip(header, cells))
    return sections


def find(sections: Sequence[PageTable], table: str, row: str, column: str) -> str:
    """A cell.

    Raises:
        DataError: there is no such table, row or column; the nearest names are told.
    """
    wanted = tuple(table.split(" / "))
    named = [s for s in sections if s.headings[-len(wanted) :] == wanted]
    if not named:
        raise DataError(f"no table {table!r}{nearest(table, [s.headings[-1] for s in sections if s.headings])}")
    section = next((s for s in named if row in s.rows), None)
    if section is None:
        raise DataError(f"table {table!r} has no row {row!r}{nearest(row, [r for s in named for r in s.rows])}")
    cells = section.rows[row]
    if column not in cells:
        raise DataError(f"table {table!r} has no column {column!r}{nearest(column, cells)}")
    return cells[column]


def find_published(tables: Mapping[str, PaperTable], table: str, row: str, column: str) -> str:
    """A published score, with as many decimals as the paper prints.

    Raises:
        DataError: the paper has no such cell.
    """
    found = tables.get(table)
    if found is None or row not in found.rows or column not in found.columns:
        raise DataError(f"the paper has no {table}.{row}.{column}")
    value = found.rows[row].values[column]
    return "-" if value is None else f"{value:.{digits(found.metric(row, column))}f}"


def render(comparison: PaperComparison, spec: PageSpec, pages: Mapping[str, list[PageTable]]) -> str:
    """One table in Markdown: each column's scores, and their differences to the row ``less``.

    Raises:
        ConfigError: cells that are not there, all of them.
    """
    published, faults = load_tables(), []
    texts: list[list[str]] = []
    for row in comparison.rows:
        if len(row.cells) != len(comparison.columns):
            faults.append(f"{comparison.title}: {row.label}: {len(row.cells)} cells, {len(comparison.columns)} columns")
            continue
        texts.append([])
        for column, cell in zip(comparison.columns, row.cells):
            if cell is None:
                texts[-1].append("")
                continue
            place = CellPlace(cell) if isinstance(cell, str) else cell
            table = place.table or column.table
            look = partial(find_published, published) if column.page is None else partial(find, pages[column.page])
            try:
                text = look(table, place.row, place.column or column.column)
                if column.interval is not None and (interval := look(table, place.row, column.interval)):
                    text += f" ({interval})"
            except DataError as error:
                where = "paper" if column.page is None else spec.pages[column.page]
                faults += [f"{comparison.title}: {row.label}: {where}: {fault}" for fault in error.faults]
                text = ""
            texts[-1].append(text)
    labels = [row.label for row in comparison.rows]
    if comparison.less not in labels:
        faults.append(f"{comparison.title}: less: no row {comparison.less!r}{nearest(comparison.less, labels)}")
    if faults:
        raise ConfigError(faults)
    base = [_value(text) for text in texts[labels.index(comparison.less)]]
    rows = []
    for label, cells in zip(labels, texts):
        rows.append([label])
        for text, under in zip(cells, base):
            value = _value(text)
            apart = label != comparison.less and value is not None and under is not None
            rows[-1] += [text, f"{value - under:+.1f}" if apart and value is not None and under is not None else ""]
    header = ["", *(part for column in comparison.columns for part in (column.title, "difference"))]
    text = f"{comparison.text.strip()} Differences are to *{comparison.less}*."
    return f"## {comparison.title}\n\n{text}\n\n{markdown_table(header, rows)}"


def _value(text: str) -> float | None:
    found = _NUMBER.match(text)
    return None if found is None else float(found.group())


def page(path: Path) -> str:
    """The page that a YAML describes.

    Raises:
        ConfigError: everything that is wrong with it. DataError: a page is missing.
    """
    reader = Reader()
    spec: PageSpec = reader.build(PageSpec, read_config(path), str(path))
    if reader.faults:
        raise ConfigError(reader.faults)
    names = [column.page for table in spec.tables for column in table.columns if column.page is not None]
    if unknown := sorted({name for name in names if name not in spec.pages}):
        raise ConfigError([f"{path}: no page {name!r}{nearest(name, spec.pages)}" for name in unknown])
    pages = {name: read_page(path.parent / place) for name, place in spec.pages.items()}
    tables, faults = [], []
    for comparison in spec.tables:
        try:
            tables.append(render(comparison, spec, pages))
        except ConfigError as error:
            faults += [f"{path}: {fault}" for fault in error.faults]
    if faults:
        raise ConfigError(faults)
    head = ["<!-- Generated by python -m espnet2_legonn.studies.paper -->", f"# {spec.title}", spec.text.strip()]
    return "\n\n".join([*head, *tables, spec.closing.strip()]).strip() + "\n"


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Write the page beside its description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, help="a YAML; the page is written beside it")
    args = parser.parse_args(cmd)
    write_atomic(args.spec.with_suffix(".md"), page(args.spec))
    print(args.spec.with_suffix(".md"))


if __name__ == "__main__":
    sys.exit(main())
