"""``legonn check``."""

from __future__ import annotations

import argparse

from espnet2_legonn.packs.check import check

EPILOG = """exit status: 0 fits, 1 fits but differs from training, 2 will not fit
(or a pack cannot be read: stderr says why)
example: legonn check packs/asr_encoder packs/mt_de_en#decoder"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("parts", nargs="+", metavar="PACK[#MODULE,...]", help="in order; all modules by default")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every reason; the verdict is the exit status."""
    report = check(args.parts)
    print(report)
    return int(report.verdict)
