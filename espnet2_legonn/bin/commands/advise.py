"""``legonn advise``."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """A is an encoder (a decoder at its end is left out), B a chain whose decoder could finish it. On a hundred
examples of A's task: the encoder alone, the plug by the decoder alone (the paper's search), the plug with joint search.
With --ngram_file also the encoder with this model and the plug with this model, and the plug must beat the better of
the encoder alone and the encoder with the model. The search's weights are chosen on one half and judged on the other.
Then: plug, leave the encoder alone, or undecided, and what else could help: another number of slots a token, a decoder
that collapses them, a warm start from B's encoder.

example: legonn advise exp/legonn_fr exp/legonn_de_en --data dump/raw/valid_fr --metric bleu --ngram_file en.arpa.gz"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("encoder", metavar="A", help="a pack or an experiment")
    option("donor", metavar="B", help="a pack or an experiment that ends in a decoder")
    option("--data", type=Path, required=True, metavar="DIR", help="a data directory with references; not a test set")
    option("--metric", default="wer", help="wer, cer, bleu, ... (default: wer)")
    option("--limit", type=int, default=100, metavar="N", help="N examples spread over the set (default: 100)")
    option("--beam_size", type=int, default=4, help="of the searches (default: 4)")
    option("--ngram_file", type=Path, metavar="ARPA", help="an n-gram model over A's tokens (legonn ngram), a control")
    option("--device", default="cpu")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the advice."""
    import warnings

    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.studies.advise import advise

    encoder, donor = (LegoNN.from_pretrained(path, device=args.device) for path in (args.encoder, args.donor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the joint: the advice says it, with the remedy
        given = (args.data, args.metric, args.limit, args.beam_size, args.ngram_file)
        print(advise(encoder, donor, *given).as_text())
    return 0
