"""The one set of checks of a data directory: `validate` reports them, and every step asks for them before it begins."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.data.tables import (
    Row,
    code_points,
    id_fault,
    is_text,
    scan_table,
    shown,
    split_fields,
    table_kind,
)
from espnet2_legonn.errors import DataError

# float() would also take `1_000`, `inf`, `nan` and digits of other scripts, which Kaldi's tools do not.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COUNT = re.compile(r"0*[1-9]\d*", re.ASCII)
# Letters of Persian, Hindi and other scripts are joined and parted by these; elsewhere they are invisible dirt.
_JOINER = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")
_RAW = re.compile(r"[._]raw([._]|$)")
SPEEDS = (0.5, 2.0)
# A segment may end so far (seconds) beyond its recording: times are rounded.
ROUNDING = 0.005
_FIELDS = {
    "utt2spk": 1,
    "utt2uniq": 1,
    "utt2dur": 1,
    "reco2dur": 1,
    "utt2speed": 1,
    "utt2num_samples": 1,
    "spk2gender": 1,
    "segments": 3,
    "reco2file_and_channel": 2,
}
_FILES = ("wav.scp", "feats.scp", "spk2utt")


def number(text: str) -> float:
    """A finite number as Kaldi writes it, or NaN (which fails every comparison)."""
    value = float(text) if _NUMBER.fullmatch(text) else float("nan")
    return value if abs(value) < float("inf") else float("nan")


def row_fault(name: str, value: str) -> str | None:
    """What is wrong with a value of the table `name` seen alone, or None."""
    if name not in _FIELDS and name not in _FILES:
        return None
    fields = split_fields(value)
    expected = _FIELDS.get(name)
    if expected is not None and len(fields) != expected:
        return f"{expected + 1} fields expected, {len(fields) + 1} found"
    if name in _FILES and not fields:
        return "no value after the key"
    if name == "utt2num_samples":
        return None if _COUNT.fullmatch(fields[0]) else f"'{fields[0]}' is not a positive number of samples"
    if name in ("utt2dur", "reco2dur"):
        return None if number(fields[0]) > 0 else f"'{fields[0]}' is not a positive number"
    if name == "utt2speed" and not SPEEDS[0] <= number(fields[0]) <= SPEEDS[1]:
        return f"'{fields[0]}' is not a speed from {SPEEDS[0]:g} to {SPEEDS[1]:g}"
    if name == "segments":
        start, end = number(fields[1]), number(fields[2])
        if not (start >= 0 and (end > start or end == -1)):
            comma = "; write a decimal point, not a comma" if "," in fields[1] + fields[2] else ""
            return f"segment '{fields[1]}' to '{fields[2]}' s; 0 <= start < end is needed (end -1: to the end){comma}"
    for other in {"utt2spk": fields, "segments": fields[:1], "spk2utt": fields}.get(name, ()):
        if fault := id_fault(other):
            return f"{shown(other)}: {fault}"
    return None


def text_fault(text: str, *, nfc: bool = True) -> str | None:
    """What is wrong with the characters of a text, or None.

    Args:
        nfc: Unicode's NFC is asked for, too: the same letter is the same code points everywhere.
    """
    if text.isascii() and text.isprintable():
        return None
    bare = _JOINER.sub("", text).replace("\t", " ")
    if not bare.isprintable():  # all white space but the blank is unprintable
        odd = sorted({c for c in bare if not c.isprintable()})
        return f"has unprintable or unusual white space {code_points(odd)}; run `normalize`"
    if nfc and not unicodedata.is_normalized("NFC", text):
        return "is not Unicode NFC: some letters are written as letter and accent; run `normalize`"
    return None


def spk2utt(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """`spk -> utt1 utt2 ...` from `utt -> spk`."""
    speakers: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        speakers.setdefault(utt2spk[utt], []).append(utt)
    return {speaker: " ".join(utts) for speaker, utts in speakers.items()}


@dataclass(frozen=True)
class Wanted:
    """What is asked of a directory beyond sound tables with the same utterances.

    Args:
        text: a transcript table (text or text.*).
        wav: wav.scp, unless there is a source-text table (src_text, or two text tables) as in translation.
        files: tables by name.
        spk_sort: the order of speakers agrees with the order of utterances.
        allow_empty_text: an utterance may have no words, but in the tables ``filled``.
        sorted: keys go up; if not, tables in another order are named in ``Checker.unsorted`` alone.
        durations: value of wav.scp -> seconds (None: unknown); called per recording, errors it raises are
            collected.
    """

    text: bool = True
    wav: bool = True
    files: tuple[str, ...] = ()
    spk_sort: bool = True
    allow_empty_text: bool = False
    durations: Callable[[str], float | None] | None = None
    filled: tuple[str, ...] = ()
    sorted: bool = True


class Checker:
    """Reads the tables `names` of a directory and collects their faults, as `file:line: ...`, in `faults`."""

    def __init__(self, path: Path, names: Iterable[str], wanted: Wanted) -> None:
        self.path, self.wanted = path, wanted
        self.rows: dict[str, list[Row]] = {}
        self.faults: list[str] = []
        self.unsorted: list[str] = []
        for name in names:
            self.rows[name], faults = scan_table(path / name)
            self.faults += faults
            self._lines(name)
        self._presence()
        if "utt2spk" in self.rows:
            self._utterance_sets()
            self._speakers()
        self._segments()

    def tables(self) -> dict[str, dict[str, str]]:
        """All tables by name.

        Raises:
            DataError: every fault.
        """
        if self.faults:
            raise DataError(self.faults)
        return {name: {row.key: row.value for row in rows} for name, rows in self.rows.items()}

    def _fault(self, name: str, line: int, message: str) -> None:
        self.faults.append(f"{self.path / name}:{line}: {message}")

    def _keys(self, name: str) -> set[str]:
        return {row.key for row in self.rows.get(name, ())}

    def _presence(self) -> None:
        texts = [n for n in self.rows if is_text(n) and n != "text_phn"]
        if "utt2spk" not in self.rows:
            self.faults.append(
                f"{self.path}: utt2spk is missing; `fix` can make one with each utterance its own speaker"
            )
        if self.wanted.text and not any(not n.startswith("src_") for n in texts):
            self.faults.append(f"{self.path}: no text (or text.<case>.<lang>); add it or validate with --no_text")
        if self.wanted.wav and "wav.scp" not in self.rows and len(texts) < 2:
            self.faults.append(f"{self.path}: neither wav.scp nor src_text; add one or validate with --no_wav")
        for name in self.wanted.files:
            if name not in self.rows:
                self.faults.append(f"{self.path / name}: no such file; it is needed here")
        for name, rows in self.rows.items():
            if not rows:
                self.faults.append(f"{self.path / name}: empty file")

    def _lines(self, name: str) -> None:
        """Faults that one table shows by itself."""
        seen: dict[str, int] = {}
        last, texts = "", is_text(name)
        for row in self.rows[name]:
            if fault := id_fault(row.key):
                self._fault(name, row.line, f"{shown(row.key)}: {fault}")
            elif row.key in seen:
                self._fault(
                    name,
                    row.line,
                    f"{shown(row.key)} occurs twice: it repeats line {seen[row.key]}; ids must be unique",
                )
            elif row.key < last and not self.wanted.sorted:
                if name not in self.unsorted:
                    self.unsorted.append(name)
            elif row.key < last:
                self._fault(
                    name,
                    row.line,
                    f"{shown(row.key)} is not sorted: it follows {shown(last)}; sort with LC_ALL=C or `fix`",
                )
            seen.setdefault(row.key, row.line)
            last = row.key
            if fault := row_fault(name, row.value):
                self._fault(name, row.line, f"{shown(row.key)}: {fault}")
            if texts:
                self._text(name, row)

    def _text(self, name: str, row: Row) -> None:
        if not row.value and not (self.wanted.allow_empty_text and name not in self.wanted.filled):
            self._fault(
                name, row.line, f"{shown(row.key)} has empty text; `fix` drops it, --allow_empty_text accepts it"
            )
        # Raw references are what somebody published: they are kept as they are.
        if not _RAW.search(name) and (fault := text_fault(row.value)):
            self._fault(name, row.line, f"{shown(row.key)} {fault}")

    def _utterance_sets(self) -> None:
        """Every table with utterances must have those of utt2spk, no more and no fewer."""
        reference = self._keys("utt2spk")
        names = [n for n in self.rows if table_kind(n) == "utt" and n != "utt2spk"]
        if "segments" not in self.rows and "wav.scp" in self.rows:
            names += [n for n in self.rows if table_kind(n) == "reco"]
        for name in names:
            for row in self.rows[name]:
                if row.key not in reference:
                    self._fault(name, row.line, f"{shown(row.key)} is not in utt2spk")
            keys = self._keys(name)
            for row in self.rows["utt2spk"]:
                if row.key not in keys:
                    self._fault("utt2spk", row.line, f"{shown(row.key)} is not in {name}")

    def _speakers(self) -> None:
        last = ""
        for row in sorted(self.rows["utt2spk"], key=lambda row: row.key):
            if self.wanted.spk_sort and row.value < last:
                self._fault(
                    "utt2spk",
                    row.line,
                    f"{shown(row.key)}: speaker '{row.value}' sorts before the previous one, '{last}'; "
                    "begin utterance ids with their speaker id, or validate with --no_spk_sort",
                )
            last = row.value
        expected = spk2utt({row.key: row.value for row in self.rows["utt2spk"]})
        for name in (n for n in self.rows if table_kind(n) == "spk" and n != "spk2utt"):
            for row in self.rows[name]:
                if row.key not in expected:
                    self._fault(name, row.line, f"{shown(row.key)} is no speaker of utt2spk")
        if "spk2utt" not in self.rows:
            return
        for row in self.rows["spk2utt"]:
            if sorted(split_fields(row.value)) != split_fields(expected.get(row.key, "")):
                self._fault("spk2utt", row.line, f"{shown(row.key)} does not agree with utt2spk; `fix` rebuilds it")
        for speaker in sorted(set(expected) - self._keys("spk2utt")):
            self.faults.append(f"{self.path / 'spk2utt'}: speaker '{speaker}' of utt2spk is missing; `fix` rebuilds it")

    def _known_durations(self) -> dict[str, float]:
        known = {r.key: number(r.value) for r in self.rows.get("reco2dur", ())}
        for row in self.rows.get("wav.scp", ()) if self.wanted.durations is not None else ():
            try:
                seconds = self.wanted.durations(row.value) if self.wanted.durations and row.value else None
            except DataError as error:
                self.faults += [
                    f"{self.path / 'wav.scp'}:{row.line}: {shown(row.key)}: {fault}" for fault in error.faults
                ]
            else:
                if seconds is not None:
                    known[row.key] = seconds
        return known

    def _segments(self) -> None:
        """Recordings of segments exist, and segments end within them when the duration is known."""
        known = self._known_durations()
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
                self._fault("segments", row.line, f"{shown(row.key)}: recording '{fields[0]}' is not in wav.scp")
            total = known.get(fields[0], float("inf"))
            if number(fields[2]) > total + ROUNDING or number(fields[1]) >= total:
                self._fault(
                    "segments", row.line, f"{shown(row.key)} ends at {fields[2]} s, '{fields[0]}' lasts {total:.2f} s"
                )
        for name in (n for n in self.rows if table_kind(n) == "reco"):
            for row in self.rows[name]:
                if row.key not in used:
                    self._fault(name, row.line, f"recording {shown(row.key)} is used by no segment")
