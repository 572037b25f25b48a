"""Kaldi text tables (`<utterance-id> <text>` per line), joined by id and never by line order."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
        DataError: the file is absent or empty, a line is blank or not UTF-8, or an id occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; nothing to score")
    rows: dict[str, str] = {}
    faults: list[str] = []
    for number, raw in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            faults.append(f"{path}:{number}: not UTF-8 ({error.reason}, byte {error.start}); convert it")
            continue
        if line:
            key, *rest = line.split(maxsplit=1)
            if key in rows:
                faults.append(f"{path}:{number}: utterance {key} occurs twice; keep one line per id")
            rows[key] = rest[0] if rest else ""
        else:
            faults.append(f"{path}:{number}: blank line; every line starts with an utterance id")
    if faults:
        raise DataError(faults)
    return Table(path, rows)


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
        elif len(utt2spk.rows[key].split()) != 1:
            faults.append(f"{utt2spk.path}: {key} needs exactly one speaker, has {utt2spk.rows[key]!r}")
    if faults:
        raise DataError(faults)
    return tuple(utt2spk.rows[key] for key in ids)


def write_atomic(path: Path, text: str) -> None:
    """Replaces `path` by `text` in one step; a reader sees the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files; results are for everybody
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_report(outdir: str | Path, text: str, payload: Mapping[str, object]) -> None:
    """Writes a score directory's result.txt and result.json, replacing older ones."""
    write_atomic(Path(outdir) / "result.txt", text)
    write_atomic(Path(outdir) / "result.json", json.dumps(payload, indent=1, ensure_ascii=False) + "\n")
