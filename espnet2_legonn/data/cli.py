"""Data preparation, one subcommand per step: `python -m espnet2_legonn.data.cli SUB --help`."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet2_legonn.data import audio, datadir, dirops, filter, format_wav, perturb, phonemes, text, vocab
from espnet2_legonn.errors import DataError, command

PROG = "python -m espnet2_legonn.data.cli"
Command = Callable[[argparse.Namespace], object]
# A complete command line for each subcommand, shown by its --help.
EXAMPLES = {
    "validate": "data/train",
    "fix": "data/train",
    "combine": "data/train_sp data/a data/b",
    "subset": "data/train data/dev --first 4000",
    "copy": "data/a data/b --utt_prefix b- --spk_prefix b-",
    "relabel": "dump/raw/train dump/raw/train_distilled exp/legonn_x/decode/train/text",
    "perturb": "data/train data/train_sp --factors 0.9 1.0 1.1",
    "format": "data/train dump/raw/org/train --fs 16k --nj 8",
    "filter": "dump/raw/org/train dump/raw/train --fs 16k --max_wav_duration 20",
    "vocab": "data/en_token_list/bpe_unigram2000 dump/raw/train/text --unit bpe --vocab_size 2000",
    "phonemes": "data/train --backend auto --lexicon cmudict.txt --strip_stress",
    "normalize": "--case lc.rm --input data/train/text.tc.en --output data/train/text",
}


def _validate(args: argparse.Namespace) -> str:
    fs = audio.parse_fs(args.fs) if args.fs else None
    count = datadir.validate(
        args.dir,
        text=not args.no_text,
        wav=not args.no_wav,
        spk_sort=not args.no_spk_sort,
        allow_empty_text=args.allow_empty_text,
        durations=functools.partial(audio.seconds, fs=fs) if args.audio or fs else None,
    )
    return f"{args.dir}: valid, {count} utterances"


def _fix(args: argparse.Namespace) -> str:
    return f"{args.dir}: {datadir.fix(args.dir, allow_empty_text=args.allow_empty_text)}"


def _combine(args: argparse.Namespace) -> str:
    return "\n".join(dirops.combine(args.sources, args.dest))


def _subset(args: argparse.Namespace) -> str:
    # argparse has seen to it that exactly one is given.
    ways: tuple[dirops.How, ...] = ("first", "last", "speakers", "utt_list", "spk_list")
    how, value = next((way, getattr(args, way)) for way in ways if getattr(args, way) is not None)
    return f"{dirops.subset(args.source, args.dest, how, value)} utterances in {args.dest}"


def _copy(args: argparse.Namespace) -> str:
    prefixes = {"utt_prefix": args.utt_prefix, "spk_prefix": args.spk_prefix}
    count = dirops.copy(args.source, args.dest, **prefixes, pair=args.pair)
    return f"{count} utterances in {args.dest}"


def _relabel(args: argparse.Namespace) -> str:
    return f"{dirops.relabel(args.source, args.dest, args.text)} utterances in {args.dest}"


def _perturb(args: argparse.Namespace) -> str:
    return f"{perturb.perturb(args.source, args.dest, args.factors)} utterances in {args.dest}"


def _format(args: argparse.Namespace) -> object:
    options = format_wav.Options(audio.parse_fs(args.fs) if args.fs else None, args.audio_format, args.mono)
    return format_wav.format_wav(args.source, args.dest, options, nj=args.nj, skip_bad=args.skip_bad)


def _filter(args: argparse.Namespace) -> object:
    limits = filter.Limits(
        audio.parse_fs(args.fs) if args.fs else None,
        args.min_wav_duration,
        args.max_wav_duration,
        args.min_tokens,
        args.max_tokens,
        args.max_ratio,
        tuple(args.pair) if args.pair else None,
    )
    length = filter.pieces(args.bpemodel) if args.bpemodel else filter.words
    return filter.filter_dir(args.source, args.dest, limits, texts=args.texts, length=length)


def _vocab(args: argparse.Namespace) -> object:
    common = {"plain": args.plain, "extra": args.report_on, "user_defined_symbols": args.user_defined_symbols}
    if args.unit == "bpe":
        if args.vocab_size is None:
            raise DataError("vocab: unit bpe needs --vocab_size N")
        return vocab.make_bpe(
            args.texts,
            args.vocab_size,
            args.out_dir,
            model_type=args.model_type,
            character_coverage=args.character_coverage,
            input_sentence_size=args.input_sentence_size,
            normalizer=args.normalizer,
            **common,
        )
    if args.unit == "word":
        return vocab.make_word(args.texts, args.out_dir, vocab_size=args.vocab_size, **common)
    make = vocab.make_char if args.unit == "char" else vocab.make_phn
    return make(args.texts, args.out_dir, **common)


def _phonemes(args: argparse.Namespace) -> object:
    # The table that is to be replaced may be of an earlier state of the directory.
    datadir.DataDir(args.dir).tables(args.input, without=(args.output,))
    backend = phonemes.make_backend(args.backend, args.lexicon)
    boundary = None if args.word_boundary == "none" else args.word_boundary
    phonemizer = phonemes.Phonemizer(backend, strip_stress=args.strip_stress, word_boundary=boundary)
    return phonemes.phonemize_table(args.dir / args.input, args.dir / args.output, phonemizer)


def _normalize(args: argparse.Namespace) -> str:
    if args.plain:
        lines, empty = text.normalize_lines(args.input, args.output, args.case)
    else:
        lines, ids = text.normalize_table(args.input, args.output, args.case)
        empty = len(ids)
    return f"{args.output}: {lines} lines, {empty} of them empty after {args.case}"


def _add(subs: argparse._SubParsersAction, name: str, run: Command, summary: str) -> argparse.ArgumentParser:
    parser = subs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {PROG} {name} {EXAMPLES[name]}",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_directories(subs: argparse._SubParsersAction) -> None:
    p = _add(subs, "validate", _validate, "Check a data directory; every fault with file and line.")
    p.add_argument("dir", type=Path)
    p.add_argument("--no_text", action="store_true", help="no transcript is needed")
    p.add_argument("--no_wav", action="store_true", help="no wav.scp (or source text) is needed")
    p.add_argument("--no_spk_sort", action="store_true", help="speakers may sort differently from utterances")
    p.add_argument("--allow_empty_text", action="store_true", help="utterances may have no words")
    p.add_argument("--audio", action="store_true", help="open the audio files: missing, cut short, segments beyond")
    p.add_argument("--fs", help="with --audio: files of this rate with one channel, ready for a model, e.g. 16k")
    p = _add(subs, "fix", _fix, "Sort, drop faulty lines, keep utterances all tables have; old files in .backup.")
    p.add_argument("dir", type=Path)
    p.add_argument("--allow_empty_text", action="store_true", help="keep utterances without words")
    p = _add(subs, "combine", _combine, "Merge data directories with different utterances.")
    p.add_argument("dest", type=Path)
    p.add_argument("sources", type=Path, nargs="+")
    p = _add(subs, "subset", _subset, "Copy a part of a data directory.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument("--first", type=int, metavar="N", help="the first N utterances")
    how.add_argument("--last", type=int, metavar="N", help="the last N utterances")
    how.add_argument("--speakers", type=int, metavar="N", help="whole speakers until there are N utterances")
    how.add_argument("--utt_list", type=Path, metavar="FILE", help="utterances listed in FILE")
    how.add_argument("--spk_list", type=Path, metavar="FILE", help="utterances of the speakers listed in FILE")
    p = _add(subs, "copy", _copy, "Copy a data directory, prefixing ids.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    p.add_argument("--utt_prefix", default="", help="for utterances and recordings")
    p.add_argument("--spk_prefix", default="", help="for speakers")
    p.add_argument(
        "--pair", nargs=2, metavar=("SRC", "TGT"), help="texts that become src_text and text: text.tc.de text.tc.en"
    )
    p = _add(subs, "relabel", _relabel, "Copy a data directory with another text: the answers of a teacher.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    p.add_argument("text", type=Path, help="a text for each utterance; those without words are left out")


def _add_audio(subs: argparse._SubParsersAction) -> None:
    p = _add(subs, "perturb", _perturb, "Stage 2: copies at other speeds, made when formatting.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    p.add_argument("--factors", nargs="+", default=["0.9", "1.0", "1.1"], help="speeds (default: 0.9 1.0 1.1)")
    p = _add(subs, "format", _format, "Stage 3: cut, resample and write one file per utterance; resumes.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    p.add_argument("--fs", help="resample to this rate, e.g. 16000 or 16k (default: all must have one rate)")
    p.add_argument("--audio_format", default="flac", choices=list(format_wav.FORMATS))
    p.add_argument(
        "--mono",
        "--channel",
        metavar="mean|N",
        help="of several channels: mean, or a channel number (default: an error)",
    )
    p.add_argument("--nj", type=int, default=1, help="processes (default: 1)")
    p.add_argument(
        "--skip_bad",
        action="store_true",
        help="leave out utterances with faulty audio, list them in dropped.txt",
    )
    p = _add(subs, "filter", _filter, "Stage 4: drop by duration, length, length ratio, empty text.")
    p.add_argument("source", type=Path)
    p.add_argument("dest", type=Path)
    p.add_argument("--fs", help="sampling rate of utt2num_samples, e.g. 16k")
    p.add_argument("--min_wav_duration", type=float, metavar="SECONDS")
    p.add_argument("--max_wav_duration", type=float, metavar="SECONDS")
    p.add_argument("--min_tokens", type=int, help="of every text (words, or pieces with --bpemodel)")
    p.add_argument("--max_tokens", type=int, help="of every text (the paper's translation data: 250)")
    p.add_argument("--max_ratio", type=float, help="longer / shorter side (the paper: 1.5)")
    p.add_argument("--pair", nargs=2, metavar=("SRC", "TGT"), help="tables of the ratio (default: src_text text)")
    p.add_argument("--texts", nargs="+", metavar="NAME", help="text tables to check (default: all)")
    p.add_argument("--bpemodel", type=Path, help="count its pieces instead of words")


def _add_text(subs: argparse._SubParsersAction) -> None:
    p = _add(subs, "vocab", _vocab, "Stage 5: tokens.txt (and bpe.model) from one or several texts.")
    p.add_argument("out_dir", type=Path)
    p.add_argument("texts", type=Path, nargs="+", help="several files make one joint vocabulary")
    p.add_argument("--unit", required=True, choices=["bpe", "char", "word", "phn"])
    p.add_argument("--vocab_size", type=int, help="special tokens included (bpe, word)")
    p.add_argument("--model_type", default="unigram", choices=["unigram", "bpe"])
    p.add_argument("--character_coverage", type=float, default=1.0)
    p.add_argument("--user_defined_symbols", nargs="+", default=[], metavar="SYMBOL")
    p.add_argument(
        "--input_sentence_size", type=int, default=0, help="train on a sample of so many lines (default: all)"
    )
    p.add_argument("--normalizer", default="identity", choices=vocab.NORMALIZERS, help="of sentencepiece (bpe)")
    p.add_argument("--plain", action="store_true", help="texts have no utterance ids")
    p.add_argument(
        "--report_on",
        type=Path,
        nargs="+",
        default=[],
        metavar="TEXT",
        help="further texts to measure coverage on",
    )
    p = _add(subs, "phonemes", _phonemes, "Write text_phn from text, without ever downloading.")
    p.add_argument("dir", type=Path)
    p.add_argument("--input", default="text", help="table of the directory to read (default: text)")
    p.add_argument("--output", default="text_phn", help="table to write (default: text_phn)")
    p.add_argument("--backend", default="auto", choices=list(phonemes.BACKENDS))
    p.add_argument("--lexicon", type=Path, help="word and phonemes per line")
    p.add_argument("--strip_stress", action="store_true", help="AH0 -> AH")
    p.add_argument("--word_boundary", default="none", help="symbol between words, e.g. '<wb>' (default: none)")
    p = _add(subs, "normalize", _normalize, "Apply a named text normalisation.")
    p.add_argument("--case", required=True, choices=list(text.NORMALIZATIONS))
    p.add_argument("--input", type=Path, required=True)
    p.add_argument("--output", type=Path, required=True, help="may be the input")
    p.add_argument("--plain", action="store_true", help="lines have no utterance ids; empty lines stay, for alignment")


def get_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__, allow_abbrev=False)
    subs = parser.add_subparsers(required=True, metavar="SUB")
    for add in (_add_directories, _add_audio, _add_text):
        add(subs)
    return parser


def _underscores(argument: str) -> str:
    """`--foo-bar=x-y` -> `--foo_bar=x-y`: both spellings are accepted, as in ESPnet's scripts."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 when it succeeded, 2 with the faults on stderr when the data are at fault."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    args = get_parser().parse_args([_underscores(a) for a in (sys.argv[1:] if argv is None else argv)])
    print(args.run(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
