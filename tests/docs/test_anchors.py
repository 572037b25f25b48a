"""What the documents point at exists: symbols, files, links, rooms, and all of the paper."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from espnet2_legonn.model import description as config
from espnet2_legonn.model import parts, transformer
from espnet2_legonn.search import options
from tests.docs.pages import ANCHOR, LINK, PART, ROOT, all_pages, fault, headings, read, wrong_anchors

# A path in code font that a reader may open; what a recipe makes (data/, dump/, exp/) is not ours.
FILE = re.compile(r"`((?:espnet2_legonn|tests|egs2|tools|conf|docs|local)/[\w./-]+\.(?:py|sh|yaml|md|svg|pl))`")
ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII")
PAPER = [*(f"({n})" for n in range(1, 22)), *(f"Table {r}" for r in ROMAN), *(f"Figure {n}" for n in range(1, 5))]


@pytest.mark.parametrize("page", all_pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_symbols_files_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    faults = wrong_anchors(text)
    faults += [f"{path}: no such file" for path in FILE.findall(text) if not _there(page, path)]
    # RESULTS.md of a recipe is there once the recipe was run and its results were committed.
    links = [link for link in LINK.findall(text) if Path(link).name != "RESULTS.md"]
    faults += [f"link {link}: leads nowhere" for link in links if not (page.parent / link).exists()]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "page", [*all_pages(), *sorted((ROOT / "docs/results").glob("*.md"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_to_headings_find_them(page: Path) -> None:
    targets = [(page.parent / path if path else page, name) for path, name in PART.findall(page.read_text("utf-8"))]
    assert [f"{path}#{name}" for path, name in targets if path.suffix == ".md" and name not in headings(path)] == []


def test_headings() -> None:
    wanted = {"what-holds-what-does-not-and-why", "why", "so-when-to-plug"}
    assert wanted <= headings(ROOT / "docs/findings.md")
    assert PART.findall("[a](b.md#c-d) [e](#f) [g](https://h#i) [j](k.md)") == [("b.md", "c-d"), ("", "f")]


def _there(page: Path, path: str) -> bool:
    """From the root, beside the page, or (local/, conf/) in some recipe."""
    return (ROOT / path).exists() or (page.parent / path).exists() or any(ROOT.glob(f"egs2/*/legonn1/{path}"))


def test_a_wrong_anchor_is_found() -> None:
    assert wrong_anchors("see `model/chain.py::Chain.losses` and `model/losses.py::ctc_loss`") == []
    assert "no such symbol" in str(fault("model/chain.py", "Chain.loses"))
    assert "no such file" in str(fault("chains.py", "Chain"))


def paper_rows() -> dict[str, str]:
    """Rows of the tables of docs/paper_map.md by their first cell."""
    rows = {}
    for line in read("docs/paper_map.md").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[0] in PAPER:
            assert cells[0] not in rows, f"{cells[0]} has two rows"
            rows[cells[0]] = line
    return rows


@pytest.mark.parametrize("item", PAPER)
def test_the_whole_paper_is_mapped(item: str) -> None:
    """Every equation has a symbol and a test; every table and figure a symbol, a test, a recipe, or says what lacks."""
    row = paper_rows().get(item)
    assert row is not None, f"docs/paper_map.md: no row for {item}"
    pointed = ANCHOR.findall(row)
    tests = [path for path, _ in pointed if path.startswith("tests/")]
    if item.startswith("("):
        assert tests and len(tests) < len(pointed), f"{item}: name a symbol and a test"
    else:
        assert pointed or "egs2/" in row or "corpora recipes" in row, f"{item}: name symbol, recipe or what lacks"


def test_the_readings_say_where_they_are() -> None:
    section = read("docs/paper_map.md").split("## Readings")[1]
    rows = [line for line in section.splitlines() if line.startswith("|") and not line.startswith(("| reading", "|-"))]
    assert len(rows) >= 15
    assert not (bare := [row[:60] for row in rows if not ANCHOR.search(row)]), bare


def test_the_rooms_are_those_of_the_house() -> None:
    house = ast.parse(read("tests/house/test_house.py"))
    value = next(n.value for n in house.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "ROOMS")
    rooms = ast.literal_eval(value)
    section = read("docs/architecture.md").split("## The house")[1].split("\n## ")[0]
    written = re.findall(r"^\| `(\w+?)(?:\.py|/)?` \|", section, re.M)
    here = {p.stem for p in (ROOT / "espnet2_legonn").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert set(written) == here, "the table of rooms must have every room of the package and no other"
    assert [r for r in written if r in rooms] == [r for r in rooms if r in written], "rooms stand in building order"


def test_the_defaults_are_those_of_the_code() -> None:
    section = read("docs/architecture.md").split("## Defaults")[1].split("\n## ")[0]
    rooms = (config, parts, parts.frames, parts.speech, transformer, options)
    classes = {name: value for room in rooms for name, value in vars(room).items()}
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| `([^`]+)` \|", section, re.M)
    assert len(rows) >= 15
    wrong = []
    for name, key, value in rows:
        field = next(f for f in dataclasses.fields(classes[name]) if f.name == key)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default != yaml.safe_load(value):
            wrong.append(f"{name}.{key}: {value} is written, the code has {default!r}")
    assert not wrong, "\n".join(wrong)
