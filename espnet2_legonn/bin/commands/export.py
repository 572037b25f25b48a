"""``legonn export``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet2_legonn.inference.legonn import LegoNN

EPILOG = """DIR gets ONNX graphs, the vocabularies and run.py, which needs onnxruntime, numpy and sentencepiece alone.
That needs the extra onnx: pip install 'espnet2_legonn[onnx]'
With --format espnet DIR is an ASR experiment that ESPnet's own decoding reads, which needs the extra train.
example: legonn export mt_de_en -o exp/mt_de_en_onnx && python exp/mt_de_en_onnx/run.py "ein mann läuft" """

FORMATS = ("onnx", "espnet")


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("parts", nargs="+", metavar="PACK[#MODULE,...]", help="in order; all modules by default")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the export")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="what is written (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="of products: float32, or int8, which is smaller and faster")
    parser.add_argument("--trust", action="store_true", help="also archives without a card, of espnet2.bin.pack")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, say what differs from training, and how it is run."""
    from espnet2_legonn.errors import ConfigError, harmless
    from espnet2_legonn.inference.compose import join, pick

    if args.format == "espnet" and args.dtype != "float32":
        raise ConfigError("dtype: goes with --format onnx; leave it out")
    chain, notes = join([pick(spec, args.trust) for spec in args.parts])
    notes += _espnet(chain, args.out) if args.format == "espnet" else []
    for note in notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    if args.format == "onnx":
        _onnx(chain, args.out, args.dtype)
    return 0


def _onnx(chain: LegoNN, out: Path, dtype: str) -> None:
    from espnet2_legonn.export.write import PROGRAM, write

    write(chain, out, dtype)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {' -> '.join(chain.names)}, {dtype}, {size / 1e6:.1f} MB")
    print(f"next: python {out / PROGRAM} --help")


def _espnet(chain: LegoNN, out: Path) -> list[str]:
    from espnet2_legonn.training.stock_chain import CONFIG, WEIGHTS, write

    notes = write(chain, out)
    print(f"{out}: {' -> '.join(chain.names)}")
    print(
        f"next: python -m espnet2_legonn.bin.asr_inference --asr_train_config {out / CONFIG} --asr_model_file "
        f"{out / WEIGHTS} --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound --output_dir {out}/decode"
    )
    return notes
