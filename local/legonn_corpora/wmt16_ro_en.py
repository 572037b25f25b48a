"""WMT16 Ro-En as prepared by Lee et al. 2018 (paper ref. [31]): tokenised, lower-cased, in BPE of its own.

``{corpus,dev,test}.bpe.{ro,en}``. The BPE is undone, since the paper makes one joint vocabulary of 41,000 units for
Ro-En and De-En. Otherwise text stays as it is, Romanian letters too. Ratio 1.5, at most 80 tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from espnet2_legonn.errors import command
from legonn_corpora.parallel import catalogue, pick, read_test
from legonn_corpora.prepare import Published, Recipe, expected, parser, run, together, write_test, write_training
from legonn_corpora.treatment import Treatment

SETS = {"dev": "newsdev2016", "test": "newstest2016"}
PUBLISHED = {
    "wmt16": Published(608_319),
    "newsdev2016": Published(1999),
    "newstest2016": Published(1999),
}


def prepare(args: argparse.Namespace) -> None:
    """Write ``train_ro_en``, ``newsdev2016`` and ``newstest2016``."""
    files = catalogue(args.corpus)
    published = expected(args.expect, PUBLISHED, ("all",))
    ways = {name: [(f"{file}.bpe.ro", f"{file}.bpe.en", False)] for file, name in SETS.items()}
    *tests, corpora = together(
        *(partial(read_test, files, name, way, args.corpus) for name, way in ways.items()),
        partial(pick, files, {"wmt16": [("corpus.bpe.ro", "corpus.bpe.en")]}, args.corpus),
    )
    source, target = Treatment("undone", "ro"), Treatment("undone", "en")
    for test in tests:
        write_test(test, source, target, args.out / test.name, published.get(test.name))
    recipe = Recipe(source, target, args.max_ratio, args.max_tokens, args.nj)
    write_training(corpora, recipe, args.out / "train_ro_en", published, args.skip_malformed)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return run(prepare, parser(__doc__, 1.5, 80).parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
