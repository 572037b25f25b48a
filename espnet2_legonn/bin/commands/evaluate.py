"""``legonn evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EPILOG = """For each module: the score of its own text. For each interface besides: CTC loss for a target token, slots a
token (and in training), the share of slots whose best token is blank, entropy in nats, and calibration: how sure the
tokens of the best path are on average, how many of them are right, and the expected calibration error.

example: legonn evaluate exp/legonn_de_en --data dump/raw/test_de --metric bleu -o exp/legonn_de_en/evaluate.json"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("chain", metavar="CHAIN", help="a pack or an experiment")
    option("--data", type=Path, required=True, metavar="DIR", help="a data directory with references")
    option("--metric", default="wer", help="of words: wer, cer, bleu, ... (default: wer). Phonemes are scored by PER")
    option("--limit", type=int, metavar="N", help="N utterances spread over the set (default: all)")
    option("--ctc_weight", type=float, help="of the decoder's search (default: tuned for the chain, or 0.4)")
    option("--beam_size", type=int, default=5, help="of the search (default: 5)")
    option("--batch_size", type=int, default=32)
    option("--device", default="cpu")
    option("-o", "--out", dest="out_file", type=Path, metavar="JSON", help="keep the figures")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table, and keep it."""
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.scoring.tables import write_atomic
    from espnet2_legonn.search.options import BeamOptions
    from espnet2_legonn.studies.evaluate import as_json, evaluate, render

    chain = LegoNN.from_pretrained(args.chain, device=args.device)
    options = BeamOptions(args.beam_size, ctc_weight=args.ctc_weight)
    figures = evaluate(chain, args.data, args.metric, options, args.limit or 0, args.batch_size)
    print(render(figures))
    if args.out_file:
        write_atomic(args.out_file, json.dumps(as_json(figures), indent=1) + "\n")
    return 0
