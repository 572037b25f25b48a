"""A page of tables that are put together from the results pages of recipes, and from the paper's tables.

example: python -m espnet2_legonn.studies.digest docs/results/*.yaml
writes a page with the same name beside each, such as docs/results/paper.md

The YAML names, for each cell, a row of a results page or of a published table (recipes/paper_tables.yaml). Corpora and
sizes differ, so scores of two columns are not comparable: what can be compared is the difference to the same row.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from espnet2_legonn.errors import ConfigError, DataError, command
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.files.schema import Reader, nearest
from espnet2_legonn.recipes.paper_tables import PaperTable, digits, load_tables
from espnet2_legonn.scoring.results import markdown_table
from espnet2_legonn.scoring.tables import write_atomic

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_SEEDS = re.compile(r", (\d+) seeds?$")
_BAR = re.compile(r"(?<!\\)\|")
PAIRED = "less the first row"  # heading of the differences behind a column of a study's table


@dataclass(frozen=True)
class Found:
    """A score as it is printed on its page; a paired difference to the first row of its table, if the page has one.

    Args:
        place: table, column and row of the score; first: those of the first row.
    """

    text: str
    place: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    paired: str = ""


Source = tuple[str, Callable[[str, str, str], Found]]  # what errors call it, and its cells by table, row and column


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
class DigestTable:
    """One table. less: label of the row that others are compared with."""

    title: str
    text: str
    columns: list[Setting]
    rows: list[SystemRow]
    less: str


@dataclass
class Digest:
    """The whole page."""

    title: str
    text: str
    pages: dict[str, str]
    tables: list[DigestTable]
    closing: str = ""


@dataclass
class PageTable:
    """A table of a Markdown page, with the headings above it; a row's first cell is its label."""

    headings: tuple[str, ...]
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)


def read_page(path: Path) -> list[PageTable]:
    """All tables of a page that a command wrote.

    Raises:
        DataError: there is no such page.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such page; run the recipe that writes it, or correct `pages`")
    headings: dict[int, str] = {}
    tables: list[PageTable] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            headings = {n: text for n, text in headings.items() if n < level} | {level: line[level:].strip()}
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in _BAR.split(line)[1:-1]]
        if not inside:
            tables.append(PageTable(tuple(headings.values()), cells))
            inside = True
        elif not set(line) <= set("|-: "):
            tables[-1].rows.append(cells)
    return tables


def find(tables: Sequence[PageTable], table: str, row: str, column: str) -> Found:
    """A cell.

    Raises:
        DataError: there is no such table, row or column, or more than one; the nearest names are told.
    """
    wanted = tuple(table.split(" / "))
    named = [t for t in tables if t.headings[-len(wanted) :] == wanted]
    if not named:
        raise DataError(f"no table {table!r}{nearest(table, [t.headings[-1] for t in tables if t.headings])}")
    if len({t.headings for t in named}) > 1:
        raise DataError(
            f"{len(named)} tables {table!r}; name one with the heading above it: {' / '.join(named[0].headings[1:])!r}"
        )
    rows = [(t, cells) for t in named for cells in t.rows if cells[0] == row]
    if not rows:
        raise DataError(f"table {table!r} has no row {row!r}{nearest(row, [c[0] for t in named for c in t.rows])}")
    if len(rows) > 1:
        raise DataError(f"table {table!r} has {len(rows)} rows {row!r}")
    found, cells = rows[0]
    if (number := found.header.count(column)) != 1:
        raise DataError(f"table {table!r} has {number or 'no'} columns {column!r}{nearest(column, found.header)}")
    index = found.header.index(column)
    where = (*found.headings, column)
    paired = cells[index + 1] if found.header[index + 1 : index + 2] == [PAIRED] else ""
    return Found(cells[index], (*where, row), (*where, found.rows[0][0]), paired)


def find_published(tables: Mapping[str, PaperTable], table: str, row: str, column: str) -> Found:
    """A published score, with as many decimals as the paper prints.

    Raises:
        DataError: the paper has no such cell.
    """
    found = tables.get(table)
    if found is None or row not in found.rows or column not in found.columns:
        raise DataError(f"the paper has no {table}.{row}.{column}")
    value = found.rows[row].values[column]
    return Found("-" if value is None else f"{value:.{digits(found.metric(row, column))}f}")


def scores_of(table: DigestTable, sources: Mapping[str | None, Source]) -> list[list[Found]]:
    """The scores of a table, without a text where nothing was built.

    Args:
        sources: by the name of a page; None: the paper.

    Raises:
        ConfigError: cells that are not there, all of them.
    """
    faults, scores = [], []
    for row in table.rows:
        if len(row.cells) != len(table.columns):
            faults.append(f"{table.title}: {row.label}: {len(row.cells)} cells, {len(table.columns)} columns")
            continue
        scores.append([Found("")] * len(table.columns))
        for number, (column, cell) in enumerate(zip(table.columns, row.cells)):
            if cell is None:
                continue
            place = CellPlace(cell) if isinstance(cell, str) else cell
            (where, look), named = sources[column.page], place.table or column.table
            try:
                found = look(named, place.row, place.column or column.column)
                if column.interval is not None and (interval := look(named, place.row, column.interval).text):
                    found = replace(found, text=f"{found.text} ({interval})")
                scores[-1][number] = found
            except DataError as error:
                faults += [f"{table.title}: {row.label}: {where}: {fault}" for fault in error.faults]
    labels = [row.label for row in table.rows]
    if table.less not in labels:
        faults.append(f"{table.title}: less: no row {table.less!r}{nearest(table.less, labels)}")
    if faults:
        raise ConfigError(faults)
    return scores


def render(table: DigestTable, scores: list[list[Found]]) -> str:
    """One table in Markdown: each column's scores, and their differences to the row ``less``."""
    labels = [row.label for row in table.rows]
    base = scores[labels.index(table.less)]
    rows = []
    for label, cells in zip(labels, scores):
        differences = [""] * len(cells) if label == table.less else map(_difference, cells, base)
        rows.append([label, *(part for cell, less in zip(cells, differences) for part in (cell.text, less))])
    header = ["", *(part for column in table.columns for part in (column.title, f"less {table.less}"))]
    return f"## {table.title}\n\n{table.text.strip()}\n\n{markdown_table(header, rows)}"


