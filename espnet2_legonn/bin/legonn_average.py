"""Average a moving window of checkpoints; the window with the best decoded validation score wins (paper IV-B).

example: python -m espnet2_legonn.bin.legonn_average exp/legonn_x --data dump/raw/valid --metric bleu
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import ConfigError, command
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.scoring.metrics import METRICS


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Write ``valid.decoded.ave.pth`` and print the windows tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("exp", type=Path, help="experiment folder with <n>epoch.pth")
    add("--data", type=Path, required=True, help="data directory of the validation set")
    add("--metric", choices=list(METRICS), default="bleu")
    add("--window", type=int, default=10, help="checkpoints in a window")
    add("--candidates", type=int, default=3, help="windows tried, the newest first (0: all)")
    add("--stride", type=int, default=1, help="epochs between windows")
    add("--limit", type=int, default=0, help="decode N utterances spread over the set (0: all)")
    add("--beam_size", type=int, help="of the decodings that compare windows (default: 1)")
    add("--config", type=Path, metavar="YAML", help="take beam_size and length_penalty from this search instead")
    add("--ngpu", type=int, default=0, help="1: decode on a GPU, where there is one")
    add("--num_threads", type=int, default=0, help="of decoding on CPUs (0: as OMP_NUM_THREADS says)")
    args = parser.parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    from espnet2_legonn.recipes.validation import choose_window, place
    from espnet2_legonn.search.options import DEFAULT_LENGTH_PENALTY

    device = place(args.ngpu, args.num_threads)
    given = {} if args.config is None else read_config(args.config) or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{args.config}: must be a mapping of options")
    search = {"beam_size": 1, **given}
    beam = search["beam_size"] if args.beam_size is None else args.beam_size
    penalty = search.get("length_penalty")
    known = DEFAULT_LENGTH_PENALTY if penalty is None else penalty
    logging.info("windows are compared with beam %d, length penalty %g", beam, known)
    sizes = (args.window, args.candidates, args.stride, args.limit)
    path, tried = choose_window(args.exp, args.data, args.metric, *sizes, beam, penalty, device)
    for label, value in tried:
        print(f"epochs {label}: {args.metric} {abs(value):.2f}")
    print(path)


if __name__ == "__main__":
    sys.exit(main())
