"""Parallel text as translation campaigns ship it, read and filtered into data directories.

Shapes: one file of ``source<TAB>target`` (tsv), two files aligned by line, SGML test sets, each plain, ``.gz``, or
inside a zip. Nothing is guessed: a line that has not the shape of its corpus is a fault with file and line, all of them
together, found in a first pass before any time goes into tokenisation.
"""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

from espnet2_legonn.data.walk import files_below
from espnet2_legonn.errors import DataError
from espnet2_legonn.files.lines import scan

# One <seg>...</seg>. Older test sets break a segment over lines or write it in capitals, and bare ampersands keep
# them from being XML.
_SEGMENT = re.compile(rb"<seg\b[^>]*>(.*?)</seg\s*>", re.IGNORECASE | re.DOTALL)
_OPENING = re.compile(rb"<seg\b", re.IGNORECASE)
# Ids of segments restart in every document, so only their order counts.


@dataclass(frozen=True)
class File:
    """A file of a corpus: on disk, or the member ``inner`` of a zip."""

    path: Path
    inner: str | None = None

    def __str__(self) -> str:
        return f"{self.path}({self.inner})" if self.inner else str(self.path)

    def open(self) -> IO[bytes]:
        """Its bytes, unpacked."""
        if self.inner:
            return zipfile.ZipFile(self.path).open(self.inner)
        return gzip.open(self.path, "rb") if self.path.suffix == ".gz" else open(self.path, "rb")  # type: ignore[return-value]


class Corpus(NamedTuple):
    """A training corpus: its name (ids begin with it), its shape and its files (tsv: one, pair: source, target)."""

    name: str
    shape: Literal["tsv", "pair"]
    files: tuple[File, ...]


class Pair(NamedTuple):
    """One line of a corpus. ``key`` sorts as the corpus is read."""

    corpus: str
    key: str
    source: str
    target: str


