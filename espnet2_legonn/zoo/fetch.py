"""A reference (folder, zip, URL, inventory name, hub tag) to a pack on this machine."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn.errors import CheckpointError


def resolve(reference: str | Path) -> Path:
    """The folder or zip of a pack.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        raise CheckpointError(f"{reference}: no such folder or zip")
    return path
