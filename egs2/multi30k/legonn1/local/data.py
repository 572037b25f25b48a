"""Multi30K, task 1, raw text, to data directories of translation pairs into English."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from espnet2_legonn.data.tables import write_table
from espnet2_legonn.data.text import normalize
from espnet2_legonn.errors import DataError, command
from espnet2_legonn.files.lines import scan
from legonn_corpora.options import Parser

SPLITS = {"train": "train", "val": "valid", "test_2016_flickr": "test2016", "test_2017_flickr": "test2017"}
LINES = {"train": 29000, "val": 1014, "test_2016_flickr": 1000, "test_2017_flickr": 1000}


def read(corpus: Path, split: str, lang: str) -> list[str] | None:
    """Lines of one side, or None if the corpus has no such file (there is no Czech test2017).

    Raises:
        DataError: lines that are not UTF-8, or a number of lines that is not the published one.
    """
    for path in (corpus / f"{split}.{lang}.gz", corpus / f"{split}.{lang}"):
        if path.is_file():
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
                scanned = list(scan(stream, path, windows=True))
            if faults := [fault for line in scanned for fault in line.faults]:
                raise DataError(faults)
            lines = [line.text or "" for line in scanned]
            if len(lines) != LINES[split]:
                raise DataError(f"{path}: {len(lines)} lines, Multi30K has {LINES[split]}")
            return lines
    return None


@command
def main() -> None:
    """Write data/<split>_<src>_en with src_text, text, utt2spk, spk2utt."""
    parser = Parser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--src", default="de", choices=("de", "fr", "cs"))
    parser.add_argument("--case", default="lc.rm", help="text treatment of both sides")
    parser.add_argument("--out", type=Path, default=Path("data"))
    args = parser.parse_args()
    for split, name in SPLITS.items():
        source, target = read(args.corpus, split, args.src), read(args.corpus, split, "en")
        if source is None or target is None:
            if split.startswith("test"):
                print(f"{name}_{args.src}_en: not in Multi30K")
                continue
            raise DataError(f"{args.corpus}: no {split}.{args.src} or {split}.en; MULTI30K=DIR holds raw texts")
        keys = [f"{name}-{i:05d}" for i in range(len(source))]
        folder = args.out / f"{name}_{args.src}_en"
        write_table(folder / "src_text", {k: normalize(s, args.case) for k, s in zip(keys, source)})
        write_table(folder / "text", {k: normalize(t, args.case) for k, t in zip(keys, target)})
        for table in ("utt2spk", "spk2utt"):
            write_table(folder / table, {k: k for k in keys})
        print(f"{folder}: {len(keys)} pairs")


if __name__ == "__main__":
    sys.exit(main())
