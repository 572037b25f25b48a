"""Plug modules of several chains together, without an update.

example: python -m espnet2_legonn.bin.legonn_plug exp/asr#encoder exp/mt#decoder --out exp/plugged
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import LegoNNError


def pick(spec: str):  # noqa: ANN201 - LegoNN, imported late
    """``FOLDER_OR_ZIP[#module[,module...]]`` to a chain."""
    from espnet2_legonn.api import LegoNN

    source, _, names = spec.partition("#")
    chain = LegoNN.from_pretrained(source)
    if not names:
        return chain
    wanted = names.split(",")
    missing = [n for n in wanted if n not in chain.mods]
    if missing:
        raise LegoNNError(f"{source}: no module {', '.join(missing)}; it has {', '.join(chain.names)}")
    places = [chain.names.index(n) for n in wanted]
    if places != list(range(places[0], places[0] + len(places))):
        raise LegoNNError(f"{spec}: modules must follow each other in the chain ({', '.join(chain.names)})")
    return chain[places[0] : places[-1] + 1]


def main(cmd: Sequence[str] | None = None) -> None:
    """Check every joint, report what differs from training, save the chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="CHAIN[#MODULE,...]", help="folder or zip, and modules of it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new chain")
    args = parser.parse_args(cmd)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chain = pick(args.parts[0])
            for part in args.parts[1:]:
                chain = chain + pick(part)
        for warning in caught:
            print(f"note: {warning.message}", file=sys.stderr)
        chain.save(args.out)
        print(f"{args.out}: {' -> '.join(chain.names)}")
    except LegoNNError as error:
        sys.exit(f"{type(error).__name__}:\n{error}")


if __name__ == "__main__":
    main()
