"""``legonn cost``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """Lengths of the data are those of stage 10 (--stats), or what conf/lengths.yaml of the recipe assumes.
exit status: 0 every configuration fits the card, 1 one does not
example: legonn cost egs2/swbd/legonn1/conf/train_wemb.yaml --gpus 8 --card 32"""


def _pair(text: str) -> tuple[str, int]:
    name, _, size = text.partition("=")
    return name, int(size)


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONF", help="training configurations")
    parser.add_argument("--gpus", type=int, default=1, help="cards that share a batch")
    parser.add_argument("--card", type=float, default=0.0, metavar="GB", help="memory of a card")
    parser.add_argument("--tflops", type=float, default=30.0, help="10^12 operations a second of a card (30: a V100)")
    parser.add_argument("--stats", type=Path, metavar="DIR", help="folder of stage 10: exp/legonn_stats_...")
    parser.add_argument("--lengths", type=Path, metavar="YAML", help="assumed lengths, instead of the recipe's")
    parser.add_argument("--vocab", nargs="+", type=_pair, default=[], metavar="NAME=SIZE", help="sizes not known yet")
    parser.add_argument("--markdown", action="store_true", help="a table, one line a configuration")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what each configuration costs."""
    from espnet2_legonn.recipes.cost_report import fits, markdown, read, text

    costs = {
        conf: read(conf, args.gpus, args.tflops, args.stats, args.lengths, dict(args.vocab)) for conf in args.configs
    }
    if args.markdown:
        print(markdown(costs, args.gpus, args.card), end="")
    else:
        for conf, cost in costs.items():
            print(text(conf, cost, args.gpus, args.card, args.tflops), end="")
    return int(not all(fits(cost, args.card) for cost in costs.values()))
