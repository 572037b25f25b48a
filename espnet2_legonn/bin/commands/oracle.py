"""``legonn oracle``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EPILOG = """The interface before the last module (--at says another one) is read as it is, as the reference (one-hot, as
many slots a token as in training), with errors corrected to the reference on its own slots, as the best token of each
slot (one-hot), sharpened and flattened, and shuffled in time. Cascades pass its n-best texts on one by one; the best
sum of both log-probabilities wins. What the interface should say is text, text_phn or text_<vocabulary> of the data.

example: legonn oracle exp/legonn_fr_plugged --data dump/raw/test_fr --metric bleu -o exp/oracle.json"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("chain", metavar="CHAIN", help="a pack or an experiment")
    option("--data", type=Path, required=True, metavar="DIR", help="a data directory with references")
    option("--metric", default="wer", help="of the chain's answer: wer, cer, bleu, ... (default: wer)")
    option("--at", metavar="MODULE", help="the interface behind this module (default: before the last one)")
    option("--temperature", type=float, nargs="+", default=[0.5, 2.0], metavar="T", help="(default: 0.5 2)")
    option("--nbest", type=int, nargs="+", default=[1, 8], metavar="N", help="of the cascades (default: 1 8)")
    option("--ctc_weight", type=float, help="of the search (default: 0, the decoder alone)")
    option("--length_penalty", type=float, help="of the search (default: 1)")
    option("--beam_size", type=int, default=5, help="of the search (default: 5)")
    option("--limit", type=int, metavar="N", help="N utterances spread over the set (default: all)")
    option("--batch_size", type=int, default=32)
    option("--device", default="cpu")
    option("-o", "--out", dest="out_file", type=Path, metavar="JSON", help="keep the figures")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table, and keep it."""
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.scoring.tables import write_atomic
    from espnet2_legonn.search.options import BeamOptions
    from espnet2_legonn.studies.oracle import as_json, oracle, render

    if min(args.nbest) < 1 or min(args.temperature) <= 0:
        raise ConfigError("--nbest must be at least 1, and --temperature above 0")
    chain = LegoNN.from_pretrained(args.chain, device=args.device)
    options = BeamOptions(args.beam_size, args.length_penalty, ctc_weight=args.ctc_weight)
    found = oracle(
        chain, args.data, args.metric, options, args.at, args.temperature, args.nbest, args.limit or 0, args.batch_size
    )
    print(render(found))
    if args.out_file:
        write_atomic(args.out_file, json.dumps(as_json(found), indent=1) + "\n")
    return 0
