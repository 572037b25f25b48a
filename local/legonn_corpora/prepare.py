"""From pairs to data directories: treated, filtered, counted, written while they are read, with digests.

Ids are ``<corpus>-<line of the corpus>``, so a pair can be found again whatever was filtered before it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from espnet2_legonn.data.tables import atomic_text, format_row
from espnet2_legonn.errors import DataError, LegoNNError, complain
from espnet2_legonn.files.schema import nearest
from legonn_corpora.options import Parser
from legonn_corpora.parallel import Corpus, EvalSet, Pair, check, read
from legonn_corpora.treatment import Treatment

CHUNK = 2000  # pairs given to a process at a time
SHOWN = 1000  # faults printed
TABLES = ("src_text", "text", "utt2spk", "spk2utt")
SEPARATOR, NO_SOURCE, NO_TARGET = "document boundary", "empty source", "empty target"


@dataclass(frozen=True)
class Published:
    """A published number of pairs and how far a faithful copy may be from it."""

    count: int
    tolerance: float = 0.0

    def fault(self, name: str, count: int) -> str | None:
        """What is wrong. None for fixtures too, which are much smaller than the real data."""
        if count * 2 < self.count or abs(count - self.count) <= self.tolerance * self.count:
            return None
        near = f" within {100 * self.tolerance:g} %" if self.tolerance else ""
        return f"{name}: {count} pairs, published are {self.count}{near}; another release? --expect {name}={count}"


@dataclass(frozen=True)
class Recipe:
    """How a training set is made.

    Args:
        source, target: treatments of both sides.
        max_ratio: longer / shorter side, in tokens.
        max_tokens: of each side.
        nj: processes that tokenise.
    """

    source: Treatment
    target: Treatment
    max_ratio: float = 1.5
    max_tokens: int = 250
    nj: int = 1

    def __call__(self, pair: Pair) -> tuple[Pair, str | None]:
        """The treated pair, and why it is dropped (None: it stays)."""
        if not pair.source.strip() and not pair.target.strip():
            return pair, SEPARATOR
        treated = Pair(pair.corpus, pair.key, self.source(pair.source), self.target(pair.target))
        lengths = len(treated.source.split()), len(treated.target.split())
        if not lengths[0]:
            return treated, NO_SOURCE
        if not lengths[1]:
            return treated, NO_TARGET
        if max(lengths) > self.max_tokens:
            return treated, f"longer than {self.max_tokens} tokens"
        if max(lengths) > self.max_ratio * min(lengths):
            return treated, f"length ratio above {self.max_ratio:g}"
        return treated, None


@dataclass
class Counts:
    """What became of each corpus's lines."""

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, corpus: str, reason: str | None) -> None:
        """Count one line."""
        self.read[corpus] += 1
        if reason is None:
            self.kept[corpus] += 1
        else:
            self.dropped.setdefault(corpus, Counter())[reason] += 1

    def __str__(self) -> str:
        lines = []
        for corpus in self.read:
            lines.append(f"{corpus}: {self.read[corpus]} lines, kept {self.kept[corpus]}")
            lines += [f"  dropped {n}: {why}" for why, n in sorted(self.dropped.get(corpus, {}).items())]
        lines.append(f"all: {self.read.total()} lines, kept {self.kept.total()}")
        return "\n".join(lines)


class Writer:
    """Tables of a translation data directory, written in order and put in place together at the end."""

    def __init__(self, folder: Path, extra: Sequence[str] = ()) -> None:
        self.folder, self.names = folder, (*TABLES, *extra)
        self._stack = ExitStack()
        self._streams: dict[str, TextIO] = {}
        self._last = ""

    def __enter__(self) -> Writer:
        for name in self.names:
            self._streams[name] = self._stack.enter_context(atomic_text(self.folder / name))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, key: str, source: str, target: str, **extra: str) -> None:
        """One pair. Keys must come in byte order."""
        if key <= self._last:
            raise DataError(f"{self.folder}: id {key} after {self._last}; ids must be unique and sorted")
        self._last = key
        rows = {"src_text": source, "text": target, "utt2spk": key, "spk2utt": key, **extra}
        for name, stream in self._streams.items():
            # Treated texts are clean. Raw references are as published, and a table's line is one line.
            stream.write(format_row(key, rows[name].replace("\r", " ").strip()))