def catalogue(folder: Path) -> dict[str, File]:
    """Every file below a folder by name, without ``.gz``. Of several with one name it is that nearest to the top.

    Raises:
        DataError: no such folder, or a damaged zip.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; the recipe's README says what belongs there")
    found: dict[str, File] = {}
    for path in sorted(files_below(folder), key=lambda p: (len(p.parts), str(p))):
        found.setdefault(path.name.removesuffix(".gz"), File(path))
        if path.suffix == ".zip":
            try:
                members = zipfile.ZipFile(path).namelist()
            except zipfile.BadZipFile:
                raise DataError(f"{path}: a damaged zip; get it again") from None
            for member in members:
                found.setdefault(Path(member).name, File(path, member))
    return found


def pick(files: Mapping[str, File], corpora: Mapping[str, Sequence[Sequence[str]]], folder: Path) -> list[Corpus]:
    """The files of each corpus.

    Args:
        corpora: name -> ways it may be shipped, each the names of its files. The first complete way is taken.

    Raises:
        DataError: corpora of which something is missing, all of them.
    """
    chosen, faults = [], []
    for name, ways in sorted(corpora.items()):
        way = next((w for w in ways if all(n in files for n in w)), None)
        if way is None:
            wanted = " or ".join(" and ".join(w) for w in ways)
            have = sorted({n for w in ways for n in w if n in files})
            there = f"; only {', '.join(have)} is there" if have else ""
            faults.append(f"{folder}: {name} needs {wanted} (or .gz){there}")
        else:
            chosen.append(Corpus(name, "tsv" if len(way) == 1 else "pair", tuple(files[n] for n in way)))
    if faults:
        raise DataError(faults)
    return chosen


def byte_lines(file: File) -> Iterator[bytes]:
    """Lines as they are, cut at newlines only.

    Raises:
        DataError: a packed file that was cut or damaged.
    """
    try:
        with file.open() as stream:
            yield from stream
    except (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: cut or damaged ({error}); get it again") from None


def text_lines(file: File, faults: list[str]) -> Iterator[tuple[int, str | None]]:
    """Numbers and lines. None for a line that is not UTF-8, which becomes a fault."""
    for number, text, wrong in scan(byte_lines(file), str(file), windows=True):
        faults += wrong
        yield number, text


def _tsv(corpus: Corpus, faults: list[str]) -> Iterator[tuple[int, str, str]]:
    (file,) = corpus.files
    for number, line in text_lines(file, faults):
        if line is None:
            continue
        fields = line.split("\t")
        if len(fields) == 2:
            yield number, fields[0], fields[1]
        elif line.strip():
            kind = "no TAB, so one side is missing" if len(fields) == 1 else f"{len(fields)} columns"
            faults.append(f"{file}:{number}: {kind}; source<TAB>target is expected")
        else:
            yield number, "", ""  # an empty line separates documents


def _pair(corpus: Corpus, faults: list[str]) -> Iterator[tuple[int, str, str]]:
    left, right = corpus.files
    counts = [0, 0]
    sides = [text_lines(left, faults), text_lines(right, faults)]
    while True:
        lines = [next(side, None) for side in sides]
        for i, line in enumerate(lines):
            if line is not None:
                counts[i] = line[0]
        if None in lines:
            break
        (number, source), (_, target) = lines  # type: ignore[misc]
        if source is not None and target is not None:
            yield number, source, target
    for i, side in enumerate(sides):
        for number, _ in side:
            counts[i] = number
    if counts[0] != counts[1]:
        where = f"{(left, right)[counts[0] > counts[1]]}"
        faults.append(
            f"{where}: {min(counts)} lines, the other side has {max(counts)}; from line {min(counts) + 1} on a side is "
            "missing, so get both files again"
        )


def read(corpora: Iterable[Corpus], faults: list[str]) -> Iterator[Pair]:
    """Pairs of all corpora, those with empty sides too. Lines that have not the shape are added to ``faults``."""
    for corpus in corpora:
        rows = (_tsv if corpus.shape == "tsv" else _pair)(corpus, faults)
        for number, source, target in rows:
            yield Pair(corpus.name, f"{corpus.name}-{number:08d}", source, target)


def check(corpora: Sequence[Corpus]) -> tuple[dict[str, int], list[str]]:
    """A first pass: lines of each corpus, and every fault."""
    faults: list[str] = []
    counts = dict.fromkeys((c.name for c in corpora), 0)
    for pair in read(corpora, faults):
        counts[pair.corpus] += 1
    return counts, faults


def read_sgm(file: File) -> list[str]:
    """Segments of an SGML test set in order, white space collapsed, entities as they stand.

    Raises:
        DataError: an opening without its end, a segment that is not UTF-8, or no segment at all, with lines.
    """
    data = b"".join(byte_lines(file))
    segments, faults, place = [], [], 0
    for opening in _OPENING.finditer(data):
        if opening.start() < place:
            continue
        number = data.count(b"\n", 0, opening.start()) + 1
        found = _SEGMENT.match(data, opening.start())
        if found is None or _OPENING.search(found[1]):
            faults.append(f"{file}:{number}: a <seg> without </seg>; get the file again")
            continue
        place = found.end()
        try:
            segments.append(" ".join(found[1].decode("utf-8").split()))
        except UnicodeDecodeError:
            faults.append(f"{file}:{number}: not UTF-8; convert the file with iconv")
    if not segments and not faults:
        faults.append(f"{file}: no <seg>; is it an SGML test set?")
    if faults:
        raise DataError(faults)
    return segments


def read_lines(file: File) -> list[str]:
    """Lines of a plain side of a test set.

    Raises:
        DataError: lines that are not UTF-8, all of them.
    """
    faults: list[str] = []
    lines = [line or "" for _, line in text_lines(file, faults)]
    if faults:
        raise DataError(faults)
    return lines


class EvalSet(NamedTuple):
    """Both sides of a test set, whether they are raw text (not tokenised), and what they were read from."""

    name: str
    source: list[str]
    target: list[str]
    raw: bool
    files: tuple[File, File]


def sgm_names(name: str, source: str, target: str) -> list[tuple[str, str]]:
    """Names under which a test set was published, ways in order: with both directions, without, reversed (2014)."""
    both = [f"{name}-{source}{target}", name, f"{name}-{target}{source}"]
    ways = [(f"{n}-src.{source}.sgm", f"{n}-{side}.{target}.sgm") for n in both for side in ("ref", "src")]
    return [*ways, (f"{name}.{source}", f"{name}.{target}")]


def read_test(files: Mapping[str, File], name: str, ways: Iterable[tuple[str, str, bool]], folder: Path) -> EvalSet:
    """A test set by the first way whose two files are there.

    Args:
        ways: names of both files, and whether they hold raw text.

    Raises:
        DataError: no way is complete, a file is damaged, or the sides differ in length.
    """
    ways = list(ways)
    for source, target, raw in ways:
        if source in files and target in files:
            both = (files[source], files[target])
            faults: list[str] = []
            sides: list[list[str]] = []
            for file, named in zip(both, (source, target)):
                try:
                    sides.append((read_sgm if named.endswith(".sgm") else read_lines)(file))
                except DataError as error:
                    faults += error.faults
            if not faults and len(sides[0]) != len(sides[1]):
                faults.append(f"{both[1]}: {len(sides[1])} segments, {both[0]} has {len(sides[0])}; get both again")
            if faults:
                raise DataError(faults)
            return EvalSet(name, sides[0], sides[1], raw, both)
    wanted = " or ".join(f"{s} and {t}" for s, t, _ in ways)
    raise DataError(f"{folder}: test set {name} needs {wanted}")
