"""legonn: packs of modules on the command line.

example: legonn check asr.zip#encoder mt.zip#decoder && legonn compose asr.zip#encoder mt.zip#decoder -o st
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from espnet2_legonn.bin.options import require_options
from espnet2_legonn.errors import command

# Subcommand: the module of this room that has it (add(parser) and run(args)), and what it is for.
COMMANDS = {
    "check": ("check", "will these modules fit? reasons, from the cards alone"),
    "advise": ("advise", "try a plug on a hundred examples: plug, leave the encoder alone, re-time, start warm"),
    "compose": ("compose", "put modules together, without an update"),
    "export": ("export", "write a chain as ONNX graphs with a runner that needs no PyTorch"),
    "pack": ("pack", "make a pack of a trained experiment, for the chain and for each module"),
    "adopt": ("adopt", "make a pack of a CTC model of others: an ESPnet ASR experiment, a *ForCTC folder"),
    "list": ("inventory", "packs of an inventory; --reads and --writes search by port"),
    "info": ("inventory", "the card of a pack"),
    "pull": ("inventory", "get a pack"),
    "push": ("inventory", "publish a pack into an inventory or on the Hugging Face Hub"),
    "vocab": ("vocab", "design a vocabulary: make or adopt one, and see how it fits corpora"),
    "ngram": ("ngram", "estimate an n-gram language model over the tokens of a vocabulary"),
    "cost": ("cost", "what a training configuration costs: parameters, updates, memory a card, hours"),
    "evaluate": ("evaluate", "judge each module: score, loss, slots a token, blanks, entropy, calibration"),
    "oracle": ("oracle", "what would a decoder make of another interface? references, one-hot, n-best cascades"),
    "inspect": ("inspect", "one utterance as a page: interfaces, length control, answers and their scorers"),
    "swap": ("swap", "every encoder with every decoder of chains that were trained alike: matrix, test of equivalence"),
    "transcribe": ("transcribe", "speech files to text"),
    "translate": ("transcribe", "texts to texts"),
    "demo": ("demo", "a web page: choose two packs, speak or type, see every interface"),
}


def get_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser; options of ``chosen`` only, since each command imports what it needs."""
    parser = argparse.ArgumentParser(
        prog="legonn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (home, purpose) in COMMANDS.items():
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=purpose, description=purpose, formatter_class=raw)
        if name == chosen:
            module = importlib.import_module(f"espnet2_legonn.bin.commands.{home}")
            module.add(name, command)
    return parser


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Faults of the user are printed without a traceback."""
    arguments = list(sys.argv[1:] if cmd is None else cmd)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    args = get_parser(chosen).parse_args(arguments)
    require_options(args)
    return int(args.run(args) or 0)


if __name__ == "__main__":
    sys.exit(main())
