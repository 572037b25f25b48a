"""What legonn.sh calls for stages 6-13: ``python -m espnet2_legonn.bin.legonn_stage STAGE --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet2_legonn.errors import DataError, LegoNNError, command


def _stats(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes import stages

    for line in stages.stats(args.config, args.train, args.valid, args.out, args.cmd, args.nj, extra):
        print(line)


def _train(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes import stages

    if args.pretrained_model:
        from espnet2_legonn.recipes.train_options import pretrained

        chain = stages.chain_config(args.config)
        extra = [*pretrained(chain, args.pretrained_model, args.ignore_init_mismatch == "true"), *extra]
    dirs = (args.config, args.train, args.valid, args.stats_dir, args.out)
    stages.train(*dirs, args.cmd, args.ngpu, args.num_nodes, extra, args.num_splits)


def _clean(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes.clean import clean_dir

    if extra:
        raise LegoNNError(f"clean: unknown options {' '.join(extra)}")
    for table, changed in clean_dir(args.data, args.cleaner).items():
        print(f"{args.data / table}: {changed} lines changed by {args.cleaner}")


def _lm(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes import lm

    if args.step == "perplexity":
        out = args.out / f"perplexity_{args.valid.parent.name}"
        value = lm.lm_perplexity(args.out, args.weights, args.valid, out, args.cmd, args.ngpu)
        print(f"{args.valid}: perplexity {value:.2f}")
        return
    texts = (args.config, args.vocab, args.unit, args.train, args.valid, args.stats_dir)
    if args.step == "stats":
        lm.lm_stats(*texts, args.cmd, extra)
    else:
        lm.lm_train(*texts, args.out, args.cmd, args.ngpu, extra)


def _decode(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes import stages

    stages.decode(args.exp, args.model, args.data, args.out, args.cmd, args.nj, args.ngpu, extra)


def _tune(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.recipes import stages

    if extra:
        raise LegoNNError(f"tune: unknown options {' '.join(extra)}")
    models = {"lm_file": args.lm_file, "ngram_file": args.ngram_file}
    print(stages.tune_search(args.exp, args.model, args.data, args.metric, args.beam_size, args.limit, models))


def _vote(args: argparse.Namespace, extra: list[str]) -> None:
    import json

    from espnet2_legonn.inference.compose import join, pick
    from espnet2_legonn.recipes.vote import vote_on
    from espnet2_legonn.scoring.tables import write_report

    if extra:
        raise LegoNNError(f"vote: unknown options {' '.join(extra)}")
    if len(args.encoders) != len(args.data):
        raise LegoNNError(f"vote: {len(args.encoders)} encoders for {len(args.data)} data directories")
    first, *others = (pick(spec) for spec in args.encoders)
    chain, _ = join([first, pick(args.decoder)])
    sizes = (args.metric, args.beam_size, args.limit)
    found, table = vote_on(chain.eval(), [other.chain.eval() for other in others], args.data, *sizes)
    about = f"{args.data[0].name}: tuned on the first half, told of the second; beam {args.beam_size}\n\n{table}"
    write_report(args.out, about, json.loads(json.dumps(found)))
    print(about)


def _score(args: argparse.Namespace, extra: list[str]) -> None:
    from espnet2_legonn.data.text import plain_lines
    from espnet2_legonn.recipes import stages

    if extra:
        raise LegoNNError(f"score: unknown options {' '.join(extra)}")
    symbols = [] if str(args.nlsyms) == "none" else list(filter(None, map(str.strip, plain_lines(args.nlsyms))))
    found = stages.score(args.exp, args.data, args.decoded, args.metrics, symbols, args.score_opts)
    if not found:
        raise DataError(f"{args.decoded}: no text there that {args.data} has a reference of; decode it (stage 12)")
    for module, metric, value in found:
        print(f"{args.data.name}: {module or 'final output'}: {metric.upper()} {value:.2f}")


def get_parser() -> argparse.ArgumentParser:
    """One subcommand for each stage; unknown options go on to training or decoding."""
    parser = argparse.ArgumentParser(description=__doc__)
    subs = parser.add_subparsers(required=True, metavar="STAGE")

    def add(name: str, run: Callable[[argparse.Namespace, list[str]], None], *paths: str) -> argparse.ArgumentParser:
        sub = subs.add_parser(name, allow_abbrev=False)
        for path in paths:
            sub.add_argument(f"--{path}", type=Path, required=True)
        sub.set_defaults(run=run)
        return sub

    jobs = [add("stats", _stats, "config", "train", "valid", "out")]
    jobs.append(add("train", _train, "config", "train", "valid", "stats_dir", "out"))
    jobs[-1].add_argument("--num_nodes", type=int, default=1)
    jobs[-1].add_argument("--num_splits", type=int, default=1, help="read the training set in so many parts")
    jobs[-1].add_argument("--pretrained_model", help="weights to begin with: an experiment, a pack, or FILE.pth")
    jobs[-1].add_argument("--ignore_init_mismatch", choices=["true", "false"], default="false", help="of FILE.pth")
    jobs.append(add("lm", _lm, "config", "vocab", "train", "valid", "stats_dir", "out"))
    jobs[-1].add_argument("--step", choices=["stats", "train", "perplexity"], required=True)
    jobs[-1].add_argument("--unit", default="bpe")
    jobs[-1].add_argument("--weights", default="valid.loss.ave.pth", help="whose perplexity of --valid is told")
    jobs.append(add("decode", _decode, "exp", "data", "out"))
    jobs[-1].add_argument("--model", help="weights in the experiment folder")
    for sub in jobs:
        sub.add_argument("--cmd", default="run.pl")
        sub.add_argument("--nj", type=int, default=1)
        sub.add_argument("--ngpu", type=int, default=0)
    tuning = add("tune", _tune, "exp", "data")
    tuning.add_argument("--model", help="weights in the experiment folder")
    tuning.add_argument("--metric", default="wer", help="what is made best, as in stage 13")
    tuning.add_argument("--lm_file", help="a language model of ESPnet's that searches, too, its config.yaml beside it")
    tuning.add_argument("--ngram_file", help="an ARPA file that searches, too")
    tuning.add_argument("--beam_size", type=int, default=5)
    tuning.add_argument("--limit", type=int, default=0, help="N utterances spread over the set (0: all)")
    voting = add("vote", _vote, "out")
    voting.add_argument("--encoders", nargs="+", required=True, help="PACK#MODULE of each; the first feeds the decoder")
    voting.add_argument("--decoder", required=True, help="PACK#MODULE")
    voting.add_argument("--data", nargs="+", type=Path, required=True, help="a directory for each, of the same texts")
    voting.add_argument("--metric", default="bleu")
    voting.add_argument("--beam_size", type=int, default=5)
    voting.add_argument("--limit", type=int, default=0, help="the first N utterances only (0: all)")
    scoring = add("score", _score, "exp", "data", "decoded")
    scoring.add_argument("--metrics", nargs="+", default=["wer"])
    scoring.add_argument("--nlsyms", type=Path, default=Path("none"), help="symbols that error rates leave out")
    scoring.add_argument("--score_opts", default="", help="options of sclite")
    add("clean", _clean, "data").add_argument("--cleaner", required=True, help="tc, lc, lc.rm, or one of ESPnet's")
    return parser


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Run one stage; faults of the user are printed without a traceback."""
    args, extra = get_parser().parse_known_args(cmd)
    _require(args)
    args.run(args, extra)


def _require(args: argparse.Namespace) -> None:
    """What is mistyped is said before seconds go into loading what would read it.

    Raises:
        DataError: files and folders that are not there.
    """
    from espnet2_legonn.packs.names import CONFIG

    given = {name: path for name, path in vars(args).items() if isinstance(path, Path)}
    texts = ("train", "valid") if args.run is _lm else ()  # a language model reads files, all others data directories
    wanted = [name for name in ("config", "exp", *texts) if name in given]
    files = [given[name] / CONFIG if name == "exp" else given[name] for name in wanted]
    faults = [f"{path}: no such file" for path in files if not path.is_file()]
    folders = [given[name] for name in ("train", "valid", "data", "decoded") if name in given and name not in texts]
    faults += [f"{path}: no such data directory" for path in folders if not path.is_dir()]
    if faults:
        raise DataError(faults)


if __name__ == "__main__":
    sys.exit(main())
