"""How many English sentences of data directories also stand in the first one: a split by number cannot see repeats."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import command


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Print a line for each directory after the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("donor", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    args = parser.parse_args(cmd)
    met = set(read_table(args.donor / "text").values())
    for other in args.others:
        texts = list(read_table(other / "text").values())
        print(f"{other}: {sum(text in met for text in texts)} of {len(texts)} English sentences also in {args.donor}")


if __name__ == "__main__":
    sys.exit(main())
