"""``legonn swap``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

EPILOG = """CHAINs were trained alike, with other seeds or other readers. Each is cut before its last module (--at says
another place), and every first part is searched with every second part. 100 % is the mean of the pairs that were
trained together. With three chains or more that differ in their seeds alone, the difference has two intervals, a
bootstrap over chains and utterances and a jackknife over chains, and it is "no difference" only if both 90 % intervals
lie within the margin, which is to be chosen before. Of two chains, or of readers, utterances are drawn, and there is no
test.

example: legonn swap exp/seed1/legonn_de_en exp/seed2/legonn_de_en exp/seed3/legonn_de_en --data dump/raw/test_de
         --margin 1.5 -o exp/swap"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("chains", nargs="+", metavar="CHAIN", help="packs or experiments")
    option("--data", type=Path, required=True, metavar="DIR", help="a data directory with references")
    option("--metric", default="bleu", help="wer, cer, bleu, ... (default: bleu)")
    option("--margin", type=float, default=1.5, help="points within which scores count as equal (default: 1.5)")
    option("--at", metavar="MODULE", help="cut behind this module (default: before the last one)")
    option("--ctc_weight", type=float, help="of the search (default: 0.4 where CTC can follow; 0 is the paper's)")
    option("--length_penalty", type=float, help="of the search")
    option("--beam_size", type=int, default=5, help="of the search (default: 5)")
    option("--device", default="cpu")
    option("-o", "--out", type=Path, required=True, metavar="DIR", help="for swap.json, swap.md and the pairs' texts")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decode all pairs, print the matrix and keep it."""
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.scoring.tables import write_atomic
    from espnet2_legonn.search.options import BeamOptions
    from espnet2_legonn.studies.matrix import swap_text
    from espnet2_legonn.studies.swap import labels, swap

    if not args.margin > 0:
        raise ConfigError(f"--margin must be above 0 points, got {args.margin:g}")
    options = BeamOptions(args.beam_size, args.length_penalty, ctc_weight=args.ctc_weight)
    chains = [LegoNN.from_pretrained(chain, device=args.device) for chain in args.chains]
    found = swap(chains, labels(args.chains), args.data, args.metric, args.out, options, args.at)
    told = found.as_json(args.margin)
    text = swap_text(told)
    write_atomic(args.out / "swap.md", text + "\n")
    write_atomic(args.out / "swap.json", json.dumps(told, indent=1) + "\n")
    print(f"{text}\n{args.out / 'swap.md'}")
    return 0
