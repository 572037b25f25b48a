"""Where results go, looked at before the work that makes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def output_faults(path: Path, folder: bool = False) -> list[str]:
    """Why a file cannot be written there; empty where it can. Nothing is made or changed.

    Args:
        folder: a folder is made or filled there, not a file.
    """
    try:
        if path.is_dir() and not folder:
            return [f"{path}: is a folder; name the file to write, such as {path / 'NAME'}"]
        places = [path, *path.parents] if folder else path.parents
        place = next(p for p in places if os.path.lexists(p))
        if not place.is_dir():
            wrong = "is a file" if place == path else f"cannot be made, since {place} is a file"
            return [f"{path}: {wrong}; choose another place"]
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return [f"{path}: cannot be written ({error.strerror}); choose another place"]
    return []
