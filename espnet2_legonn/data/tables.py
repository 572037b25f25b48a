"""Kaldi tables: one `<key> <value>` per line, keys unique and sorted by bytes (LC_ALL=C).

What a line is, `files/lines.py` says. Blanks and tabs separate fields, nothing else does. A key is an id: file names
are made of it and other tools cut lines at any white space, so `id_fault` says what it may hold. A table that is read
here is read alike by ESPnet.
"""

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
from espnet2_legonn.files import lines

Kind = Literal["utt", "spk", "reco"]

_TEXT_NAME = re.compile(r"(src_)?text([._][\w.-]+)?")
# Copies that people and programs leave beside a file; text.orig is no translation into a language called orig.
_COPY = re.compile(r"~$|\.(gz|bz2|xz|zip|bak|bck|backup|orig|old|saved?|tmp|temp|swp|rej|sha256|md5)(\.|$)", re.I)
# str.split() would also cut at NBSP and break words that Kaldi keeps whole.
_FIELDS = re.compile(r"[ \t]+")
_BLANKS = " \t"
MAX_ID_BYTES = 200  # of the 255 of a file name; the rest is for prefixes and endings
_PLAIN_ID = re.compile(rf"(?!\.{{1,2}}$)[!-.0-\[\]-~]{{1,{MAX_ID_BYTES}}}")  # nearly all ids; found fast
# Unicode's Default_Ignorable_Code_Point, and blanks that count as letters: ids that differ in them look alike.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Row:
    """One line of a table; `line` counts from 1."""

    line: int
    key: str
    value: str


def table_kind(name: str) -> Kind | None:
    """What the keys of the table called `name` are; None when `name` is not a table we know."""
    if _COPY.search(name):
        return None
    if name == "wav.scp" or name.startswith("reco2"):
        return "reco"
    if name.startswith("spk2"):
        return "spk"
    if name == "segments" or name.startswith("utt2") or is_text(name):
        return "utt"
    if name.endswith(".scp") and name != "cmvn.scp":  # Kaldi's is by speaker
        return "utt"
    return None


def is_text(name: str) -> bool:
    """True for text, text_phn, src_text, text.<case>.<lang>, text.tc.en.0, ...; not for copies such as text.orig."""
    return _TEXT_NAME.fullmatch(name) is not None and not _COPY.search(name)


def split_fields(value: str) -> list[str]:
    """Fields of a value, cut at blanks and tabs only."""
    return _FIELDS.split(value) if value else []


def id_fault(key: str) -> str | None:
    """Why `key` is no id of an utterance, speaker or recording; None when it is one."""
    if _PLAIN_ID.fullmatch(key):
        return None
    odd = sorted({c for c in key if c.isspace() or not c.isprintable() or _INVISIBLE.match(c)})
    if odd:
        return f"an id holds {code_points(odd)}, which is no visible character"
    if "/" in key or "\\" in key or key in (".", ".."):
        return "an id names files, so it holds no / or \\ and is not . or .."
    if len(key.encode()) > MAX_ID_BYTES:
        return f"an id has at most {MAX_ID_BYTES} bytes, this one {len(key.encode())}"
    return None


def code_points(characters: list[str]) -> str:
    """`U+00A0 U+200B` for characters that cannot be shown."""
    return " ".join(f"U+{ord(c):04X}" for c in characters)


def shown(key: str) -> str:
    """An id for a message: quoted, short, without characters that a terminal would obey."""
    text = key if len(key) <= 60 else f"{key[:40]}...{key[-10:]}"
    return "'" + "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in text) + "'"


def scan_table(path: Path) -> tuple[list[Row], list[str]]:
    """Read every readable line of a table.

    Returns:
        rows (a Windows line end, a byte-order mark and odd white space at the end are cured in them) and the faults
        of the raw lines, as `file:line: ...`. Keys are as they are: see `id_fault`.
    """
    rows: list[Row] = []
    faults: list[str] = []
    with open(path, "rb") as stream:
        for number, text, wrong in lines.scan(stream, path):
            faults += wrong
            if text is None:
                continue
            if text[:1] in ("", *_BLANKS):
                faults.append(f"{path}:{number}: no key at the start of the line (a blank line, or a blank before it)")
                continue
            key, *rest = _FIELDS.split(text, maxsplit=1)
            value = rest[0].rstrip(_BLANKS) if rest else ""
            if value != value.strip():
                faults.append(f"{path}:{number}: {shown(key)}: {_ends(value)}")
            rows.append(Row(number, key, value.strip()))
    return rows, faults


def _ends(value: str) -> str:
    ends = value[: len(value) - len(value.lstrip())] + value[len(value.rstrip()) :]
    odd = sorted(set(ends) - set(_BLANKS))
    return f"white space {code_points(odd)} at an end of the value, which ESPnet leaves out; remove it"


def read_table(path: Path | str) -> dict[str, str]:
    """Read a table, in file order.

    Raises:
        DataError: the file is missing, or some of its lines are unreadable, repeat a key or begin with what is no id.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    rows, faults = scan_table(path)
    table: dict[str, str] = {}
    for row in rows:
        if fault := id_fault(row.key):
            faults.append(f"{path}:{row.line}: {shown(row.key)}: {fault}")
        elif row.key in table:
            faults.append(f"{path}:{row.line}: {shown(row.key)} occurs twice; keep one line per id")
        table[row.key] = row.value
    if faults:
        raise DataError(faults)
    return table


def written_faults(key: str, value: str) -> list[str]:
    """Why a row would not be read as it was written; empty when it would."""
    fault = id_fault(key) if key else "an id is not empty"
    if not fault and ("\n" in value or "\r" in value):
        fault = "a line end inside the value"
    if not fault and (bare := value.strip(_BLANKS)) != bare.strip():
        fault = _ends(bare)
    return [f"{shown(key)}: {fault}"] if fault else []


def format_row(key: str, value: str) -> str:
    """A line of a table, with its end.

    Raises:
        DataError: it would not be read as it was written.
    """
    if faults := written_faults(key, value):
        raise DataError(faults)
    return f"{key} {value}".rstrip(_BLANKS) + "\n"


def write_table(path: Path | str, table: Mapping[str, str]) -> None:
    """Write a table sorted as LC_ALL=C sorts (code points order as UTF-8 bytes do), atomically.

    Raises:
        DataError: every row that would not be read as it was written.
    """
    if faults := [f"{path}: {fault}" for row in table.items() for fault in written_faults(*row)]:
        raise DataError(faults)
    with atomic_text(path) as stream:
        stream.writelines(f"{key} {table[key]}".rstrip(_BLANKS) + "\n" for key in sorted(table))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary file name beside `path`, renamed to `path` on success and removed on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name has at most 255 bytes, and the temporary one is longer than the name.
    beginning = path.name.encode()[:80].decode(errors="ignore")
    handle, name = tempfile.mkstemp(prefix=f".{beginning}.", suffix=".tmp", dir=path.parent)
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
