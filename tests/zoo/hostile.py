"""What an attacker does: packs whose card agrees with a lie, zips that lie, files that explode."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.packs.card import CARD, FileEntry, content_digest
from espnet2_legonn.packs.files import list_files

# Values that nobody expects.
ODD: list[Any] = [None, True, 1, -1, 10**90, 1.5, float("nan"), float("inf"), "", "x" * 10**5, "\x1b[2J"]
ODD += [
    [],
    [[]],
    {},
    {1: 2},
    [None],
    {"a": {}},
    "../up",
    "/etc/passwd",
    "a\nb",
    {None: 1},
    {"type": ["wemb"]},
    {"type": {}},
]


def places(data: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The path to every value inside, mappings and lists included."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path] * bool(path) + [place for key, value in inner for place in places(value, *path, key)]


def put(data: Any, place: tuple[Any, ...], value: Any) -> None:
    """Set the value at a path."""
    for key in place[:-1]:
        data = data[key]
    data[place[-1]] = value


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (self.path,)


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change plain data in a YAML file in place."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data = change(data) or data
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def reseal(folder: Path, listed: set[str] | None = None) -> Path:
    """Make the card agree with whatever the files hold now; ``listed``: only these are told."""
    files = {n: e for n, e in list_files(folder).items() if listed is None or n in listed}

    def change(card: Any) -> None:
        card["files"] = {n: {"sha256": e.sha256, "bytes": e.bytes} for n, e in files.items()}
        card["content_sha256"] = digest(card["files"])

    edit(folder / CARD, change)
    return folder


def digest(files: dict[str, dict[str, Any]]) -> str:
    """The identity of a pack with these files."""
    return content_digest({n: FileEntry(**e) for n, e in files.items()})


def zipped(folder: Path, target: Path, inside: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as z:
        for path in sorted(folder.iterdir()):
            z.write(path, inside + path.name)
    return target


def patched(archive: Path, name: str, at: int, value: bytes, where: bytes = b"PK\1\2") -> Path:
    """Overwrite a field of one entry's header (central directory, or ``PK\\3\\4``) by its offset there."""
    content = bytearray(archive.read_bytes())
    start, fixed = content.find(where), {b"PK\1\2": 46, b"PK\3\4": 30}[where]
    while bytes(content[start + fixed :][: len(name)]) != name.encode():
        start = content.index(where, start + 1)
    content[start + at : start + at + len(value)] = value
    archive.write_bytes(content)
    return archive


def directory_of(entries: int) -> bytes:
    """A zip that is nothing but a list of this many entries."""
    entry = b"PK\1\2" + bytes(24) + struct.pack("<H", 8) + bytes(16)
    listing = b"".join(entry + b"%08x" % i for i in range(entries))
    return listing + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, entries & 0xFFFF, entries & 0xFFFF, len(listing), 0, 0)
