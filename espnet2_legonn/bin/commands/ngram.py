"""``legonn ngram``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet2_legonn.data.vocabulary import Vocabulary

EPILOG = """TEXT is a table as in dump/raw/SET/text; with --plain, lines without ids, which are not held in memory.
--vocab is a folder with tokens.txt (and bpe.model), or a pack or an experiment: the vocabulary that it writes.
The model is ARPA, the format of KenLM's lmplz and SRILM's ngram-count: theirs, over the same tokens, can be read too.

example: legonn ngram dump/raw/train/text --vocab data/en_token_list/bpe_bpe1000 --order 4 -o exp/ngram/4gram.arpa.gz"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("texts", nargs="+", type=Path, metavar="TEXT", help="what to estimate it from")
    option("--vocab", required=True, metavar="DIR_OR_PACK", help="tokens that it is over")
    option("--unit", default="bpe", choices=["bpe", "char", "word", "phn"], help="of the vocabulary in a folder")
    option("--order", type=int, default=4, help="tokens of the longest n-grams (default: 4)")
    option(
        "--prune", nargs="+", type=int, default=[], metavar="N",
        help="leave out n-grams that occur at most N times, a number for each order from 1, as lmplz (0 0 1)",
    )  # fmt: skip
    option("--plain", action="store_true", help="texts are lines without ids")
    option("-o", "--out", dest="out_file", type=Path, required=True, metavar="ARPA", help="with gzip if it ends in .gz")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Estimate, write, and say how many n-grams there are."""
    from espnet2_legonn.data.arpa import write_arpa
    from espnet2_legonn.data.ngram import estimate

    vocab = _vocabulary(args.vocab, args.unit)
    tree = estimate(_sentences(args.texts, args.plain, vocab), len(vocab), args.order, args.prune)
    write_arpa(args.out_file, tree, vocab)
    grams = ", ".join(f"{size} {n}-grams" for n, size in enumerate(tree.sizes, 1))
    print(f"{args.out_file}: {grams}, {args.out_file.stat().st_size / 1e6:.1f} MB")
    return 0


def _sentences(texts: list[Path], plain: bool, vocab: Vocabulary) -> Iterator[list[int]]:
    from tqdm import tqdm

    from espnet2_legonn.data.text import placed

    for path in texts:
        with tqdm(placed(path, plain=plain), desc=path.name, unit="line", delay=1) as lines:
            yield from (vocab.encode(line) for _, line in lines)


def _vocabulary(source: str, unit: str) -> Vocabulary:
    from espnet2_legonn.data.vocabulary import Vocabulary
    from espnet2_legonn.errors import DataError

    folder = Path(source)
    if (folder / "tokens.txt").is_file():
        return Vocabulary.from_files(folder / "tokens.txt", unit, folder / "bpe.model" if unit == "bpe" else None)
    from espnet2_legonn.inference.legonn import LegoNN

    chain = LegoNN.from_pretrained(source)
    vocab = chain.last.ports[1].vocab
    if vocab is None:
        raise DataError(
            f"{source}: {chain.names[-1]}, its last module, writes no tokens; name a folder with tokens.txt"
        )
    return vocab
