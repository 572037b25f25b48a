"""The figures in docs/findings.md are typed by hand: each must still stand on a page that a command wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.docs.pages import ROOT

NUMBER = re.compile(r"\d+\.\d+")
PAGES = (*ROOT.glob("docs/results/*.md"), *ROOT.glob("egs2/*/legonn1/[A-Z]*.md"))


def numbers(told: Any) -> Iterator[str]:
    """What a file of `legonn oracle` or `legonn_score compare` holds, as a text would round it."""
    if isinstance(told, dict):
        told = list(told.values())
    if isinstance(told, list):
        for inner in told:
            yield from numbers(inner)
    elif isinstance(told, float):
        yield f"{abs(told):.1f}"


def written() -> set[str]:
    """All figures of results pages, of recipes' READMEs, and of files of paired differences."""
    pages = (path.read_text(encoding="utf-8") for path in PAGES)
    found = {number for page in pages for number in NUMBER.findall(page)}
    for path in (*ROOT.glob("docs/results/*/oracle*.json"), *ROOT.glob("docs/results/*/*/result.json")):
        found |= set(numbers(json.loads(path.read_text(encoding="utf-8"))))
    return found


def test_figures_of_the_findings_stand_on_results_pages() -> None:
    known = written()
    lines = (ROOT / "docs/findings.md").read_text(encoding="utf-8").splitlines()
    lost = [(n, found) for n, line in enumerate(lines, 1) for found in NUMBER.findall(line) if found not in known]
    assert not lost, f"docs/findings.md (line, figure): {lost}"


def test_numbers() -> None:
    assert set(numbers({"rows": [{"value": -31.74, "ci": [1.04, 2.0]}, "x"], "n": 3})) == {"31.7", "1.0", "2.0"}
    assert "99.87" not in written(), "the comparison sees a figure that nobody measured"
