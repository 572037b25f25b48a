"""Kaldi text tables (`<utterance-id> <text>` per line), joined by id and never by line order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from espnet2_legonn.data import tables
from espnet2_legonn.errors import DataError

Missing = Literal["error", "empty"]


@dataclass(frozen=True)
class Table:
    """A text table in memory.

    Args:
        path: where it came from; named in every error.
        rows: utterance id -> text ("" for a line that holds an id only), in file order.
    """

    path: Path
    rows: Mapping[str, str]


@dataclass(frozen=True)
class Joined:
    """References and hypotheses of the same utterances, sorted by id.

    Args:
        ids: utterance ids, sorted.
        refs: one list of texts per reference file, each parallel to `ids`.
        hyps: texts parallel to `ids`; "" for an absent hypothesis.
        absent: ids without a hypothesis (only with `missing="empty"`).
    """

    ids: tuple[str, ...]
    refs: tuple[tuple[str, ...], ...]
    hyps: tuple[str, ...]
    absent: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest of ids and references."""
        digest = hashlib.sha256()
        for row in zip(self.ids, *self.refs, strict=True):
            digest.update("\t".join(row).encode() + b"\n")
        return digest.hexdigest()


def read_table(path: str | Path) -> Table:
    """Reads a text table.

    Raises:
        DataError: as `data.tables.read_table`, or the file is empty.
    """
    rows = tables.read_table(path)
    if not rows:
        raise DataError(f"{path}: the file is empty; nothing to score")
    return Table(Path(path), rows)


def join_tables(refs: Sequence[Table], hyp: Table, missing: Missing = "error") -> Joined:
    """Joins hypotheses to references by utterance id.

    Args:
        refs: at least one reference table; all must hold the same ids.
        missing: "error" refuses absent hypotheses, "empty" scores them as empty (all words deleted), listed.

    Raises:
        DataError: ids differ; every id is listed with its file.
    """
    first = refs[0]
    faults = []
    for ref in refs[1:]:
        for here, there in ((ref, first), (first, ref)):
            absent_refs = (key for key in there.rows if key not in here.rows)
            faults += [f"{here.path}: no reference for {key}, which {there.path} has" for key in absent_refs]
    faults += [
        f"{hyp.path}: hypothesis {k} has no reference in {first.path}; remove it or score the right set"
        for k in hyp.rows
        if k not in first.rows
    ]
    ids = tuple(sorted(first.rows))
    absent = tuple(k for k in ids if k not in hyp.rows)
    if missing == "error":
        faults += [
            f"{hyp.path}: no hypothesis for {k} of {first.path}; decode it, or use missing=empty" for k in absent
        ]
    if faults:
        raise DataError(faults)
    return Joined(
        ids=ids,
        refs=tuple(tuple(ref.rows[k] for k in ids) for ref in refs),
        hyps=tuple(hyp.rows.get(k, "") for k in ids),
        absent=absent,
    )


def speakers_of(ids: Sequence[str], utt2spk: Table) -> tuple[str, ...]:
    """The speaker of every utterance; the table may hold more utterances.

    Raises:
        DataError: an utterance has no line, or a line does not hold exactly one speaker.
    """
    faults = []
    for key in ids:
        if key not in utt2spk.rows:
            faults.append(f"{utt2spk.path}: no speaker for {key}; add the line `{key} <speaker>`")
        elif len(tables.split_fields(utt2spk.rows[key])) != 1:
            faults.append(f"{utt2spk.path}: {key} needs exactly one speaker, has {utt2spk.rows[key]!r}")
    if faults:
        raise DataError(faults)
    return tuple(utt2spk.rows[key] for key in ids)


def write_atomic(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; a reader sees the old or the new file, never half of one."""
    with tables.atomic_text(path) as stream:
        stream.write(text)


def write_report(
    outdir: str | Path, text: str, payload: Mapping[str, object], made_by: Mapping[str, object] | None = None
) -> None:
    """Writes a score directory's result.txt and result.json, replacing older ones; ``made_by`` goes into the latter."""
    if made_by:
        payload = {**payload, "made_by": made_by}
    write_atomic(Path(outdir) / "result.txt", text)
    write_atomic(Path(outdir) / "result.json", json.dumps(payload, indent=1, ensure_ascii=False) + "\n")
