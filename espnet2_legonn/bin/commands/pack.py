"""``legonn pack``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """example: legonn pack exp/legonn_de_en --about conf/card.yaml"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("exp", type=Path, help="experiment folder (stage 11; scores of stage 13 go into the card)")
    parser.add_argument("-o", "--out", type=Path, help="folder of the packs (default: EXP/packs)")
    parser.add_argument("--about", type=Path, metavar="YAML", help="description, license, training_data, domain, ...")
    parser.add_argument("--name", help="of the pack (default: the experiment's, without legonn_)")
    parser.add_argument("--model", help="weights in EXP (default: the averaged ones)")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the packs; say what a shared one would still lack."""
    from espnet2_legonn.packs.card import read_card
    from espnet2_legonn.recipes.packing import pack_experiment

    folders = pack_experiment(args.exp, args.out or args.exp / "packs", args.about, args.name, args.model)
    for folder in folders:
        card = read_card(folder)
        size = sum(entry.bytes for entry in card.files.values())
        print(f"{folder}  {folder}.zip  {size / 1e6:.1f} MB  {', '.join(m.name for m in card.modules)}")
    if missing := read_card(folders[0]).missing:
        print(f"before sharing, fill in {', '.join(missing)} (--about YAML)")
    print(f"next: legonn info {folders[0]}")
    return 0
