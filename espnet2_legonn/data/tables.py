"""Kaldi tables: one `<key> <value>` per line, keys unique and sorted by bytes (LC_ALL=C).

What a line is, `files/lines.py` says. Blanks and tabs separate fields, nothing else does. A key is an id: file names
are made of it and other tools cut lines at any white space, so `id_fault` says what it may hold. A table that is read
here is read alike by ESPnet.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import marshal
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO, TypeVar

from espnet2_legonn.errors import DataError
from espnet2_legonn.files import lines

Kind = Literal["utt", "spk", "reco"]
T = TypeVar("T")

_TEXT_NAME = re.compile(r"(src_)?text([._][\w.-]+)?")
# Copies that people and programs leave beside a file; text.orig is no translation into a language called orig.
_COPY = re.compile(r"~$|\.(gz|bz2|xz|zip|bak|bck|backup|orig|old|saved?|tmp|temp|swp|rej|sha256|md5)(\.|$)", re.I)
# str.split() would also cut at NBSP and break words that Kaldi keeps whole.
_FIELDS = re.compile(r"[ \t]+")
_BLANKS = " \t"
MAX_ID_BYTES = 200  # of the 255 of a file name; the rest is for prefixes and endings
PLAIN_ID = re.compile(rf"(?!\.{{1,2}}$)[!-.0-\[\]-~]{{1,{MAX_ID_BYTES}}}")  # nearly all ids; found fast
# Unicode's Default_Ignorable_Code_Point, and blanks that count as letters: ids that differ in them look alike.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


class Row(NamedTuple):
    """One line of a table; `line` counts from 1. Rows sort by key, and those of one key as they stand in the file."""

    key: str
    line: int
    value: str


class Faults(list[str]):
    """Faults of files, at most ``MOST``: who has so many has made one mistake, and memory stays small."""

    MOST = 10_000

    def add(self, *faults: str) -> None:
        """Note faults.

        Raises:
            DataError: they are too many; the rest of the files is not read.
        """
        self += faults
        if len(self) > self.MOST:
            raise DataError([*self, f"reading stopped after {self.MOST} faults; there may be more"])


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


def target_table(folder: Path, vocab: str, unit: str) -> str:
    """Name of the table of a data directory with the texts of a vocabulary.

    That is ``text_<vocabulary>`` where there is one (what was said in speech that is translated), else ``text_phn``
    for phonemes, else ``text``.
    """
    own = f"text_{vocab}"
    return own if (folder / own).is_file() else "text_phn" if unit == "phn" else "text"


def split_fields(value: str) -> list[str]:
    """Fields of a value, cut at blanks and tabs only."""
    return _FIELDS.split(value) if value else []


def id_fault(key: str) -> str | None:
    """Why `key` is no id of an utterance, speaker or recording; None when it is one."""
    if PLAIN_ID.fullmatch(key):
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


def scan_table(path: Path, faults: Faults) -> Iterator[Row]:
    """Every readable line of a table, as they stand.

    A Windows line end, a byte-order mark and odd white space at the end are cured. Keys are as they are (`id_fault`).

    Args:
        faults: those of the raw lines go there, as `file:line: ...`.
    """
    for number, text, wrong in lines.scan_file(path):
        if wrong:
            faults.add(*wrong)
        if text is None:
            continue
        key, _, value = text.partition(" ")
        if not key or "\t" in key or value[:1] in _BLANKS:  # an empty value, too
            if text[:1] in ("", *_BLANKS):
                at_start = "no key at the start of the line (a blank line, or a blank before it)"
                faults.add(f"{path}:{number}: {at_start}")
                continue
            key, *rest = _FIELDS.split(text, maxsplit=1)
            value = rest[0] if rest else ""
        if value != (bare := value.strip()):
            if (value := value.rstrip(_BLANKS)) != bare:
                faults.add(f"{path}:{number}: {shown(key)}: {_ends(value)}")
        yield Row(key, number, bare)


class Unordered(Exception):
    """The keys of ``table``, which was read as if they went up, do not."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.path)
        self.table = table


def ordered(work: Callable[[], T]) -> T:
    """Do what reads tables in order. If the keys of one do not go up, all is done again with that one sorted.

    Args:
        work: reads tables that were made before: they remember.
    """
    while True:
        try:
            return work()
        except Unordered as found:
            found.table.sorted = False


