"""Kaldi-style data directories: reading, writing, validating and fixing them.

Times in `segments` and `reco2dur` refer to the audio file as it is on disk; `utt2speed` (see perturb.py) is
applied after cutting.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from espnet2_legonn.data.checks import Checker, Wanted, row_fault, spk2utt
from espnet2_legonn.data.tables import (
    Faults,
    Kind,
    Made,
    Row,
    Rows,
    Table,
    id_fault,
    in_order,
    is_text,
    joined,
    read_table,
    scan_table,
    shown,
    split_fields,
    table_kind,
    write_table,
)
from espnet2_legonn.errors import DataError
from espnet2_legonn.files.scratch import scratch

SHOWN_IDS = 5


class DataDir:
    """A directory of tables keyed by utterance, speaker or recording.

    Raises:
        DataError: the directory does not exist.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such data directory")

    def names(self, kind: Kind | None = None) -> list[str]:
        """Names of the tables present, of one kind or of all, sorted."""
        found = [p.name for p in self.path.iterdir() if p.is_file() and table_kind(p.name)]
        return sorted(name for name in found if kind is None or table_kind(name) == kind)

    def texts(self) -> list[str]:
        """Names of the text tables (text, text_phn, src_text, text.<case>.<lang>, ...)."""
        return [name for name in self.names("utt") if is_text(name)]

    def has(self, name: str) -> bool:
        """True when the file `name` is in the directory."""
        return (self.path / name).is_file()

    def table(self, name: str) -> dict[str, str]:
        """One table; DataError if it is missing or damaged."""
        return read_table(self.path / name)

    def check(self, wanted: Wanted, without: Collection[str] = ()) -> Checker:
        """All tables (but those named in `without`) with their faults."""
        return Checker(self.path, [name for name in self.names() if name not in without], wanted)

    def tables(self, *files: str, without: Collection[str] = ()) -> dict[str, Table]:
        """All tables by name, as a step needs them: on the disk, checked as `validate` checks them.

        An utterance may have no words: `filter` drops and counts it. The order of speakers and of lines does not
        matter; tables in another order are sorted as they are read, which is said once.

        Args:
            files: tables that the step cannot do without.
            without: tables that it replaces.

        Raises:
            DataError: every fault of the directory.
        """
        wanted = Wanted(text=False, wav=False, files=files, spk_sort=False, allow_empty_text=True, sorted=False)
        checker = self.check(wanted, without)
        tables = checker.tables()
        if checker.unsorted:
            logging.warning("%s: %s not in byte order; what is written is", self.path, ", ".join(checker.unsorted))
        return tables


def write_datadir(path: Path | str, tables: Mapping[str, Rows]) -> int:
    """Write tables to `path`, all or none; spk2utt comes from utt2spk, other tables there go.

    Returns:
        the utterances, by utt2spk.

    Raises:
        DataError: there is no utterance to write, or rows would not be read as they were written (an id that is none).
    """
    with _replacing(Path(path)) as folder:
        counts = {name: _write(folder, name, table, Path(path)) for name, table in tables.items() if name != "spk2utt"}
    return counts.get("utt2spk", 0)


def _write(folder: Path, name: str, table: Rows, path: Path) -> int:
    try:
        return write_table(folder / name, table)
    except DataError as error:  # of files that never had this name
        raise DataError(fault.replace(str(folder), str(path)) for fault in error.faults) from None


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A folder whose tables become those of `path` at the end; none of other names stays there.

    Raises:
        DataError: no utterance is in them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch(path.parent, path.name) as folder:
        yield folder
        if not any(file.stat().st_size for file in folder.iterdir() if table_kind(file.name) == "utt"):
            raise DataError(f"{path}: no utterance left to write; look at the counts above")
        if (folder / "utt2spk").is_file():
            write_table(folder / "spk2utt", Made(lambda: spk2utt(Table(folder / "utt2spk"))))
        path.mkdir(exist_ok=True)
        for name in DataDir(path).names():
            if not (folder / name).is_file():
                (path / name).unlink()
        for file in folder.iterdir():
            os.replace(file, path / file.name)


