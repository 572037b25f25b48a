"""The mean of several scores as one result: over test sets, as the paper's Table I, or over seeds.

python -m espnet2_legonn.recipes.mean_scores exp/mean/wemb exp/legonn_legonn_seed*/decode/newstest2014/score_bleu_split
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import DataError, command
from espnet2_legonn.scoring.metrics import METRICS
from espnet2_legonn.scoring.results import read_result
from espnet2_legonn.scoring.tables import write_report


def mean(places: Sequence[Path], out: Path) -> float:
    """Write ``result.json`` with the mean of others; no interval, since they are of different sets or systems.

    Raises:
        DataError: a result is missing or damaged, or they are of different metrics or signatures.
    """
    faults, values, kinds = [], [], set()
    for place in places:
        try:
            data = read_result(place)
            values.append(data["value"])
            kinds.add((data["metric"], str(data.get("signature", ""))))
        except DataError as error:
            faults += error.faults
    if len(kinds) > 1:
        faults.append(f"{out}: these are different measures: {', '.join(sorted(f'{m} {s}'.strip() for m, s in kinds))}")
    if faults or not values:
        raise DataError(faults or [f"{out}: no result to take the mean of"])
    ((metric, signature),) = kinds
    value = statistics.fmean(values)
    text = f"mean of {len(values)} results: {value:.2f} ({min(values):.2f} to {max(values):.2f})\n"
    files = [str(place) for place in places]
    write_report(out, text, {"metric": metric, "value": value, "signature": signature, "values": values, "of": files})
    return value


def _share(value: float, whole: float, out: Path) -> float:
    """Of a reference (Figure 4): value / reference, for error rates reference / value; less than 1 is worse in both."""
    metric = read_result(out)["metric"]
    higher = metric in METRICS and METRICS[metric].higher
    over, under = (value, whole) if higher else (whole, value)
    return over / under if under else 0.0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the mean, and its share of a reference (Figure 4) if one is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for result.json")
    parser.add_argument("places", type=Path, nargs="+", metavar="PLACE", help="folders of stage 13 (score_<metric>)")
    parser.add_argument("--reference", type=Path, metavar="PLACE", help="what counts as 100 %%")
    args = parser.parse_args(argv)
    value = mean(args.places, args.out)
    line = f"{args.out.name}: {value:.2f}, mean of {len(args.places)}"
    if args.reference:
        whole = mean([args.reference], args.out.with_name(f"{args.out.name}_reference"))
        share = _share(value, whole, args.out)
        line += f", {100 * share:.1f} % of {whole:.2f}" if whole else ", no share of 0"
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
