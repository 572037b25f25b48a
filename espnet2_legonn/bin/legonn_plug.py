"""Plug modules of several chains together, without an update.

example: python -m espnet2_legonn.bin.legonn_plug exp/asr#encoder exp/mt#decoder --out exp/plugged
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import LegoNNError


def main(cmd: Sequence[str] | None = None) -> None:
    """Check every joint, report what differs from training, save the chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="CHAIN[#MODULE,...]", help="folder or zip, and modules of it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new chain")
    args = parser.parse_args(cmd)
    from espnet2_legonn.plug import plug

    try:
        chain, notes = plug(args.parts, args.out)
    except (LegoNNError, FileExistsError) as error:
        sys.exit(f"{type(error).__name__}:\n{error}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{args.out}: {' -> '.join(chain.names)}")


if __name__ == "__main__":
    main()
