#!/usr/bin/env python3
"""Copy the first tables of the demo's RESULTS.md and of docs/results/real.md into README.md, between their markers.

Usage: python tools/update_readme.py [--check]        (standard library only)
  --check   change nothing; status 1 if README.md is not what this command would write
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = {  # by the name in a marker
    "demo": ROOT / "egs2" / "mini_legonn" / "legonn1" / "RESULTS.md",
    "real": ROOT / "docs" / "results" / "real.md",
}


class UpdateFailed(Exception):
    """README.md cannot be updated; the message says why and what to do."""


def markers(name: str) -> tuple[str, str]:
    """The lines around a table."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def first_table(name: str, page: str) -> str:
    """The first section of a page that holds a table, with its title.

    Raises:
        UpdateFailed: there is none.
    """
    for section in re.split(r"^(?=#{1,6} )", page, flags=re.M):
        lines = section.splitlines()
        rows = [line for line in lines if line.startswith("|")]
        if len(rows) > 2:  # header, rule, at least one row
            title = lines[0].lstrip("# ").strip()
            return "\n".join([f"**{title}**", "", *rows])
    raise UpdateFailed(f"{PAGES[name]}: holds no table; run what writes it to the end")


def render(readme: str, pages: dict[str, str]) -> str:
    """README with the first table of each page between its markers.

    Raises:
        UpdateFailed: markers are not there, each once and in order, or pages have no table; all of it.
    """
    faults = []
    for name, page in pages.items():
        begin, end = markers(name)
        if readme.count(begin) != 1 or readme.count(end) != 1 or readme.index(begin) > readme.index(end):
            faults.append(f"README.md: needs {begin} and after it {end}, each once; put them back")
            continue
        try:
            table = first_table(name, page)
        except UpdateFailed as failure:
            faults.append(str(failure))
            continue
        head, rest = readme.split(begin)
        readme = f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    if faults:
        raise UpdateFailed("\n".join(faults))
    return readme


def read_pages() -> dict[str, str]:
    """The pages by name.

    Raises:
        UpdateFailed: some are missing; all of them.
    """
    if missing := [str(path) for path in PAGES.values() if not path.is_file()]:
        raise UpdateFailed(f"{', '.join(missing)}: no such page; run the recipe that writes it (docs/lab.md)")
    return {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}


def main(arguments: list[str]) -> int:
    """Update or check; the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    readme = README.read_text(encoding="utf-8")
    try:
        wanted = render(readme, read_pages())
    except UpdateFailed as failure:
        print(f"tools/update_readme.py: {failure}", file=sys.stderr)
        return 1
    if wanted == readme:
        return 0
    if arguments:
        print("README.md does not show the tables as they are: run python tools/update_readme.py", file=sys.stderr)
        return 1
    part = README.with_name(f".{README.name}.part")
    part.write_text(wanted, encoding="utf-8")
    os.replace(part, README)
    print("README.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
