"""Kaldi-style data directories: reading, writing, validating and fixing them.

Times in `segments` and `reco2dur` refer to the audio file as it is on disk; `utt2speed` (see perturb.py) is
applied after cutting.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from espnet2_legonn.data.tables import (
    Kind,
    Row,
    is_text,
    read_table,
    scan_table,
    split_fields,
    table_kind,
    write_table,
)
from espnet2_legonn.errors import DataError

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

    def tables(self) -> dict[str, dict[str, str]]:
        """All tables by name; DataError lists the faults of all of them."""
        found: dict[str, dict[str, str]] = {}
        faults: list[str] = []
        for name in self.names():
            try:
                found[name] = self.table(name)
            except DataError as error:
                faults += error.faults
        if faults:
            raise DataError(faults)
        return found


def write_datadir(path: Path | str, tables: Mapping[str, Mapping[str, str]]) -> DataDir:
    """Write tables to `path`, each atomically; spk2utt comes from utt2spk, other tables there go.

    Raises:
        DataError: there is no utterance to write.
    """
    path = Path(path)
    if not any(tables.get(name) for name in tables if table_kind(name) == "utt"):
        raise DataError(f"{path}: no utterance left to write; look at the counts above")
    final = dict(tables)
    if "utt2spk" in final:
        final["spk2utt"] = spk2utt(final["utt2spk"])
    path.mkdir(parents=True, exist_ok=True)
    for name, table in final.items():
        write_table(path / name, table)
    written = DataDir(path)
    for name in written.names():
        if name not in final:
            (path / name).unlink()
    return written


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """`spk -> utt1 utt2 ...` from `utt -> spk`."""
    speakers: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        speakers.setdefault(utt2spk[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in speakers.items()}


def restrict(tables: Mapping[str, Mapping[str, str]], keep: Iterable[str]) -> dict[str, dict[str, str]]:
    """Tables limited to the utterances `keep`, with their speakers and recordings."""
    utts = set(keep)
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


def row_fault(name: str, value: str) -> str | None:
    """What is wrong with a value of the table `name` seen alone, or None."""
    fields = split_fields(value)
    expected = {
        "utt2spk": 1,
        "utt2uniq": 1,
        "utt2dur": 1,
        "reco2dur": 1,
        "utt2speed": 1,
        "utt2num_samples": 1,
        "spk2gender": 1,
        "segments": 3,
        "reco2file_and_channel": 2,
    }.get(name)
    if expected is not None and len(fields) != expected:
        return f"{expected + 1} fields expected, {len(fields) + 1} found"
    if name in ("wav.scp", "feats.scp", "spk2utt") and not fields:
        return "no value after the key"
    if name in ("utt2dur", "reco2dur", "utt2speed", "utt2num_samples"):
        return None if _number(fields[0]) > 0 else f"'{fields[0]}' is not a positive number"
    if name == "segments":
        start, end = _number(fields[1]), _number(fields[2])
        if not (start >= 0 and (end > start or end == -1)):
            return f"segment '{fields[1]}' to '{fields[2]}' s; 0 <= start < end is needed (end -1: to the end)"
    return None


def _number(text: str) -> float:
    """The float, or NaN (which fails every comparison)."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


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

    The files as they were are kept in `<path>/.backup`. A missing utt2spk is made by mapping each utterance
    to itself.

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
    _backup(data)
    write_datadir(data.path, restrict(tables, keep))
    after = {name: (data.path / name).read_bytes() for name in data.names()}
    for name in sorted(after):
        if name in before and before[name] != after[name]:
            report.repairs.append(f"rewrote {name}")
    report.kept = len(keep)
    return report


def _clean_rows(path: Path, report: FixReport, allow_empty_text: bool) -> dict[str, str]:
    rows, faults = scan_table(path)
    report.repairs += [f"found {fault}" for fault in faults]
    table: dict[str, str] = {}
    for row in rows:
        fault = row_fault(path.name, row.value)
        if row.key in table:
            report.drop(f"repeated in {path.name}, first line kept", row.key)
        elif fault is not None:
            report.drop(f"faulty line in {path.name}", row.key)
        elif not row.value and is_text(path.name) and not allow_empty_text:
            report.drop(f"empty text in {path.name}", row.key)
        else:
            table[row.key] = row.value
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


