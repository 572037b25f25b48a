"""Scores text tables, compares two systems, and writes RESULTS.md. Needs neither torch nor espnet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2_legonn.errors import command
from espnet2_legonn.scoring.metrics import METRICS

if TYPE_CHECKING:
    from espnet2_legonn.scoring.bleu import BleuReport
    from espnet2_legonn.scoring.wer import ErrorReport

EXAMPLES = """examples:
  legonn_score score --metric wer --ref data/test/text --hyp exp/x/dec/test/text --outdir exp/x/score_wer
  legonn_score score --metric bleu --ref ref.0 ref.1 --hyp hyp --lowercase --outdir exp/x/score_bleu_lc
  legonn_score compare --metric bleu --ref ref --hyp a --hyp_b b --margin 0.5 --outdir exp/compare_a_b
  legonn_score results exp/legonn_a exp/legonn_b
"""


def get_parser() -> argparse.ArgumentParser:
    """The command line; every subcommand has its own --help."""
    parser = argparse.ArgumentParser(
        prog="legonn_score",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="score one hypothesis table into OUTDIR/result.{txt,json}")
    _add_inputs(score)
    pair = commands.add_parser("compare", help="is system B (--hyp_b) different from, or as good as, A (--hyp)?")
    _add_inputs(pair)
    pair.add_argument("--hyp_b", required=True, metavar="FILE", help="hypotheses of system B")
    pair.add_argument("--margin", type=float, help="also test equivalence within this many points")
    results = commands.add_parser("results", help="write EXP_DIR/RESULTS.md from the result.json files below it")
    results.add_argument("exp_dirs", nargs="+", metavar="EXP_DIR", help="experiment directories, exp/legonn_<tag>")
    results.add_argument("--out", metavar="FILE", help="one file for all experiments instead of one in each")
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", required=True, choices=list(METRICS))
    parser.add_argument("--ref", required=True, nargs="+", metavar="FILE", help="reference text; several for bleu")
    parser.add_argument("--hyp", required=True, metavar="FILE", help="hypothesis text, joined by utterance id")
    parser.add_argument("--utt2spk", metavar="FILE", help="rows per speaker; the bootstrap draws speakers")
    parser.add_argument("--lowercase", action="store_true", help="lower-case both sides")
    parser.add_argument("--tokenize", help="sacreBLEU tokenizer of bleu, `none` for tokens (default: by --language)")
    parser.add_argument(
        "--language", help="of the target (de): how BLEU cuts texts and bleu_detok joins them"
    )
    parser.add_argument(
        "--missing",
        choices=["error", "empty"],
        default="error",
        help="utterances without hypothesis: refuse, or count as empty and list them",
    )
    parser.add_argument("--outdir", required=True, metavar="DIR", help="gets result.txt and result.json")


def _score(args: argparse.Namespace, hyp: str) -> ErrorReport | BleuReport:
    from espnet2_legonn.scoring.bleu import score_bleu
    from espnet2_legonn.scoring.translation import change_of
    from espnet2_legonn.scoring.wer import score_error_rate

    if METRICS[args.metric].higher:
        # A tokenizer that is asked for wins over that of the language.
        change = None if args.metric == "bleu" and args.tokenize else change_of(args.metric, args.language)
        options = (args.utt2spk, args.lowercase, args.tokenize or "13a", args.missing)
        report: ErrorReport | BleuReport = score_bleu(args.ref, hyp, *options, change=change)
    else:
        report = score_error_rate(args.ref[0], hyp, args.metric, args.utt2spk, args.lowercase, args.missing)
    if report.absent:
        print(f"warning: {len(report.absent)} utterance(s) absent from {hyp} count as empty", file=sys.stderr)
    return report


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 with the faults on stderr."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    from espnet2_legonn.scoring.significance import compare
    from espnet2_legonn.scoring.tables import write_report

    if args.command != "results" and not METRICS[args.metric].higher and len(args.ref) > 1:
        parser.error(f"--metric {args.metric} takes one --ref, got {len(args.ref)}")
    if args.command == "results":
        _write_results(args)
    elif args.command == "score":
        report = _score(args, args.hyp)
        report.write(args.outdir)
        print(f"{args.metric.upper()} = {report.value:.2f}, {report.interval.as_text()}")
    else:
        result = compare(_score(args, args.hyp).segments, _score(args, args.hyp_b).segments, args.margin)
        write_report(args.outdir, result.as_text() + "\n", result.as_json())
        print(result.as_text())
    return 0


def _write_results(args: argparse.Namespace) -> None:
    from espnet2_legonn.scoring.results import render_results, write_results
    from espnet2_legonn.scoring.tables import write_atomic

    if args.out is not None:
        out = Path(args.out)
        write_atomic(out, render_results(args.exp_dirs, out.parent))
        print(out)
        return
    for exp_dir in args.exp_dirs:
        print(write_results(exp_dir))


if __name__ == "__main__":
    sys.exit(main())
