"""WMT En-De, 4.5 M pairs (paper IV-B, Tables I and VII to X): the scaling-NMT preparation as given, or from raw text.

given  ``train.tok.clean.bpe.32000.{en,de}``, ``newstest20XX.tok.bpe.32000.{en,de}``: Moses tokens in shared BPE of
       32,000 merges (``bpe.32000``, ``vocab.bpe.32000``). ``--bpe undone`` (default) writes the tokens, and the recipe
       uses merges and list as given, which splits them the same way again. ``--bpe kept`` writes the pieces.
raw    Europarl v7, Common Crawl, News Commentary: normalised, tokenised with split hyphens, cased.

Lengths are those of what is written before BPE is undone: the paper's 250 are units of the given BPE.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from espnet2_legonn.data.tables import atomic_path
from espnet2_legonn.errors import DataError, command
from legonn_corpora.parallel import EvalSet, File, Pair, catalogue, pick, read_test, sgm_names
from legonn_corpora.prepare import Published, Recipe, expected, parser, run, together, write_test, write_training
from legonn_corpora.treatment import Treatment

GIVEN = "train.tok.clean.bpe.32000"
VOCABULARY = ("vocab.bpe.32000", "bpe.32000")  # units and merges
RAW: Mapping[str, Sequence[Sequence[str]]] = {
    "commoncrawl": [("commoncrawl.de-en.en", "commoncrawl.de-en.de")],
    "europarl-v7": [("europarl-v7.de-en.en", "europarl-v7.de-en.de")],
    "news-commentary": [(f"news-commentary-v{v}.de-en.en", f"news-commentary-v{v}.de-en.de") for v in (9, 12, 11)],
}
VALID = "newstest2013"
TESTS = ("newstest2011", "newstest2012", "newstest2014", "newstest2015", "newstest2016")
PUBLISHED = {
    "all": Published(4_500_000, 0.03),  # the paper's figure is rounded
    "newstest2011": Published(3003),
    "newstest2012": Published(3003),
    "newstest2013": Published(3000),
    "newstest2014": Published(3003),  # the full set, as in the paper's signature (wmt14/full)
    "newstest2015": Published(2169),
    "newstest2016": Published(2999),
}


@dataclass(frozen=True)
class GivenBPE(Recipe):
    """Lengths and ratio in the units of the given BPE, whether it is undone afterwards or not."""

    def __call__(self, pair: Pair) -> tuple[Pair, str | None]:
        kept = Recipe(Treatment("kept", "en"), Treatment("kept", "de"), self.max_ratio, self.max_tokens)
        units, reason = kept(pair)
        return Pair(pair.corpus, pair.key, self.source(units.source), self.target(units.target)), reason


def tests_of(files: Mapping[str, File], names: Sequence[str], folder: Path, pieces: bool) -> list[EvalSet]:
    """Validation and test sets. The given pieces are preferred, then given tokens, then SGML or plain raw text.

    Args:
        pieces: only the given pieces will do.

    Raises:
        DataError: sets that are missing or damaged, all of them.
    """
    readers = []
    for name in names:
        ways = [(f"{name}.tok.bpe.32000.en", f"{name}.tok.bpe.32000.de", False)]
        if not pieces:
            ways.append((f"{name}.tok.en", f"{name}.tok.de", False))
            ways += [(s, t, True) for s, t in sgm_names(name, "en", "de")]
        readers.append(partial(read_test, files, name, ways, folder))
    return together(*readers)


def raw_references(files: Mapping[str, File], test: EvalSet, folder: Path) -> EvalSet | None:
    """The same set as raw text, if its SGML is there too: references of detokenised BLEU (Table VII).

    Raises:
        DataError: it has another number of segments.
    """
    if test.raw:
        return test
    ways = [(s, t, True) for s, t in sgm_names(test.name, "en", "de") if s in files and t in files]
    if not ways:
        return None
    raw = read_test(files, test.name, ways, folder)
    if len(raw.target) != len(test.target):
        raise DataError(f"{raw.files[1]}: {len(raw.target)} segments, {test.files[1]} has {len(test.target)}")
    return raw


def splits_hyphens(file: File) -> bool:
    """Whether a tokenised text was made with ``tokenizer.perl -a``: raw test sets are treated the same way."""
    with file.open() as stream:
        return any(b" @-@ " in line for line in islice(stream, 100_000))


def copy_vocabulary(files: Mapping[str, File], corpus: Path, folder: Path) -> None:
    """The given units and merges beside the data, for stage 5.

    Raises:
        DataError: one of them is missing.
    """
    missing = [name for name in VOCABULARY if name not in files]
    if missing:
        raise DataError(f"{corpus}: {name} is missing; the text's units are no use without it" for name in missing)
    for name in VOCABULARY:
        with files[name].open() as stream, atomic_path(folder / name) as temporary:
            temporary.write_bytes(stream.read())


def prepare(args: argparse.Namespace) -> None:
    """Write ``train_en_de``, ``newstest2013`` and the test sets."""
    files = catalogue(args.corpus)
    published = expected(args.expect, PUBLISHED, ("wmt14", *RAW, *args.tests))
    given = args.preparation == "given"
    corpora = pick(files, {"wmt14": [(f"{GIVEN}.en", f"{GIVEN}.de")]} if given else RAW, args.corpus)
    tests = tests_of(files, (VALID, *args.tests), args.corpus, given and args.bpe == "kept")
    if given:
        copy_vocabulary(files, args.corpus, args.out / "given")
    raws = [raw_references(files, test, args.corpus) for test in tests]
    hyphens = splits_hyphens(corpora[0].files[0]) if given else True
    for test, raw in zip(tests, raws):
        name = "tc.tok" if test.raw else args.bpe if given else "undone"
        sides = Treatment(name, "en", hyphens), Treatment(name, "de", hyphens)
        write_test(test, *sides, args.out / test.name, published.get(test.name), raw.target if raw else None)
    name = args.bpe if given else "tc.tok"
    source, target = Treatment(name, "en"), Treatment(name, "de")
    recipe = (GivenBPE if given else Recipe)(source, target, args.max_ratio, args.max_tokens, args.nj)
    write_training(corpora, recipe, args.out / "train_en_de", published, args.skip_malformed)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = parser(__doc__, 1.5, 250)
    made.add_argument("--preparation", choices=("given", "raw"), default="given", help="see above (default: given)")
    made.add_argument("--bpe", choices=("undone", "kept"), default="undone", help="of the given text")
    made.add_argument("--tests", nargs="+", default=list(TESTS), help="test sets (default: the paper's)")
    return run(prepare, made.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
