"""AN4 (CMU 1991) to Kaldi-style data directories."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

from espnet2_legonn.data.datadir import validate
from espnet2_legonn.data.tables import write_table
from espnet2_legonn.data.text import normalize, plain_lines
from espnet2_legonn.errors import DataError, command
from legonn_corpora.options import Parser

COLUMNS = {"utt_id", "path", "speaker", "split", "text"}
# an4.dic gives "a" first as the article. In this corpus it is always the letter.
ARTICLE = ("A", "AH")


def read(corpus: Path, index: str) -> dict[str, list[dict[str, str]]]:
    """Rows of the index by split.

    Raises:
        DataError: no index, columns missing, or audio files missing.
    """
    path = corpus / index
    if not path.is_file():
        raise DataError(f"{path}: no such file; AN4=DIR must be the folder that holds {index}")
    with path.open(encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)
        if missing := COLUMNS - set(reader.fieldnames or ()):
            raise DataError(f"{path}:1: no column {', '.join(sorted(missing))}")
        rows = list(reader)
    faults = [
        f"{path}:{i}: {row['utt_id']}: no audio file {corpus / row['path']}"
        for i, row in enumerate(rows, 2)
        if not (corpus / row["path"]).is_file()
    ]
    if faults:
        raise DataError(faults)
    splits = defaultdict(list)
    for row in rows:
        splits[row["split"]].append(row)
    return splits


def write_lexicon(source: Path, target: Path) -> None:
    """The corpus's pronunciations, with the letter A first.

    Raises:
        DataError: no such file.
    """
    if not source.is_file():
        raise DataError(f"{source}: no such file; AN4=DIR must hold the pronunciation lexicon an4.dic")
    lines = list(plain_lines(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{line}\n" for line in lines if tuple(line.split()) != ARTICLE), encoding="utf-8")


@command
def main() -> None:
    """Write data/train, data/valid, data/test and the corpus's pronunciation lexicon."""
    parser = Parser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with utts.tsv")
    parser.add_argument("--index", default="utts.tsv", help="mini_utts.tsv: the small lossless part")
    parser.add_argument("--out", type=Path, default=Path("data"))
    args = parser.parse_args()
    splits = read(args.corpus, args.index)
    write_lexicon(args.corpus / "an4.dic", args.out / "local" / "lexicon.txt")
    for name in ("train", "valid", "test"):
        rows = splits.get(name, [])
        if not rows:
            raise DataError(f"{args.corpus / args.index}: no utterances of split {name}")
        # The speaker leads the utterance id, so both sort alike.
        ids = {f"{row['speaker']}-{row['utt_id']}": row for row in rows}
        folder = args.out / name
        write_table(folder / "wav.scp", {k: str((args.corpus / r["path"]).resolve()) for k, r in ids.items()})
        write_table(folder / "text", {k: normalize(r["text"], "lc.rm") for k, r in ids.items()})
        write_table(folder / "utt2spk", {k: r["speaker"] for k, r in ids.items()})
        speakers = defaultdict(list)
        for key in sorted(ids):
            speakers[ids[key]["speaker"]].append(key)
        write_table(folder / "spk2utt", {s: " ".join(u) for s, u in speakers.items()})
        print(f"{folder}: {validate(folder)} utterances of {len(speakers)} speakers")


if __name__ == "__main__":
    sys.exit(main())
