"""``legonn demo``."""

from __future__ import annotations

import argparse

EPILOG = """without packs: those of the repository, or of the folder that LEGONN_PACKS names
example: legonn demo packs exp/legonn_de_en/packs"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("packs", nargs="*", metavar="PACK_OR_FOLDER", help="packs, and folders of packs")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others in your network in")
    parser.add_argument("--name", action="append", default=[], help="what browsers call this machine, behind a proxy")
    parser.add_argument("--time_limit", type=float, default=120.0, metavar="SECONDS", help="of one run (default: 120)")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve the page until interrupted."""
    from espnet2_legonn.page.shelf import open_shelf

    shelf = open_shelf(args.packs)
    for fault in shelf.faults:
        print(f"note: {fault}")
    from espnet2_legonn.page.app import serve

    serve(shelf, args.host, args.port, names=args.name, seconds=args.time_limit)
