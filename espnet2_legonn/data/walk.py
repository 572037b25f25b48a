"""Files below a folder, linked folders too: discs of a corpus are often links, as `find -L` has it."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path | str) -> list[Path]:
    """Every file below `folder`, sorted; links to folders are entered, but a folder not twice on one way down.

    A loop of links ends where it begins. A file that can be reached on two ways is there twice, under both names.
    """
    found: list[Path] = []
    _enter(Path(folder), (), found)
    return sorted(found)


def _enter(folder: Path, above: tuple[tuple[int, int], ...], found: list[Path]) -> None:
    try:
        stat = folder.stat()
        here = stat.st_dev, stat.st_ino
        if here in above:
            return
        entries = list(os.scandir(folder))
    except OSError:  # a link to nowhere, a folder that may not be read: rglob passes them, too
        return
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            _enter(path, (*above, here), found)
        elif entry.is_file():
            found.append(path)
