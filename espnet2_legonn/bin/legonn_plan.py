"""Run the experiments of a plan and print its tables; over several seeds, mean and deviation.

example: python -m espnet2_legonn.bin.legonn_plan conf/plan.yaml --workers 2
         python -m espnet2_legonn.bin.legonn_plan conf/plan.yaml --tables study --seeds 1 2 3 --expdir exp/study
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import command


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Run, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("plan", type=Path)
    add("--raw", type=Path, default=Path("dump/raw"), help="data directories")
    add("--expdir", type=Path, default=Path("exp"))
    add("--workers", type=int, default=2, help="experiments at a time")
    add("--only", nargs="+", metavar="EXPERIMENT", help="these and what they need")
    add("--tables", choices=("first", "all", "study"), default="first", help="which tables to fill (default: first)")
    add("--seeds", type=int, nargs="+", help="repeat all with each seed, in <expdir>/seed<N>")
    add("--report", type=Path, help="Markdown file for the tables; default <expdir>/RESULTS.md, STUDY.md with --seeds")
    args = parser.parse_args(cmd)
    _study(args) if args.seeds else _once(args)


def _once(args: argparse.Namespace) -> None:
    from espnet2_legonn.recipes.plan import load_plan
    from espnet2_legonn.recipes.report import draw_interface, next_command, write_report
    from espnet2_legonn.recipes.runner import run_plan

    plan = load_plan(args.plan, args.only, args.tables)
    run_plan(plan, args.raw, args.expdir, args.workers)
    report = args.report or args.expdir / "RESULTS.md"
    print(write_report(plan, args.expdir, report))
    picture = draw_interface(plan, args.raw, args.expdir)
    print(f"tables: {report}\npicture of an interface: {picture}")
    print("next, plug a chain of your own: " + next_command(plan, args.expdir))


def _study(args: argparse.Namespace) -> None:
    from espnet2_legonn.recipes.plan import load_plan
    from espnet2_legonn.recipes.runner import run_plan
    from espnet2_legonn.recipes.study import seed_folder, write_study

    report, said = args.report or args.expdir / "STUDY.md", ""
    chosen = load_plan(args.plan, args.only, args.tables)
    # Table by table, each with all seeds: the first ones are worth most.
    work = [(" ".join(args.only), args.only, args.seeds)] if args.only else [
        (table.title, sorted(table.needs), args.seeds[: table.seeds or None]) for table in chosen.tables
    ]  # fmt: skip
    for title, only, seeds in work:
        for seed in seeds:
            print(f"{title}: seed {seed} of {' '.join(map(str, seeds))}", flush=True)
            plan = load_plan(args.plan, only, args.tables, seed)
            run_plan(plan, args.raw, seed_folder(args.expdir, seed), args.workers)
            said = write_study(plan, args.expdir, args.seeds, report)  # after each, so that a broken study has tables
    print(f"{said}\ntables: {report}")


if __name__ == "__main__":
    sys.exit(main())