def select(tables: Mapping[str, Table], dest: Path | str, keep: Callable[[str, Mapping[str, str]], bool]) -> None:
    """Write the utterances of a checked directory that `keep` wants, with their speakers and recordings.

    Args:
        keep: is given each utterance, in order, and its values by table.

    Raises:
        DataError: it wants none.
    """
    whole = "segments" not in tables
    names = [n for n in tables if table_kind(n) == "utt" or (whole and table_kind(n) == "reco")]
    with _replacing(Path(dest)) as folder:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(folder / n, "w", encoding="utf-8", newline="\n")) for n in names]
            for rows in joined([tables[name].rows() for name in names]):
                values = {name: row.value for name, row in zip(names, rows) if row is not None}
                utt = next(row.key for row in rows if row is not None)
                if keep(utt, values):
                    for name, file in zip(names, files):
                        file.write(f"{utt} {values[name]}".rstrip() + "\n")
        for name in tables.keys() - {*names, "spk2utt"}:
            write_table(folder / name, Made(functools.partial(_used, tables[name], folder, table_kind(name))))


def keep_marks(source: DataDir, dest: Path | str) -> None:
    """Copy the files that say what kind of data a directory of stage 3 or 4 has."""
    for name in ("feats_type", "audio_format"):
        if source.has(name):
            (Path(dest) / name).write_bytes((source.path / name).read_bytes())


def _used(table: Table, folder: Path, kind: Kind | None) -> Iterator[tuple[str, str]]:
    """Rows of the speakers or recordings that the utterances of `folder` have."""
    pairs = Table(folder / ("utt2spk" if kind == "spk" else "segments")).items()
    ids = itertools.groupby(in_order((split_fields(value)[0],) for _, value in pairs))
    for wanted, row in joined([(Row(key, 0, "") for (key,), _ in ids), table.rows()]):
        if wanted is not None and row is not None:
            yield row.key, row.value


def restrict(tables: Mapping[str, Mapping[str, str]], keep: Iterable[str]) -> dict[str, dict[str, str]]:
    """Tables limited to the utterances `keep`, with their speakers and recordings.

    Raises:
        DataError: a table lacks one of them; nothing becomes smaller without a word.
    """
    utts = set(keep)
    faults = [
        f"{name}: no line for {len(lost)} utterances that other tables have: {', '.join(map(shown, lost[:SHOWN_IDS]))}"
        for name in tables
        if table_kind(name) == "utt" and (lost := sorted(utts - tables[name].keys()))
    ]
    if faults:
        raise DataError(faults)
    segments = tables.get("segments")
    recos = utts if segments is None else {split_fields(v)[0] for u, v in segments.items() if u in utts}
    speakers = {speaker for utt, speaker in tables.get("utt2spk", {}).items() if utt in utts}
    ids = {"utt": utts, "reco": recos, "spk": speakers}
    kept: dict[str, dict[str, str]] = {}
    for name, table in tables.items():
        kind = table_kind(name)
        if kind is not None and name != "spk2utt":
            kept[name] = {key: value for key, value in table.items() if key in ids[kind]}
    return kept


@dataclass
class FixReport:
    """What `fix` did: ids dropped by reason, and other repairs."""

    kept: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)

    def drop(self, reason: str, key: str) -> None:
        """Note that `key` was dropped for `reason`."""
        self.dropped.setdefault(reason, []).append(key)

    def __str__(self) -> str:
        lines = [f"kept {self.kept} utterances", *self.repairs]
        for reason, ids in sorted(self.dropped.items()):
            more = ", ..." if len(ids) > SHOWN_IDS else ""
            lines.append(f"dropped {len(ids)}: {reason} ({', '.join(ids[:SHOWN_IDS])}{more})")
        return "\n".join(lines)


