"""Hooks of MkDocs: pages that are generated, pages that lie outside docs/, and links that work on GitHub and here.

A link in a page is a path from its file in the repository, as GitHub follows it. In the site, docs/NAME.md is NAME.md.
Every other file that a page links is copied under its own path, and Markdown becomes a page.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import reference_docs  # noqa: E402  # behind the path that it lies on

LINK = re.compile(r"(\]\()([^)#\s]*)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^(```.*?^```[ ]*$)", re.M | re.S)
HOME = "README.md"  # of the repository: the site has docs/index.md instead


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what docs/ does not hold: generated pages, and every file of the repository that a page links."""
    for name, text in reference_docs.pages().items():
        files.append(File.generated(config, name, content=text))
    waiting = [f"docs/{f.src_uri}" for f in files.documentation_pages() if not f.generated_by]
    waiting += [page for page in _named(config.nav) if (ROOT / page).is_file()]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or path == HOME or not (ROOT / path).is_file():
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += [target for target in _targets(path) if target]
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Links from the repository's paths to the site's."""
    here = str(page.file.src_uri)
    if here.startswith(("reference/", "api/")):
        return markdown
    return rewritten(markdown, here if _outside(here) else f"docs/{here}", here)


def rewritten(markdown: str, path: str, here: str) -> str:
    """Text of the file ``path`` of the repository with its links as the page ``here`` of the site needs them."""

    def turn(match: re.Match[str]) -> str:
        target = _target(path, match[2])
        if target is None:
            return match[0]
        site = "index.md" if target == HOME else target.removeprefix("docs/")
        return f"{match[1]}{posixpath.relpath(site, posixpath.dirname(here) or '.')}{match[3]}"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(turn, part) for part in parts)


def _targets(path: str) -> Iterator[str | None]:
    text = FENCE.sub("", (ROOT / path).read_text(encoding="utf-8"))
    yield from (_target(path, match[2]) for match in LINK.finditer(text))


def _target(path: str, link: str) -> str | None:
    """The file of the repository that a link leads to. None for an address, an anchor, and what is not there."""
    if not link or ":" in link:
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        target = posixpath.join(target, "README.md")
    return target if os.path.isfile(ROOT / target) else None


def _outside(uri: str) -> bool:
    return not (ROOT / "docs" / uri).is_file()


def _named(nav: Any) -> Iterator[str]:
    """Every page that the navigation names."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, (list, dict)):
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _named(item)