def digests(folder: Path, names: Iterable[str] = ("src_text", "text")) -> str:
    """Lines ``<sha256>  <file>`` of the texts written, as sha256sum prints them."""
    lines = []
    for name in names:
        digest = hashlib.sha256()
        with open(folder / name, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        lines.append(f"{digest.hexdigest()}  {folder / name}")
    return "\n".join(lines)


def _chunks(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    while chunk := list(islice(pairs, CHUNK)):
        yield chunk


class _Apply:
    """A recipe over a list of pairs. It is a class so that it can be sent to a process."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __call__(self, chunk: list[Pair]) -> list[tuple[Pair, str | None]]:
        return [self.recipe(pair) for pair in chunk]


def treated(pairs: Iterator[Pair], recipe: Recipe) -> Iterator[tuple[Pair, str | None]]:
    """Pairs through a recipe, in order, by ``recipe.nj`` processes."""
    if recipe.nj == 1:
        yield from (recipe(pair) for pair in pairs)
        return
    with get_context("spawn").Pool(recipe.nj) as pool:
        for chunk in pool.imap(_Apply(recipe), _chunks(pairs)):
            yield from chunk


def write_training(
    corpora: Sequence[Corpus],
    recipe: Recipe,
    folder: Path,
    published: Mapping[str, Published] | None = None,
    skip_malformed: bool = False,
) -> Counts:
    """A training set of all corpora. Prints counts for each filter and digests.

    Args:
        published: known numbers of lines by corpus, ``all`` for what is read in total.
        skip_malformed: leave out lines that have not the shape of their corpus, and list them in
            ``<folder>/malformed.txt``.

    Raises:
        DataError: malformed lines, or a number that is not the published one, all of them.
    """
    lines, faults = check(corpora)
    if faults and not skip_malformed:
        raise DataError(faults)
    known = published or {}
    wrong = [known[name].fault(name, n) for name, n in {**lines, "all": sum(lines.values())}.items() if name in known]
    if any(wrong):
        raise DataError([fault for fault in wrong if fault])
    counts = Counts()
    with Writer(folder) as writer:
        for pair, reason in treated(read(corpora, []), recipe):
            counts.add(pair.corpus, reason)
            if reason is None:
                writer.write(pair.key, pair.source, pair.target)
        if not counts.kept:
            raise DataError([f"{folder}: no pair is left", str(counts)])
    if faults:
        with atomic_text(folder / "malformed.txt") as stream:
            stream.writelines(fault + "\n" for fault in faults)
    print(counts)
    if faults:
        print(f"skipped {len(faults)} malformed lines, listed in {folder / 'malformed.txt'}")
    print(digests(folder))
    return counts


def write_test(
    test: EvalSet,
    source: Treatment,
    target: Treatment,
    folder: Path,
    published: Published | None = None,
    references: Sequence[str] | None = None,
) -> None:
    """A validation or test set: every segment, none filtered.

    Args:
        references: raw references, kept as ``text.raw`` for detokenised BLEU. A raw set is its own.

    Raises:
        DataError: the number of segments is not the published one, or a segment has no words.
    """
    fault = published.fault(test.name, len(test.source)) if published else None
    if fault:
        raise DataError(fault)
    rows = [(source(s), target(t)) for s, t in zip(test.source, test.target)]
    faults = [
        f"{file}: segment {n} has no words after {side.name}; it would not be decoded"
        for i, (file, side) in enumerate(zip(test.files, (source, target)))
        for n, row in enumerate(rows, 1)
        if not row[i]
    ]
    if faults:
        raise DataError(faults)
    raw = test.target if test.raw else references
    extra = ("text.raw",) if raw else ()
    with Writer(folder, extra) as writer:
        for i, row in enumerate(rows):
            writer.write(f"{test.name}-{i + 1:05d}", *row, **({"text.raw": raw[i]} if raw else {}))
    print(f"{test.name}: {len(rows)} segments from {test.files[0]} and {test.files[1]}")
    print(digests(folder, ("src_text", "text", *extra)))


def expected(
    entries: Sequence[str], published: Mapping[str, Published], names: Iterable[str] = ()
) -> dict[str, Published]:
    """Published numbers with those of the command line (``NAME=N``) in their place.

    Args:
        names: what may be expected beside what is published: every corpus and set of the recipe.

    Raises:
        DataError: an entry is not NAME=N, or nothing of this name is counted.
    """
    known = dict(published)
    counted = {*published, *names}
    for entry in entries:
        name, equals, number = entry.partition("=")
        if not equals or not number.isdigit():
            raise DataError(f"--expect {entry}: NAME=N is expected, for instance newstest2014=3003")
        if name not in counted:
            raise DataError(f"--expect {entry}: nothing is called {name}{nearest(name, sorted(counted))}")
        known[name] = Published(int(number))
    return known


def together(*readers: Callable[[], Any]) -> list[Any]:
    """What each of them reads.

    Raises:
        DataError: the faults of all of them.
    """
    found, faults = [], []
    for read_one in readers:
        try:
            found.append(read_one())
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return found


def parser(description: str | None, ratio: float, tokens: int) -> argparse.ArgumentParser:
    """Options that all parallel corpora have."""
    made = Parser(description=description, allow_abbrev=False)
    add = made.add_argument
    add("corpus", type=Path, help="folder with the files named in the recipe's README")
    add("--out", type=Path, default=Path("data"), help="where data directories go (default: data)")
    add("--max_ratio", type=float, default=ratio, help=f"longer / shorter side (default: {ratio:g}, the paper's)")
    add("--max_tokens", type=int, default=tokens, help=f"of each side (default: {tokens}, the paper's)")
    add("--nj", type=int, default=1, help="processes that tokenise")
    add("--skip_malformed", "--skip_bad", action="store_true", help="list malformed lines in malformed.txt, go on")
    add("--expect", nargs="+", default=[], metavar="NAME=N", help="numbers of pairs, instead of the published ones")
    return made


def run(prepare: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """Prepare a corpus and return 0, or 2 with every fault on stderr when the data are at fault."""
    try:
        prepare(args)
    except LegoNNError as error:
        status = complain(error, SHOWN)
        print(f"{len(error.faults)} faults; nothing was written", file=sys.stderr)
        return status
    return 0
