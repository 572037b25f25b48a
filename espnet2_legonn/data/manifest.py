"""A corpus as a table: ``python -m espnet2_legonn.data.manifest train.tsv data/train --input speech``.

A line has an utterance id, an audio file (from the table's folder) or a source text, the text, and if known the
speaker, with tabs between. Ids that do not begin with their speaker get it in front, so that tables sort as in Kaldi.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.datadir import write_datadir
from espnet2_legonn.data.tables import id_fault
from espnet2_legonn.data.text import plain_lines
from espnet2_legonn.errors import DataError, command

INPUTS = {"speech": "wav.scp", "text": "src_text"}


def read_manifest(path: Path, kind: str) -> dict[str, dict[str, str]]:
    """Tables of a data directory by name.

    Args:
        kind: ``speech`` or ``text``: what the second column is.

    Raises:
        DataError: every fault, by file and line.
    """
    if kind not in INPUTS:
        raise DataError(f"input {kind!r} is none of {', '.join(INPUTS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; its lines are: id, {_second(kind)}, text[, speaker], with tabs between")
    tables: dict[str, dict[str, str]] = {INPUTS[kind]: {}, "text": {}, "utt2spk": {}}
    faults = []
    for number, line in enumerate(plain_lines(path), 1):
        fields = [" ".join(field.split()) for field in line.split("\t")]
        if not line.strip():
            continue
        if len(fields) not in (3, 4) or not all(fields[:3]):
            found = f"{len(fields)} columns" if len(fields) not in (3, 4) else "an empty one"
            faults.append(f"{path}:{number}: {found}; wanted: id, {_second(kind)}, text[, speaker], with tabs between")
            continue
        uid, source, text = fields[:3]
        sound = path.parent / line.split("\t")[1].strip()  # a file's name as it is, runs of spaces too
        speaker = fields[3] if fields[3:] and fields[3] else uid
        uid = uid if uid.startswith(speaker) else f"{speaker}-{uid}"
        if fault := id_fault(uid) or id_fault(speaker):
            faults.append(f"{path}:{number}: {fault}")
        elif uid in tables["text"]:
            faults.append(f"{path}:{number}: {uid} was there before")
        elif kind == "speech" and not sound.is_file():
            faults.append(f"{path}:{number}: {uid}: no audio file {path.parent / source}")
        else:
            given = str(sound.resolve()) if kind == "speech" else source
            for name, value in ((INPUTS[kind], given), ("text", text), ("utt2spk", speaker)):
                tables[name][uid] = value
    if not faults and not tables["text"]:
        faults.append(f"{path}: no lines")
    if faults:
        raise DataError(faults)
    return tables


def _second(kind: str) -> str:
    return "audio file" if kind == "speech" else "source text"


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Write a data directory; 2 with every fault on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--input", choices=list(INPUTS), default="speech")
    args = parser.parse_args(cmd)
    tables = read_manifest(args.table, args.input)
    write_datadir(args.out, tables)
    print(f"{args.out}: {len(tables['text'])} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(main())
