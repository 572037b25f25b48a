"""``legonn vocab``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espnet2_legonn.data.vocabulary import Vocabulary

EPILOG = """DIR gets tokens.txt and, for bpe, bpe.model (which YAML calls tokens and bpemodel). Four ways:
  --train    make one from texts, several of them make one joint vocabulary
  --list     adopt a list as given, with --model: merges of subword-nmt or a sentencepiece model
  --from-hf  take that of a language model: its tokens in our order, and its tokenizer as bpe.model
  neither    DIR holds one already
--on reports how it fits further corpora: OOV rate, units per word and, with inputs, slots per unit at --ratio and the
share of lines that CTC cannot align. Inputs are utt2num_samples (speech) or a text in the vocabulary --source.

example: legonn vocab data/joint_token_list/bpe_bpe41000 --size 41000 --model_type bpe --train \\
           dump/raw/train/text dump/raw/train/src_text --on dump/raw/valid/text,dump/raw/valid/src_text --ratio 2"""


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    option("dir", type=Path, metavar="DIR")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--train", nargs="+", type=Path, metavar="TEXT", help="tables to make it from")
    how.add_argument("--list", type=Path, metavar="FILE", help="units as given, one a line")
    how.add_argument(
        "--from-hf", metavar="NAME[@REVISION]", help="folder or Hub name of a model: a vocabulary for its encoders"
    )
    option("--unit", default="bpe", choices=["bpe", "char", "word", "phn"])
    option("--size", type=int, help="units to make, special ones included (bpe, word)")
    option("--model_type", default="unigram", choices=["unigram", "bpe"], help="how sentencepiece makes them")
    option("--sample", type=int, default=0, metavar="N", help="make them from N random lines (0: all)")
    option(
        "--normalizer", default="identity", choices=["identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"],
        help="what sentencepiece does to texts before it splits them (bpe)",
    )  # fmt: skip
    option("--model", type=Path, metavar="FILE", help="of --list: merges or sentencepiece model")
    option("--on", nargs="+", default=[], metavar="TEXT[,INPUTS]", help="corpora to report on")
    option("--source", type=Path, metavar="DIR", help="vocabulary of text inputs (default: DIR)")
    option("--ratio", default="2", help="slots for each input step, a number or 1/1.5 (default: 2)")
    option("--max_length", type=int, default=1_000_000, help="most slots")
    option("--json", action="store_true", help="the report as JSON")
    parser.epilog = EPILOG
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make or adopt, then report."""
    from espnet2_legonn.data import vocab_report
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.model.description import parse_ratio

    try:
        ratio = parse_ratio(args.ratio)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--ratio {args.ratio}: a positive number or a quotient such as 1/1.5") from None
    _make(args)
    vocab = _load(args.dir, args.unit)
    # A source of its own is BPE: no other unit of source text has a recipe.
    source = _load(args.source, "bpe") if args.source else vocab
    lengths = vocab_report.Lengths(ratio, args.max_length, source)
    corpora = [vocab_report.Text.parse(spec) for spec in args.on]
    corpora += [vocab_report.Text(path) for path in args.train or [] if path not in {c.text for c in corpora}]
    fits = [vocab_report.fit(vocab, corpus, lengths) for corpus in corpora]
    if args.json:
        report = {"unit": vocab.unit, "size": len(vocab), "sha256": vocab.sha256, "ratio": str(ratio)}
        report["normalizer"] = vocab.normalizer
        print(json.dumps({**report, "corpora": [f.as_dict() for f in fits]}, indent=1, ensure_ascii=False))
    else:
        print(vocab_report.render(vocab, fits))
    for warning in (line for f in fits for line in f.warnings()):
        print(warning, file=sys.stderr)
    return 0


def _make(args: argparse.Namespace) -> None:
    from espnet2_legonn.data import given_vocab, hf_vocab, vocab
    from espnet2_legonn.errors import ConfigError

    if args.from_hf:
        if args.unit != "bpe":
            raise ConfigError(f"--from-hf: a model's tokens are of unit bpe, not {args.unit}")
        name, _, revision = args.from_hf.partition("@")
        hf_vocab.write(hf_vocab.of_model(name, revision or None), args.dir)
    elif args.list:
        given_vocab.adopt(args.list, args.dir, args.unit, args.model)
    elif args.train and args.unit == "bpe":
        if args.size is None:
            raise ConfigError("vocab: --train with unit bpe needs --size N")
        options = {"input_sentence_size": args.sample, "normalizer": args.normalizer}
        vocab.make_bpe(args.train, args.size, args.dir, model_type=args.model_type, **options)
    elif args.train and args.unit == "word":
        vocab.make_word(args.train, args.dir, vocab_size=args.size)
    elif args.train:
        (vocab.make_char if args.unit == "char" else vocab.make_phn)(args.train, args.dir)


def _load(folder: Path, unit: str) -> Vocabulary:
    from espnet2_legonn.data.vocabulary import Vocabulary

    return Vocabulary.from_files(folder / "tokens.txt", unit, folder / "bpe.model" if unit == "bpe" else None)