def _difference(cell: Found, under: Found) -> str:
    """The page's own, which is paired, else that of two rounded scores; "" if they rest on other numbers of seeds."""
    if cell.paired and cell.first == under.place:
        return cell.paired
    if _seeds(cell.text) != _seeds(under.text):
        return ""
    found = _NUMBER.match(cell.text), _NUMBER.match(under.text)
    return f"{float(found[0].group()) - float(found[1].group()):+.1f}" if found[0] and found[1] else ""


def _seeds(text: str) -> str:
    """How many seeds a score says it has, if not all that were asked for."""
    found = _SEEDS.search(text)
    return found.group(1) if found else ""


def page(path: Path) -> str:
    """The page that a YAML describes.

    Raises:
        ConfigError: everything that is wrong with it; of cells only if no page is missing.
    """
    reader = Reader()
    digest: Digest = reader.build(Digest, read_config(path), str(path))
    if reader.faults:
        raise ConfigError(reader.faults)
    names = {column.page for table in digest.tables for column in table.columns if column.page is not None}
    faults = [f"no page {name!r}{nearest(name, digest.pages)}" for name in sorted(names - digest.pages.keys())]
    faults += [f"pages: {name} is used by no column" for name in digest.pages if name not in names]
    sources: dict[str | None, Source] = {None: ("paper", partial(find_published, load_tables()))}
    tables = []
    for name, place in digest.pages.items():
        try:
            sources[name] = place, partial(find, read_page(path.parent / place))
        except DataError as error:
            faults += error.faults
    if not faults:
        for table in digest.tables:
            try:
                tables.append(render(table, scores_of(table, sources)))
            except ConfigError as error:
                faults += error.faults
    if faults:
        raise ConfigError([f"{path}: {fault}" for fault in faults])
    head = ["<!-- Generated by python -m espnet2_legonn.studies.digest -->", f"# {digest.title}", digest.text.strip()]
    return "\n\n".join([*head, *tables, digest.closing.strip()]).strip() + "\n"


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Write each page beside its description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", type=Path, nargs="+", metavar="YAML", help="a page is written beside each")
    args = parser.parse_args(cmd)
    for spec in args.specs:
        write_atomic(spec.with_suffix(".md"), page(spec))
        print(spec.with_suffix(".md"))


if __name__ == "__main__":
    sys.exit(main())
