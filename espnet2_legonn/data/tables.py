"""Kaldi tables: UTF-8 text, one `<key> <value>` per line, keys unique and sorted by bytes (LC_ALL=C)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from espnet2_legonn.errors import DataError

Kind = Literal["utt", "spk", "reco"]

_TEXT_NAME = re.compile(r"(src_)?text([._][\w.-]+)?")
# Only blank and tab separate fields: str.split() would also cut at NBSP and break words that Kaldi keeps
# whole.
_FIELDS = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class Row:
    """One line of a table; `line` counts from 1."""

    line: int
    key: str
    value: str


def table_kind(name: str) -> Kind | None:
    """What the keys of the table called `name` are; None when `name` is not a table we know."""
    if name.endswith((".gz", ".bak", "~")):
        return None
    if name == "wav.scp" or name.startswith("reco2"):
        return "reco"
    if name.startswith("spk2"):
        return "spk"
    if name in ("segments", "feats.scp") or name.startswith("utt2") or is_text(name):
        return "utt"
    return None


def is_text(name: str) -> bool:
    """True for text, text_phn, src_text, text.<case>.<lang>, text.tc.en.0, ..."""
    return not name.endswith((".gz", ".bak", "~")) and _TEXT_NAME.fullmatch(name) is not None


def split_fields(value: str) -> list[str]:
    """Fields of a value, cut at blanks and tabs only."""
    return _FIELDS.split(value) if value else []


def scan_table(path: Path) -> tuple[list[Row], list[str]]:
    """Read every readable line of a table.

    Returns:
        rows (a Windows line end or byte-order mark is cured in them) and the faults of the raw lines, as
        `file:line: ...`.
    """
    rows: list[Row] = []
    faults: list[str] = []
    with open(path, "rb") as stream:
        for number, raw in enumerate(stream, start=1):
            raw = raw.rstrip(b"\n")
            where = f"{path}:{number}"
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                faults.append(f"{where}: starts with a byte-order mark; remove it")
                raw = raw[3:]
            if raw.endswith(b"\r"):
                faults.append(f"{where}: Windows line end; write the file with \\n only")
                raw = raw.rstrip(b"\r")
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                faults.append(f"{where}: not UTF-8 (byte {error.start + 1}); convert the file with iconv")
                continue
            if text[:1] in ("", " ", "\t"):
                faults.append(f"{where}: no key at the start of the line")
                continue
            key, *rest = _FIELDS.split(text, maxsplit=1)
            rows.append(Row(number, key, rest[0].rstrip(" \t") if rest else ""))
    return rows, faults


def read_table(path: Path | str) -> dict[str, str]:
    """Read a table, in file order.

    Raises:
        DataError: the file is missing, or some of its lines are unreadable or repeat a key.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows, faults = scan_table(path)
    table: dict[str, str] = {}
    for row in rows:
        if row.key in table:
            faults.append(f"{path}:{row.line}: '{row.key}' occurs twice; keys must be unique")
        table[row.key] = row.value
    if faults:
        raise DataError(faults)
    return table


def write_table(path: Path | str, table: Mapping[str, str]) -> None:
    """Write a table sorted as LC_ALL=C sorts (code points order as UTF-8 bytes do), atomically."""
    with atomic_text(path) as stream:
        for key in sorted(table):
            stream.write(f"{key} {table[key]}".rstrip(" ") + "\n")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary file name beside `path`, renamed to `path` on success and removed on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_text(path: Path | str) -> Iterator[TextIO]:
    """A UTF-8 text stream whose content appears under `path` only when the block ends without an error."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        yield stream


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
