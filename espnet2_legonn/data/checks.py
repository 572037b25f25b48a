"""The one set of checks of a data directory: `validate` reports them, and every step asks for them before it begins."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from espnet2_legonn.data.tables import (
    PLAIN_ID,
    Faults,
    Made,
    Row,
    Rows,
    Table,
    code_points,
    id_fault,
    in_order,
    is_text,
    joined,
    ordered,
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
    if name not in _FIELDS and name not in _FILES or name == "utt2spk" and PLAIN_ID.fullmatch(value):
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


def spk2utt(utt2spk: Rows) -> Iterator[tuple[str, str]]:
    """`spk, utt1 utt2 ...` from `utt, spk`, in order of the speakers."""
    pairs = in_order((speaker, utt) for utt, speaker in utt2spk.items())
    for speaker, members in itertools.groupby(pairs, key=itemgetter(0)):
        yield speaker, " ".join(utt for _, utt in members)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a directory beyond sound tables with the same utterances.

    Args:
        text: a transcript table (text or text.*).
        wav: wav.scp, unless there is a source-text table (src_text, or two text tables) as in translation.
        files: tables by name.
        spk_sort: the order of speakers agrees with the order of utterances.
        allow_empty_text: an utterance may have no words, but in the tables ``filled``.
        sorted: keys go up in the files; if not, tables in another order are named in ``Checker.unsorted`` alone.
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
    """Reads the tables `names` of a directory together, once, and collects their faults, as `file:line: ...`."""

    def __init__(self, path: Path, names: Iterable[str], wanted: Wanted) -> None:
        self.path, self.wanted = path, wanted
        self.files = {name: Table(path / name) for name in names}
        ordered(self._read)
        self.unsorted = [name for name, table in self.files.items() if not table.sorted]

    @property
    def faults(self) -> list[str]:
        """Of each table by itself, then of all together."""
        return list(itertools.chain(*self._alone.values(), self._together))

    def tables(self) -> dict[str, Table]:
        """All tables by name.

        Raises:
            DataError: every fault.
        """
        if faults := self.faults:
            raise DataError(faults)
        return dict(self.files)

    def _read(self) -> None:
        self._alone, self._together = {name: Faults() for name in self.files}, Faults()
        whole = "segments" not in self.files
        utts = [n for n in self.files if table_kind(n) == "utt" or (whole and table_kind(n) == "reco")]
        self._presence()
        self._utterances(utts)
        self._speakers([n for n in self.files if table_kind(n) == "spk"])
        self._recordings([n for n in self.files if n not in utts and table_kind(n) == "reco"])
        for name, table in self.files.items():
            if not table.count:
                self._together.add(f"{self.path / name}: empty file")
            if self.wanted.sorted and not table.sorted:
                self._order(name)

    def _fault(self, name: str, line: int, message: str) -> None:
        self._together.add(f"{self.path / name}:{line}: {message}")

    def _presence(self) -> None:
        texts = [n for n in self.files if is_text(n) and n != "text_phn"]
        faults = []
        if "utt2spk" not in self.files:
            faults.append(f"{self.path}: utt2spk is missing; `fix` can make one with each utterance its own speaker")
        if self.wanted.text and not any(not n.startswith("src_") for n in texts):
            faults.append(f"{self.path}: no text (or text.<case>.<lang>); add it or validate with --no_text")
        if self.wanted.wav and "wav.scp" not in self.files and len(texts) < 2:
            faults.append(f"{self.path}: neither wav.scp nor src_text; add one or validate with --no_wav")
        lost = [name for name in self.wanted.files if name not in self.files]
        faults += [f"{self.path / name}: no such file; it is needed here" for name in lost]
        self._together.add(*faults)

    def _rows(self, name: str) -> Iterator[Row]:
        """Rows of a table, with the faults that it shows by itself."""
        faults, file = self._alone[name], self.path / name
        texts, tells = is_text(name), name in _FIELDS or name in _FILES
        empty = not texts or (self.wanted.allow_empty_text and name not in self.wanted.filled)
        raw = _RAW.search(name) is not None  # what somebody published is kept as it is
        for row in self.files[name].rows(faults):
            key, line, value = row
            if tells and (fault := row_fault(name, value)):
                faults.add(f"{file}:{line}: {shown(key)}: {fault}")
            if not value and not empty:
                remedy = "`fix` drops it, --allow_empty_text accepts it"
                faults.add(f"{file}:{line}: {shown(key)} has empty text; {remedy}")
            if texts and not raw and (fault := text_fault(value)):
                faults.add(f"{file}:{line}: {shown(key)} {fault}")
            yield row

    def _order(self, name: str) -> None:
        """Keys that do not go up in the file; those that occur twice are faults already."""
        seen, last = {fault.split(" ")[0] for fault in self._alone[name] if " occurs twice: " in fault}, ""
        for key, line, _ in scan_table(self.path / name, Faults()):
            place = f"{self.path / name}:{line}:"
            if key < last and place not in seen:
                order = f"{shown(key)} is not sorted: it follows {shown(last)}; sort with LC_ALL=C or `fix`"
                self._alone[name].add(f"{place} {order}")
            last = key

    def _utterances(self, names: Sequence[str]) -> None:
        """Every table with utterances must have those of utt2spk, no more and no fewer."""
        place = names.index("utt2spk") if "utt2spk" in names else None
        wav = names.index("wav.scp") if "wav.scp" in names else None
        speaker = ""
        for rows in joined([self._rows(name) for name in names]):
            if wav is not None and (recording := rows[wav]) is not None:
                self._seconds(recording)
            if place is None:
                continue
            if (utt := rows[place]) is None:
                for name, row in zip(names, rows):
                    if row is not None:
                        self._fault(name, row.line, f"{shown(row.key)} is not in utt2spk")
                continue
            if None in rows:
                for name in (name for name, row in zip(names, rows) if row is None):
                    self._fault("utt2spk", utt.line, f"{shown(utt.key)} is not in {name}")
            if self.wanted.spk_sort and utt.value < speaker:
                self._fault(
                    "utt2spk",
                    utt.line,
                    f"{shown(utt.key)}: speaker '{utt.value}' sorts before the previous one, '{speaker}'; "
                    "begin utterance ids with their speaker id, or validate with --no_spk_sort",
                )
            speaker = utt.value

    def _speakers(self, names: Sequence[str]) -> None:
        """Tables with speakers have those of utt2spk, and spk2utt says the same as that."""
        known: Iterable[tuple[str, str]] = ()
        if names and "utt2spk" in self.files:
            utt2spk = self.files["utt2spk"]
            known = spk2utt(Made(lambda: ((row.key, row.value) for row in utt2spk.rows(Faults()))))
        expected = (Row(speaker, 0, utts) for speaker, utts in known)
        for speaker, *rows in joined([expected, *map(self._rows, names)]):
            for name, row in zip(names, rows) if "utt2spk" in self.files else ():
                if name == "spk2utt" and row is None and speaker is not None:
                    said = f"speaker '{speaker.key}' of utt2spk is missing; `fix` rebuilds it"
                    self._together.add(f"{self.path / name}: {said}")
                elif name == "spk2utt" and row is not None:
                    utts = split_fields(speaker.value) if speaker is not None else []
                    if row.value != (speaker.value if speaker else "") and sorted(split_fields(row.value)) != utts:
                        said = f"{shown(row.key)} does not agree with utt2spk; `fix` rebuilds it"
                        self._fault(name, row.line, said)
                elif row is not None and speaker is None:
                    self._fault(name, row.line, f"{shown(row.key)} is no speaker of utt2spk")

    def _seconds(self, row: Row, otherwise: float = float("inf")) -> float:
        """How long the recording of a row of wav.scp is, or what is known ``otherwise``."""
        try:
            seconds = self.wanted.durations(row.value) if self.wanted.durations and row.value else None
        except DataError as error:
            for fault in error.faults:
                self._fault("wav.scp", row.line, f"{shown(row.key)}: {fault}")
            return otherwise
        return otherwise if seconds is None else seconds

    def _recordings(self, names: Sequence[str]) -> None:
        """Recordings of segments exist, all are used, and segments end within them when the duration is known."""
        if "segments" not in self.files:
            return
        cuts: dict[str, list[tuple[str, int, str, str, str]]] = {}
        for used, *rows in joined([self._cuts(cuts), *map(self._rows, names)]):
            found = dict(zip(names, rows))
            total = float("inf")
            if (row := found.get("reco2dur")) is not None:
                total = number(row.value)
            if (row := found.get("wav.scp")) is not None:
                total = self._seconds(row, total)
            for name, row in found.items():
                if row is not None and used is None:
                    self._fault(name, row.line, f"recording {shown(row.key)} is used by no segment")
            for reco, line, key, start, end in cuts.pop(used.key) if used is not None else ():
                if "wav.scp" in found and found["wav.scp"] is None:
                    self._fault("segments", line, f"{shown(key)}: recording '{reco}' is not in wav.scp")
                if number(end) > total + ROUNDING or number(start) >= total:
                    self._fault("segments", line, f"{shown(key)} ends at {end} s, '{reco}' lasts {total:.2f} s")

    def _cuts(self, found: dict[str, list[tuple[str, int, str, str, str]]]) -> Iterator[Row]:
        """A row for each recording that segments cut; its segments go to ``found``."""
        rows = ((row, split_fields(row.value)) for row in self.files["segments"].rows(Faults()))
        cuts = ((cut[0], row.line, row.key, cut[1], cut[2]) for row, cut in rows if len(cut) == 3)
        for reco, group in itertools.groupby(in_order(cuts), key=itemgetter(0)):
            found[reco] = list(group)
            yield Row(reco, 0, "")
