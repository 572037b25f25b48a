"""Kaldi text tables (`<utterance-id> <text>` per line), joined by id and never by line order."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from espnet2_legonn.data.tables import Faults, Row, Table, atomic_text, few, joined, read_table, split_fields
from espnet2_legonn.errors import DataError

Missing = Literal["error", "empty"]


class Pair(NamedTuple):
    """One utterance.

    Args:
        refs: its text in each reference file.
        hyp: "" for an absent hypothesis.
        speaker: None where no utt2spk was given.
    """

    uid: str
    refs: tuple[str, ...]
    hyp: str
    speaker: str | None


class Joined:
    """References and hypotheses of the same utterances, one after another, sorted by id; none is held.

    Args:
        refs: files; all must hold the same ids.
        utt2spk: file with one speaker for each utterance; it may hold more.
        missing: "error" refuses absent hypotheses, "empty" takes them as empty (all words deleted).
    """

    def __init__(
        self, refs: Sequence[str | Path], hyp: str | Path, utt2spk: str | Path | None = None, missing: Missing = "error"
    ) -> None:
        self.refs, self.hyp, self.missing = [Table(Path(ref)) for ref in refs], Table(Path(hyp)), missing
        self.utt2spk = None if utt2spk is None else Table(Path(utt2spk))
        self.absent: list[str] = []

    def pairs(self) -> Iterator[Pair]:
        """Each utterance; ``absent`` becomes the ids without a hypothesis.

        Raises:
            Unordered: see ``data.tables.ordered``.
            DataError: at the end; files are unreadable or empty, or their ids differ: every one is listed.
        """
        faults, self.absent = Faults(), []
        tables = [*self.refs, self.hyp, *([self.utt2spk] if self.utt2spk else [])]
        for rows in joined([table.rows() for table in tables]):
            refs, hyp = rows[: len(self.refs)], rows[len(self.refs)]
            key = next(row.key for row in rows if row is not None)
            faults.add(*self._differences(key, refs, hyp))
            if refs[0] is None:
                continue
            if hyp is None:
                self.absent.append(key)
                if self.missing == "error":
                    remedy = "decode it, or use missing=empty"
                    faults.add(f"{self.hyp.path}: no hypothesis for {key} of {self.refs[0].path}; {remedy}")
            speaker = self._speaker(key, rows[-1], faults) if self.utt2spk else None
            yield Pair(key, tuple(r.value if r else "" for r in refs), "" if hyp is None else hyp.value, speaker)
        for table in tables:
            if not table.count:
                faults.add(f"{table.path}: the file is empty; nothing to score")
        if faults:
            raise DataError(faults)

    def _differences(self, key: str, refs: Sequence[Row | None], hyp: Row | None) -> Iterator[str]:
        first = self.refs[0].path
        for table, row in zip(self.refs[1:], refs[1:]):
            if (row is None) != (refs[0] is None):
                here, there = (table.path, first) if row is None else (first, table.path)
                yield f"{here}: no reference for {key}, which {there} has"
        if hyp is not None and refs[0] is None:
            remedy = "remove it or score the right set"
            yield f"{self.hyp.path}: hypothesis {key} has no reference in {first}; {remedy}"

    def _speaker(self, key: str, row: Row | None, faults: Faults) -> str:
        assert self.utt2spk is not None
        if row is None:
            faults.add(f"{self.utt2spk.path}: no speaker for {key}; add the line `{key} <speaker>`")
        elif len(split_fields(row.value)) != 1:
            faults.add(f"{self.utt2spk.path}: {key} needs exactly one speaker, has {row.value!r}")
        return "" if row is None else row.value


def read_references(files: Sequence[Path], source: Path, uids: Collection[str]) -> list[dict[str, str]]:
    """Texts of reference files, whose utterances are those of the table that is decoded.

    Args:
        source: that table; uids: utterances of it that are scored.

    Raises:
        DataError: utterances that a file or ``source`` lacks, or a file without a word; all of them.
    """
    decoded, tables, faults = read_table(source).keys(), {file: read_table(file) for file in files}, list[str]()
    for file, table in tables.items():
        if lost := [uid for uid in uids if uid not in table]:
            faults.append(f"{file}: no reference for {few(lost)} of {source}; add what was said")
        elif not any(table[uid].strip() for uid in uids):
            faults.append(f"{file}: the references of all {len(uids)} utterances are empty; no score is defined")
        if silent := [uid for uid in table if uid not in decoded]:
            remedy = "add them, or keep what all tables have: python -m espnet2_legonn.data.cli fix"
            faults.append(f"{source}: no line for {few(silent)} of {file}; {remedy} {file.parent}")
    if faults:
        raise DataError(faults)
    return [tables[file] for file in files]


def write_atomic(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; a reader sees the old or the new file, never half of one."""
    with atomic_text(path) as stream:
        stream.write(text)


def write_report(
    outdir: str | Path,
    text: str | Iterable[str],
    payload: Mapping[str, object],
    made_by: Mapping[str, object] | None = None,
) -> None:
    """Writes a score directory's result.txt and result.json, replacing older ones; ``made_by`` goes into the latter."""
    if made_by:
        payload = {**payload, "made_by": made_by}
    with atomic_text(Path(outdir) / "result.txt") as stream:
        stream.writelines([text] if isinstance(text, str) else text)
    write_atomic(Path(outdir) / "result.json", json.dumps(payload, indent=1, ensure_ascii=False) + "\n")