@dataclass
class Table:
    """A table on the disk, read in byte order of its keys whenever asked and never held; see ``ordered``.

    Args:
        sorted: keys go up in the file.
        count: rows, once they have been read.
    """

    path: Path
    sorted: bool = True
    count: int = 0

    def rows(self, faults: Faults | None = None) -> Iterator[Row]:
        """Rows in order of their keys, one a key.

        Args:
            faults: lines that cannot be read, what is no id and repeated ids go there.

        Raises:
            Unordered: a key is out of order in a table that is called ``sorted``.
            DataError: all faults, at the end; without ``faults``.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file")
        found = Faults() if faults is None else faults
        rows = scan_table(self.path, found)
        last, self.count = Row("", 0, ""), 0
        for row in rows if self.sorted else in_order(rows):
            key = row[0]
            if not PLAIN_ID.fullmatch(key) and (fault := id_fault(key)):
                found.add(f"{self.path}:{row.line}: {shown(key)}: {fault}")
            if key <= last[0]:
                if key < last[0]:
                    raise Unordered(self)
                again = f"{shown(key)} occurs twice: it repeats line {last.line}; ids must be unique"
                found.add(f"{self.path}:{row.line}: {again}")
                continue
            last = row
            self.count += 1
            yield row
        if found and faults is None:
            raise DataError(found)

    def items(self) -> Iterator[tuple[str, str]]:
        """Keys and values; see ``rows``."""
        return ((key, value) for key, _, value in self.rows())


@dataclass(frozen=True)
class Made:
    """A table that is made while it is read; ``make`` gives keys and values in order of the keys."""

    make: Callable[[], Iterator[tuple[str, str]]]

    def items(self) -> Iterator[tuple[str, str]]:
        """Keys and values."""
        return self.make()


Rows = Table | Made | Mapping[str, str]


def sorted_items(table: Rows) -> Iterable[tuple[str, str]]:
    """Keys and values in byte order of the keys, which is that of code points."""
    return sorted(table.items()) if isinstance(table, Mapping) else table.items()


def joined(streams: Sequence[Iterator[Row]]) -> Iterator[list[Row | None]]:
    """Rows of one key together, in order of the keys; None for a stream that has none."""
    heads: list[Row | None] = []
    for together in itertools.zip_longest(*streams):  # nearly all rows; found fast
        heads = list(together)
        if None in heads or len({head[0] for head in together}) > 1:
            break
        yield heads
    else:
        return
    while keys := [head[0] for head in heads if head is not None]:
        key = min(keys)
        found = [head if head is not None and head[0] == key else None for head in heads]
        yield found
        heads = [head if row is None else next(stream, None) for head, row, stream in zip(heads, found, streams)]


# Items of a run, those read of it together, and runs that are merged together.
IN_MEMORY, AT_ONCE, TOGETHER = 1 << 16, 1 << 8, 16


def in_order(items: Iterable[T]) -> Iterator[T]:
    """Tuples of strings and numbers, sorted, however many: sorted runs of them wait in unnamed files."""
    stream = iter(items)
    run = sorted(itertools.islice(stream, IN_MEMORY))  # type: ignore[type-var]
    if len(run) < IN_MEMORY:
        yield from run
        return
    levels, like, last = [list[BinaryIO]()], type(run[0]), run[0]
    while run:
        if not levels[0] or run[0] < last:  # type: ignore[operator]
            _merge_full(levels)
            levels[0].append(tempfile.TemporaryFile())
        last = run[-1]
        _spill(run, levels[0][-1])
        run = sorted(itertools.islice(stream, IN_MEMORY))  # type: ignore[type-var]
    made = (lambda item: item) if like is tuple else like._make  # type: ignore[attr-defined]
    yield from map(made, heapq.merge(*map(_run, itertools.chain(*levels))))


def _merge_full(levels: list[list[BinaryIO]]) -> None:
    """Runs of each level that are ``TOGETHER`` become one of the next: few are open, and each item is copied seldom."""
    for level, files in enumerate(levels):
        if len(files) < TOGETHER:
            return
        levels[level] = []
        if level + 1 == len(levels):
            levels.append([])
        levels[level + 1].append(_spill(heapq.merge(*map(_run, files)), tempfile.TemporaryFile()))


def _spill(run: Iterable[Any], file: BinaryIO) -> BinaryIO:
    items = iter(run)
    while some := [tuple(item) for item in itertools.islice(items, AT_ONCE)]:
        marshal.dump(some, file)
    return file


def _run(file: BinaryIO) -> Iterator[Any]:
    file.seek(0)
    with file, contextlib.suppress(EOFError):
        while True:
            yield from marshal.load(file)


def _ends(value: str) -> str:
    ends = value[: len(value) - len(value.lstrip())] + value[len(value.rstrip()) :]
    odd = sorted(set(ends) - set(_BLANKS))
    return f"white space {code_points(odd)} at an end of the value, which ESPnet leaves out; remove it"


def read_rows(path: Path | str) -> Iterator[tuple[str, str]]:
    """Keys and values of a table, as they stand in the file, without holding it.

    Raises:
        DataError: the file is missing; at the end, some of its lines are unreadable, repeat a key or begin with what is
            no id.
    """
    path, faults = Path(path), Faults()
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    last, plain = "", True
    for key, _, value in scan_table(path, faults):
        plain = plain and key > last and PLAIN_ID.fullmatch(key) is not None
        last = key
        yield key, value
    if faults or not plain:
        for _ in Table(path, sorted=False).rows():  # names all faults, if there are any
            pass


def read_table(path: Path | str) -> dict[str, str]:
    """Read a table, in file order.

    Raises:
        DataError: see ``read_rows``.
    """
    return dict(read_rows(path))


def few(ids: Sequence[str], most: int = 5) -> str:
    """The first of some ids, for a message, and how many more there are."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(ids[:most]) + more


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


def write_table(path: Path | str, table: Rows) -> int:
    """Write a table sorted as LC_ALL=C sorts (code points order as UTF-8 bytes do), atomically; returns its lines.

    Raises:
        DataError: every row that would not be read as it was written.
    """
    faults, count = Faults(), 0
    with atomic_text(path) as stream:
        for key, value in sorted_items(table):
            count += 1
            if not (PLAIN_ID.fullmatch(key) and value.isprintable() and value.strip() == value):  # nearly all rows are
                faults.add(*(f"{path}: {fault}" for fault in written_faults(key, value)))
            stream.write(f"{key} {value}".rstrip(_BLANKS) + "\n")
        if faults:
            raise DataError(faults)
    return count


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
