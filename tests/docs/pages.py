"""Reading the project's documents: code blocks, links, and anchors such as ``model/chain.py::Chain.losses``."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md", "egs2/README.md",
    "examples/README.md", "local/README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
)  # fmt: skip
RECIPES = (
    "mini_legonn", "an4", "multi30k", "multi30k_study", "swbd", "tedlium2", "europarl_st", "wmt14_en_de", "wmt19_de_en",
    "wmt16_ro_en",
)  # fmt: skip
ANCHOR = re.compile(r"`([\w./-]+\.py)::([\w.]+)`")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[\w-]*)?\)")
PART = re.compile(r"\]\((?!https?:)([^)#\s]*)#([\w.-]+)\)")  # a link to a heading, of the same page if there is no path


def all_pages() -> list[Path]:
    """Every document of ours."""
    return [ROOT / p for p in PAGES] + [ROOT / f"egs2/{r}/legonn1/README.md" for r in RECIPES]


def read(page: str) -> str:
    """Text of a document, by its path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def headings(page: Path) -> set[str]:
    """The names by which links find a page's headings: small letters, minus signs for blanks, no other marks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def blocks(text: str, *languages: str) -> list[str]:
    """Contents of the fenced blocks in these languages."""
    return [body for language, body in BLOCK.findall(text) if language in languages]


def find(path: str) -> Path | None:
    """A file named in a document: from the root, or below the package."""
    return next((p for p in (ROOT / path, ROOT / "espnet2_legonn" / path) if p.is_file()), None)


def fault(path: str, symbol: str) -> str | None:
    """What is wrong with an anchor, or None."""
    file = find(path)
    if file is None:
        return f"{path}::{symbol}: no such file"
    return None if symbol in symbols(file) else f"{path}::{symbol}: no such symbol in {file.relative_to(ROOT)}"


@functools.cache
def symbols(file: Path) -> frozenset[str]:
    """Names that a file defines: functions, classes, their methods and fields, constants."""
    return frozenset(_names(ast.parse(file.read_text(encoding="utf-8")).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from _names(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            yield from (prefix + t.id for t in targets if isinstance(t, ast.Name))


def wrong_anchors(text: str) -> list[str]:
    """Every fault of the anchors in a document."""
    return [f for path, symbol in ANCHOR.findall(text) if (f := fault(path, symbol))]
