"""What readers of speech corpora share: lines with all their faults, counts, digests, published numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from espnet2_legonn.data.datadir import DataDir, validate, write_datadir
from espnet2_legonn.data.tables import atomic_text
from espnet2_legonn.errors import DataError, LegoNNError, complain
from espnet2_legonn.files.archive import sha256_of
from espnet2_legonn.files.lines import scan
from espnet2_legonn.files.schema import nearest
from legonn_corpora.download import Archive, fetch
from legonn_corpora.options import Parser

SHOWN = 1000  # faults printed


def run(prepare: Callable[[], str]) -> int:
    """Print the report of a preparation and return 0, or 2 with every fault on stderr when the data are at fault."""
    try:
        print(prepare())
    except LegoNNError as error:
        status = complain(error, SHOWN)
        print(f"{len(error.faults)} faults; no data directory was written", file=sys.stderr)
        return status
    return 0


def parser(description: str | None, corpus: str, treatments: Sequence[str], treated: str, skipped: str) -> Parser:
    """Options that readers of speech have in common.

    Args:
        corpus: what the folder given as `--corpus` holds.
        treatments: of the text. The first is the default, and `treated` describes it.
        skipped: what `--skip_bad` leaves out.
    """
    made = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--corpus", type=Path, required=True, help=f"{corpus}, or the folder it is in")
    add("--out", type=Path, default=Path("data"))
    add("--suffix", default="", help="of the sets' names: _x gives data/train_x")
    add("--treatment", choices=treatments, default=treatments[0], help=treated)
    add("--expect", nargs="+", default=[], metavar="SET=SEGMENTS", help="counts that must be met")
    add("--skip_bad", action="store_true", help=f"leave out, count and list {skipped}")
    add("--download", action="store_true", help="get the corpus if it is not below --corpus")
    return made


def get(archive: Archive, folder: Path) -> None:
    """Download and unpack a corpus, and say what it is."""
    print(f"download: {archive}")
    fetch(archive, folder)


class Tally:
    """Counts of one data set, in the order in which they were first named."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[str, int] = {}

    def add(self, what: str, number: int = 1) -> None:
        """Count `number` more of `what`. 0 makes the line appear."""
        self.counts[what] = self.counts.get(what, 0) + number

    def __str__(self) -> str:
        return "\n".join(f"{self.name}: {what}: {number}" for what, number in self.counts.items())


def read_lines(path: Path, faults: list[str]) -> list[str]:
    """Lines of a UTF-8 file, cut at newlines only. A missing file and every unreadable line go to `faults`.

    An unreadable line is returned empty, so that what follows keeps its number.
    """
    if not path.is_file():
        faults.append(f"{path}: no such file")
        return []
    lines = []
    with open(path, "rb") as stream:
        for _, text, wrong in scan(stream, path, windows=True):
            faults += wrong
            lines.append(text or "")
    return lines


def write_set(folder: Path, tables: Mapping[str, Mapping[str, str]]) -> str:
    """Write and validate one data directory. Returns its size, and the digest of each table that no path depends on."""
    write_datadir(folder, tables)
    count = validate(folder)
    size = f"{folder}: {count} utterances"
    if "segments" in tables:
        seconds = sum(float(e) - float(s) for _, s, e in (v.split() for v in tables["segments"].values()))
        size += f", {seconds / 3600:.2f} h"
    if "utt2spk" in tables:
        size += f", {len(set(tables['utt2spk'].values()))} speakers"
    data = DataDir(folder)
    names = [name for name in data.names() if name != "wav.scp"]
    return "\n".join([size, *(f"{folder / name}: sha256 {sha256_of(folder / name)}" for name in names)])


def settle(bad: Sequence[str], skip_bad: bool, listed: Path) -> list[str]:
    """Faults that concern single segments: they stop a reader, or are left out, counted and listed.

    Args:
        skip_bad: leave them out.
        listed: file for the list. One of an earlier run goes.

    Returns:
        a line for the report, if there were any.

    Raises:
        DataError: there are some and they are not to be skipped.
    """
    if bad and not skip_bad:
        raise DataError([*bad, "--skip_bad leaves out and lists what is named above"])
    listed.unlink(missing_ok=True)
    if not bad:
        return []
    with atomic_text(listed) as stream:
        stream.writelines(fault.replace("\n", " ") + "\n" for fault in bad)
    return [f"left out as faulty: {len(bad)}, listed in {listed}; the first: {bad[0]}"]


def parse_expected(given: Sequence[str] | None, names: Collection[str]) -> dict[str, int]:
    """`train=92973 dev=507` to numbers by name.

    Raises:
        DataError: what is not of this form, and names that are not counted (none of `names`).
    """
    expected, faults = {}, []
    for item in given or ():
        name, _, number = item.partition("=")
        if name and name not in names:
            faults.append(f"--expect {item}: nothing is called {name}{nearest(name, names)}; {', '.join(names)}")
        elif name and number.isdecimal():
            expected[name] = int(number)
        else:
            faults.append(f"--expect {item}: write NAME=NUMBER, for instance train=92973")
    if faults:
        raise DataError(faults)
    return expected


def check_counts(
    found: Mapping[str, int], published: Mapping[str, Sequence[int]], expected: Mapping[str, int], what: str
) -> list[str]:
    """Compare counts with what the user expects, or else with published ones.

    Args:
        found: counts by data set.
        published: accepted counts by data set, a `range` where a faithful copy may differ.
            They bind only counts of their scale (at least half), so that
            excerpts and fixtures pass.
        expected: of the user, binding at any scale. They win over the published ones.
        what: is counted, for the message.

    Returns:
        a line for each count that was compared and agrees.

    Raises:
        DataError: counts that differ, all of them.
    """
    faults, agreed = [], []
    for name, number in found.items():
        wanted = [expected[name]] if name in expected else list(published.get(name, ()))
        if not wanted or (name not in expected and number < min(wanted) / 2):
            continue
        if number in wanted:
            agreed.append(f"{name}: {number} {what}, as {'expected' if name in expected else 'published'}")
        else:
            span = published.get(name) if name not in expected else None
            many = f"{wanted[0]} to {wanted[-1]}" if isinstance(span, range) else ""
            choice = many or " or ".join(str(n) for n in wanted)
            faults.append(
                f"{name}: {number} {what}, {choice} {'expected' if name in expected else 'published'}; "
                f"is the corpus complete? --expect {name}={number} accepts it"
            )
    if faults:
        raise DataError(faults)
    return agreed