def _backup(data: DataDir) -> None:
    backup = data.path / ".backup"
    backup.mkdir(exist_ok=True)
    for name in data.names():
        shutil.copy2(data.path / name, backup / name)


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

    Args:
        text: a transcript table (text or text.*) is required.
        wav: wav.scp is required, unless there is a source-text table (src_text, or two text tables) as in
            translation.
        spk_sort: the order of speakers must agree with the order of utterances.
        allow_empty_text: an utterance may have no words.
        durations: value of wav.scp -> seconds (None: unknown); called per recording, errors it raises are
            collected.

    Raises:
        DataError: every fault found, as `file:line: ...`.
    """
    check = _Validator(DataDir(path))
    check.presence(text, wav)
    check.lines(allow_empty_text)
    if "utt2spk" in check.rows:
        check.utterance_sets()
        check.speakers(spk_sort)
    check.segments(durations)
    if check.faults:
        raise DataError(check.faults)
    return len(check.rows["utt2spk"])


class _Validator:
    """Collects the faults of one directory."""

    def __init__(self, data: DataDir) -> None:
        self.path = data.path
        self.rows: dict[str, list[Row]] = {}
        self.faults: list[str] = []
        for name in data.names():
            self.rows[name], faults = scan_table(data.path / name)
            self.faults += faults

    def _fault(self, name: str, line: int, message: str) -> None:
        self.faults.append(f"{self.path / name}:{line}: {message}")

    def _keys(self, name: str) -> set[str]:
        return {row.key for row in self.rows.get(name, ())}

    def presence(self, text: bool, wav: bool) -> None:
        texts = [n for n in self.rows if is_text(n) and n != "text_phn"]
        if "utt2spk" not in self.rows:
            self.faults.append(
                f"{self.path}: utt2spk is missing; `fix` can make one with each utterance its own speaker"
            )
        if text and not any(not n.startswith("src_") for n in texts):
            self.faults.append(f"{self.path}: no text (or text.<case>.<lang>); add it or validate with --no_text")
        if wav and "wav.scp" not in self.rows and len(texts) < 2:
            self.faults.append(f"{self.path}: neither wav.scp nor src_text; add one or validate with --no_wav")
        for name, rows in self.rows.items():
            if not rows:
                self.faults.append(f"{self.path / name}: empty file")

    def lines(self, allow_empty_text: bool) -> None:
        """Faults that one table shows by itself."""
        for name, rows in self.rows.items():
            seen: dict[str, int] = {}
            last = ""
            for row in rows:
                if row.key in seen:
                    self._fault(name, row.line, f"'{row.key}' repeats line {seen[row.key]}; ids must be unique")
                elif row.key < last:
                    self._fault(
                        name,
                        row.line,
                        f"'{row.key}' is not sorted: it follows '{last}'; sort with LC_ALL=C or `fix`",
                    )
                seen.setdefault(row.key, row.line)
                last = row.key
                if fault := row_fault(name, row.value):
                    self._fault(name, row.line, f"'{row.key}': {fault}")
                if is_text(name):
                    self._text(name, row, allow_empty_text)

    def _text(self, name: str, row: Row, allow_empty_text: bool) -> None:
        if not row.value and not allow_empty_text:
            self._fault(name, row.line, f"'{row.key}' has empty text; `fix` drops it, --allow_empty_text accepts it")
        odd = sorted({c for c in row.value if c not in " \t" and (c.isspace() or not c.isprintable())})
        if odd:
            codes = " ".join(f"U+{ord(c):04X}" for c in odd)
            self._fault(name, row.line, f"'{row.key}' has unprintable or unusual white space {codes}; run `normalize`")

    def utterance_sets(self) -> None:
        """Every table with utterances must have those of utt2spk, no more and no fewer."""
        reference = self._keys("utt2spk")
        names = [n for n in self.rows if table_kind(n) == "utt" and n != "utt2spk"]
        if "segments" not in self.rows and "wav.scp" in self.rows:
            names += [n for n in self.rows if table_kind(n) == "reco"]
        for name in names:
            for row in self.rows[name]:
                if row.key not in reference:
                    self._fault(name, row.line, f"'{row.key}' is not in utt2spk")
            keys = self._keys(name)
            for row in self.rows["utt2spk"]:
                if row.key not in keys:
                    self._fault("utt2spk", row.line, f"'{row.key}' is not in {name}")

    def speakers(self, spk_sort: bool) -> None:
        last = ""
        for row in sorted(self.rows["utt2spk"], key=lambda row: row.key):
            if spk_sort and row.value < last:
                self._fault(
                    "utt2spk",
                    row.line,
                    f"'{row.key}': speaker '{row.value}' sorts before the previous one, '{last}'; "
                    "begin utterance ids with their speaker id, or validate with --no_spk_sort",
                )
            last = row.value
        if "spk2utt" not in self.rows:
            return
        expected = spk2utt({row.key: row.value for row in self.rows["utt2spk"]})
        for row in self.rows["spk2utt"]:
            if sorted(split_fields(row.value)) != split_fields(expected.get(row.key, "")):
                self._fault("spk2utt", row.line, f"'{row.key}' does not agree with utt2spk; `fix` rebuilds it")
        for speaker in sorted(set(expected) - self._keys("spk2utt")):
            self.faults.append(f"{self.path / 'spk2utt'}: speaker '{speaker}' of utt2spk is missing; `fix` rebuilds it")

    def segments(self, durations: Callable[[str], float | None] | None) -> None:
        """Recordings of segments exist, and segments end within them when the duration is known."""
        known = {r.key: _number(r.value) for r in self.rows.get("reco2dur", ())}
        if durations is not None:
            for row in self.rows.get("wav.scp", ()):
                try:
                    seconds = durations(row.value)
                except DataError as error:
                    self._fault("wav.scp", row.line, f"'{row.key}': {error}")
                else:
                    if seconds is not None:
                        known[row.key] = seconds
        if "segments" not in self.rows:
            return
        recos = self._keys("wav.scp")
        used: set[str] = set()
        for row in self.rows["segments"]:
            fields = split_fields(row.value)
            if len(fields) != 3:
                continue
            used.add(fields[0])
            if "wav.scp" in self.rows and fields[0] not in recos:
                self._fault("segments", row.line, f"'{row.key}': recording '{fields[0]}' is not in wav.scp")
            if _number(fields[2]) > known.get(fields[0], float("inf")) + 0.005:
                self._fault(
                    "segments",
                    row.line,
                    f"'{row.key}' ends at {fields[2]} s, '{fields[0]}' lasts {known[fields[0]]:.2f} s",
                )
        for name in (n for n in self.rows if table_kind(n) == "reco"):
            for row in self.rows[name]:
                if row.key not in used:
                    self._fault(name, row.line, f"recording '{row.key}' is used by no segment")