def fix(path: Path | str, *, allow_empty_text: bool = False) -> FixReport:
    """Sort every table, drop faulty lines, keep the utterances that all tables have, rebuild spk2utt.

    The files as they were are kept in `<path>/.backup`; those of a later call that changes something in
    `.backup.2`, and so on. A missing utt2spk is made by mapping each utterance to itself.

    Raises:
        DataError: no utterance would be left (the directory is then untouched).
    """
    data = DataDir(path)
    report = FixReport()
    tables = {name: _clean_rows(data.path / name, report, allow_empty_text) for name in data.names()}
    if "utt2spk" not in tables:
        source = next((n for n in ("segments", "text", "src_text", "wav.scp", *data.texts()) if n in tables), None)
        if source is None:
            raise DataError(f"{data.path}: no utt2spk, text or wav.scp in this directory; is it a data directory?")
        tables["utt2spk"] = {utt: utt for utt in tables[source]}
        report.repairs.append(f"made utt2spk from {source}, each utterance its own speaker")
    keep = _intersect(tables, report)
    if not keep:
        raise DataError([f"{data.path}: no utterance is in all of {', '.join(sorted(tables))}", str(report)])
    before = {name: (data.path / name).read_bytes() for name in data.names()}
    with scratch(data.path, "fix") as room:
        write_datadir(room / "fixed", restrict(tables, keep))
        fixed = DataDir(room / "fixed")
        after = {name: (fixed.path / name).read_bytes() for name in fixed.names()}
        if after != before:
            report.repairs.append(f"the files as they were are in {_backup(data)}")
            for name in after:
                os.replace(fixed.path / name, data.path / name)
    report.repairs += [f"rewrote {name}" for name in sorted(after) if before.get(name, after[name]) != after[name]]
    report.kept = len(keep)
    return report


def _clean_rows(path: Path, report: FixReport, allow_empty_text: bool) -> dict[str, str]:
    faults, table = Faults(), dict[str, str]()
    for row in scan_table(path, faults):
        fault = row_fault(path.name, row.value)
        if wrong := id_fault(row.key):
            report.drop(f"{wrong}, in {path.name}", row.key)
        elif row.key in table:
            report.drop(f"repeated in {path.name}, first line kept", row.key)
        elif fault is not None:
            report.drop(f"faulty line in {path.name}", row.key)
        elif not row.value and is_text(path.name) and not allow_empty_text:
            report.drop(f"empty text in {path.name}", row.key)
        else:
            table[row.key] = row.value
    report.repairs += [f"found {fault}" for fault in faults]
    return table


def _intersect(tables: Mapping[str, Mapping[str, str]], report: FixReport) -> set[str]:
    segments = tables.get("segments")
    wavs = tables.get("wav.scp")
    every = {utt for name, table in tables.items() if table_kind(name) == "utt" for utt in table}
    if wavs is not None and segments is None:
        every |= set(wavs)
    keep: set[str] = set()
    for utt in sorted(every):
        missing = [n for n, t in sorted(tables.items()) if table_kind(n) == "utt" and utt not in t]
        reco = utt if segments is None else split_fields(segments[utt])[0] if utt in segments else None
        if wavs is not None and reco is not None and reco not in wavs:
            missing.append("wav.scp")
        if missing:
            report.drop(f"not in {', '.join(missing)}", utt)
        else:
            keep.add(utt)
    return keep


def _backup(data: DataDir) -> Path:
    """Copy all tables to the first `.backup` folder that is not there; an older one is never written to."""
    backup, number = data.path / ".backup", 1
    while backup.exists():
        number += 1
        backup = data.path / f".backup.{number}"
    backup.mkdir()
    for name in data.names():
        shutil.copy2(data.path / name, backup / name)
    return backup


def validate(
    path: Path | str,
    *,
    text: bool = True,
    wav: bool = True,
    spk_sort: bool = True,
    allow_empty_text: bool = False,
    durations: Callable[[str], float | None] | None = None,
) -> int:
    """Check a data directory; returns its number of utterances.

    Args: see `checks.Wanted`.

    Raises:
        DataError: every fault found, as `file:line: ...`.
    """
    wanted = Wanted(text, wav, (), spk_sort, allow_empty_text, durations)
    return DataDir(path).check(wanted).tables()["utt2spk"].count
