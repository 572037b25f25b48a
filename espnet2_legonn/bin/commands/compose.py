"""``legonn compose``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """PACK is a folder, a zip, a URL, a name of the inventory, a hub tag or an experiment folder.
hf:MODEL is a language model of Hugging Face's (folder or Hub name) as a decoder that has not been tuned.
example: legonn compose exp/legonn_asr#encoder packs/mt_de_en#decoder -o exp/legonn_plugged"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("parts", nargs="+", metavar="PACK[#MODULE,...]", help="in order; all modules by default")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the new pack")
    parser.add_argument(
        "--remap", action="store_true", help="let a reader read a close vocabulary (other order, more or fewer tokens)"
    )
    parser.add_argument(
        "--sample", nargs="+", default=[], metavar="INPUT", help="files or texts to measure what a remapping loses"
    )
    parser.add_argument("--trust", action="store_true", help="also archives without a card, of espnet2.bin.pack")
    parser.add_argument("--finetune", type=Path, metavar="YAML", help="training options: writes OUT/train.yaml")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compose, say what differs from training, and which command comes next."""
    from espnet2_legonn.errors import harmless
    from espnet2_legonn.inference.compose import compose, finetune_config

    chain, notes = compose(args.parts, args.out, args.remap, args.sample, args.trust)
    for note in notes:
        print(f"note: {harmless(note)}", file=sys.stderr)
    print(f"{args.out}: {' -> '.join(chain.names)}")
    if args.finetune:
        config = finetune_config(chain, args.out, args.finetune)
        print(f"next: ./run.sh --stage 10 --legonn_config {config}")
    else:
        if use := {"speech": "transcribe", "tokens": "translate"}.get(chain.input_kind):
            print(f"next: legonn {use} --model {args.out} INPUT")
        print(f"or, in a recipe: ./run.sh --stage 12 --legonn_exp {args.out}")
    return 0
