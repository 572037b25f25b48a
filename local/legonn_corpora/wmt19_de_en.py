"""WMT19 De-En without ParaCrawl, 7.4 M pairs (paper, appendices A-A and A-B): two text treatments from one download.

lc.tok  beside Romanian: lower-cased Moses tokens, ratio 1.5, at most 80 tokens         -> data/train_lc_tok, ...
lc.rm   beside speech: lower-cased, without punctuation, ratio 1.5, at most 250 tokens  -> data/train_lc_rm, ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from espnet2_legonn.errors import command
from legonn_corpora.download import Archive, fetch
from legonn_corpora.parallel import catalogue, pick, read_test, sgm_names
from legonn_corpora.prepare import Published, Recipe, expected, parser, run, together, write_test, write_training
from legonn_corpora.treatment import Treatment

CORPORA: Mapping[str, Sequence[Sequence[str]]] = {
    "commoncrawl": [("commoncrawl.de-en.de", "commoncrawl.de-en.en")],
    "europarl-v9": [("europarl-v9.de-en.tsv",)],
    "news-commentary-v14": [("news-commentary-v14.de-en.tsv",)],
    "rapid2019": [("rapid2019.de-en.de", "rapid2019.de-en.en")],
    "wikititles-v1": [("wikititles-v1.de-en.tsv",)],
}
RESEARCH = "for research, under the terms of each corpus"
DATA = "https://data.statmt.org"
# As sacreBLEU has them. Of the training corpora nobody published any.
MD5 = {"dev": "f2ec7af5947c19e0cacb3882eb208002", "test": "84de7162d158e28403103b01aeefc39a"}
SOURCES = (
    Archive("https://www.statmt.org/europarl/v9/training/europarl-v9.de-en.tsv.gz", 0.5, RESEARCH, ""),
    Archive(f"{DATA}/news-commentary/v14/training/news-commentary-v14.de-en.tsv.gz", 0.2, RESEARCH, ""),
    Archive(f"{DATA}/wikititles/v1/wikititles-v1.de-en.tsv.gz", 0.2, RESEARCH, ""),
    Archive("https://www.statmt.org/wmt13/training-parallel-commoncrawl.tgz", 1, RESEARCH, "commoncrawl", bare=True),
    Archive("https://s3-eu-west-1.amazonaws.com/tilde-model/rapid2019.de-en.zip", 0.5, RESEARCH, ""),
    Archive(f"{DATA}/wmt19/translation-task/dev.tgz", 0.2, RESEARCH, "wmt19-dev", None, True, MD5["dev"]),
    Archive(f"{DATA}/wmt19/translation-task/test.tgz", 0.2, RESEARCH, "wmt19-test", None, True, MD5["test"]),
)
PUBLISHED = {
    "all": Published(7_400_000, 0.03),  # the paper's figure is rounded
    "newstest2018": Published(2998),
    "newstest2019": Published(2000),
}
# The paper gives 80 for lc.tok. For lc.rm it gives none, so that of section IV-B stands in.
MAX_TOKENS = {"lc.tok": 80, "lc.rm": 250}


def prepare(args: argparse.Namespace) -> None:
    """Write train, validation and test sets of each treatment."""
    for archive in SOURCES if args.download else ():
        print(f"download: {archive}")
        fetch(archive, args.corpus)
    files = catalogue(args.corpus)
    published = expected(args.expect, PUBLISHED, CORPORA)
    ways = {name: [(s, t, True) for s, t in sgm_names(name, "de", "en")] for name in (args.valid, args.test)}
    *tests, corpora = together(
        *(partial(read_test, files, name, way, args.corpus) for name, way in ways.items()),
        partial(pick, files, CORPORA, args.corpus),
    )
    for name in args.treatment:
        tag = name.replace(".", "_")
        hyphens = args.hyphens == "split"
        source, target = Treatment(name, "de", hyphens), Treatment(name, "en", hyphens)
        for test in tests:
            write_test(test, source, target, args.out / f"{test.name}_{tag}", published.get(test.name))
        recipe = Recipe(source, target, args.max_ratio, args.max_tokens or MAX_TOKENS[name], args.nj)
        write_training(corpora, recipe, args.out / f"train_{tag}", published, args.skip_malformed)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = parser(__doc__, 1.5, 80)
    made.set_defaults(max_tokens=None)  # each treatment has its own
    add = made.add_argument
    add("--download", action="store_true", help="get what is missing first, about 3 GB; an interrupted one goes on")
    add("--treatment", nargs="+", choices=list(MAX_TOKENS), default=list(MAX_TOKENS), help="default: both")
    add("--valid", default="newstest2018", help="validation set; the paper does not name it")
    add("--test", default="newstest2019", help="test set; the paper does not name it")
    add("--hyphens", choices=("split", "keep"), default="split", help="tokenizer.perl with -a or without (lc.tok)")
    return run(prepare, made.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
