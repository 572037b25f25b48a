"""``legonn inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet2_legonn.inference.legonn import LegoNN

EPILOG = """INPUT is a text or a file, whatever the first module reads. With --data it is the id of an utterance there,
and the page has its reference. The page is one file without links: the input, each interface as a heat map, the
attention of each length controller, what each module says by itself, and the best answers with what each scorer says
of them.

example: legonn inspect exp/legonn_fr_plugged "deux hommes jouent au foot" -o page.html
         legonn inspect exp/legonn_fr_plugged test2016-00007 --data dump/raw/test_fr -o page.html"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("chain", metavar="CHAIN", help="a pack or an experiment")
    option("input", metavar="INPUT", help="a text, a file, or with --data an utterance")
    option("--data", type=Path, metavar="DIR", help="a data directory")
    option("--beam_size", type=int, default=5, help="of the search (default: 5)")
    option("--ctc_weight", type=float, help="of the search (default: tuned for the chain, or 0.4)")
    option("--length_penalty", type=float, help="of the search (default: tuned for the chain, or 1)")
    option("--device", default="cpu")
    option("-o", "--out", dest="out_file", type=Path, required=True, metavar="HTML", help="the page")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.scoring.tables import write_atomic
    from espnet2_legonn.search.options import BeamOptions
    from espnet2_legonn.studies.inspect import inspect, render

    chain = LegoNN.from_pretrained(args.chain, device=args.device)
    given, words, reference = args.input, args.input, None
    if args.data is not None:
        given, words, reference = utterance(chain, args.data, args.input)
    options = BeamOptions(args.beam_size, args.length_penalty, nbest=args.beam_size, ctc_weight=args.ctc_weight)
    found = inspect(chain, given, options, reference, words)
    write_atomic(args.out_file, render(found, " -> ".join(chain.names)))
    print(f"{found.answer.text}\n{args.out_file}")
    return 0


def utterance(chain: LegoNN, data: Path, uid: str) -> tuple[Any, str, str | None]:
    """What a chain reads of an utterance of a data directory, how to call it, and its reference.

    Raises:
        DataError: there is no such utterance, it has no words, or it cannot be read.
    """
    from espnet2_legonn.data.tables import read_table
    from espnet2_legonn.errors import DataError
    from espnet2_legonn.inference.decode import read_inputs, source_of

    source = source_of(chain, data)
    value = read_inputs(source, [uid])[uid]
    if chain.first.input.measure(value) is None:
        raise DataError(f"{source}: {uid} has no words; choose another utterance")
    text = data / "text"
    reference = read_table(text).get(uid) if text.is_file() else None
    words = value if chain.input_kind == "tokens" else uid
    return chain.first.input.fetch(value, None), words, reference
