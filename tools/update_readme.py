#!/usr/bin/env python3
"""Copy the demo's first table from its RESULTS.md into README.md, between the two table markers.

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
RESULTS = ROOT / "egs2" / "mini_legonn" / "legonn1" / "RESULTS.md"
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
NOT_RUN = "*Not run yet: `make demo` fills this in.*"


class UpdateFailed(Exception):
    """README.md cannot be updated; the message says why and what to do."""


def first_table(results: str) -> str:
    """The first section of a RESULTS.md that holds a table, with its title.

    Raises:
        UpdateFailed: there is none.
    """
    for section in re.split(r"^(?=#{1,6} )", results, flags=re.M):
        lines = section.splitlines()
        rows = [line for line in lines if line.startswith("|")]
        if len(rows) > 2:  # header, rule, at least one row
            title = lines[0].lstrip("# ").strip()
            return "\n".join([f"**{title}**", "", *rows])
    raise UpdateFailed("RESULTS.md holds no table; run `make demo` to the end")


def render(readme: str, results: str | None) -> str:
    """README with the first table of ``results`` (None: the demo has not run) between the markers.

    Raises:
        UpdateFailed: the markers are not there, each once and in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise UpdateFailed(f"README.md: needs {BEGIN} and after it {END}, each once; put them back")
    head, rest = readme.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{NOT_RUN if results is None else first_table(results)}\n{END}{tail}"


def main(arguments: list[str]) -> int:
    """Update or check; the exit status."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    readme = README.read_text(encoding="utf-8")
    try:
        wanted = render(readme, RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else None)
    except UpdateFailed as failure:
        print(f"tools/update_readme.py: {failure}", file=sys.stderr)
        return 1
    if wanted == readme:
        return 0
    if arguments:
        print("README.md does not show the demo's RESULTS.md: run python tools/update_readme.py", file=sys.stderr)
        return 1
    part = README.with_name(f".{README.name}.part")
    part.write_text(wanted, encoding="utf-8")
    os.replace(part, README)
    print("README.md updated")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
