"""``legonn export``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """DIR gets ONNX graphs, the vocabularies and run.py, which needs onnxruntime, numpy and sentencepiece alone.
This command needs the extra onnx: pip install 'espnet2_legonn[onnx]'
example: legonn export mt_de_en -o exp/mt_de_en_onnx && python exp/mt_de_en_onnx/run.py "ein mann läuft" """


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("parts", nargs="+", metavar="PACK[#MODULE,...]", help="in order; all modules by default")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the export")
    parser.add_argument("--dtype", default="float32", help="of products: float32, or int8, which is smaller and faster")
    parser.add_argument("--trust", action="store_true", help="also archives without a card, of espnet2.bin.pack")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, say what differs from training, and how it is run."""
    from espnet2_legonn.errors import harmless
    from espnet2_legonn.export.write import PROGRAM, write
    from espnet2_legonn.inference.compose import join, pick

    chain, notes = join([pick(spec, args.trust) for spec in args.parts])
    for note in notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    write(chain, args.out, args.dtype)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {' -> '.join(chain.names)}, {args.dtype}, {size / 1e6:.1f} MB")
    print(f"next: python {args.out / PROGRAM} --help")
    return 0
