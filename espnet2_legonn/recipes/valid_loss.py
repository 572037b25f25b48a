"""The CTC loss of an interface on the validation set (Table IX), as training left it, in the form of a score.

python -m espnet2_legonn.recipes.valid_loss exp/legonn_wemb_seed1 exp/legonn_wemb_seed1/ctc_loss --module encoder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2_legonn.errors import DataError, command
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.packs.store import CHECKPOINT, read_figures
from espnet2_legonn.recipes.paper_tables import LOSS
from espnet2_legonn.scoring.tables import write_report


def valid_loss(exp: Path, module: str, out: Path) -> float:
    """Write ``result.json`` with the loss per target token after the last epoch of a training.

    Raises:
        DataError: nothing was trained there, or no such module has a CTC loss.
    """
    path = exp / CHECKPOINT
    if not path.is_file():
        raise DataError(f"{path}: no such file; stage 11 writes it")
    epochs = read_figures(path)
    if not epochs:
        raise DataError(f"{path}: holds no figures of training")
    last = max(epochs)
    figures = epochs[last].get("valid", {})
    if f"ctc_{module}" not in figures:
        known = [key.removeprefix("ctc_") for key in figures if key.startswith("ctc_")]
        raise DataError(f"{path}: no CTC loss of {module!r}{nearest(module, known)}; there are {', '.join(known)}")
    value = float(figures[f"ctc_{module}"])
    text = f"CTC loss of {module} on the validation set after epoch {last}: {value:.3f} nats a token\n"
    write_report(out, text, {"metric": LOSS, "value": value, "signature": "valid", "epoch": last})
    return value


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print the loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path, help="experiment folder")
    parser.add_argument("out", type=Path, help="folder for result.json")
    parser.add_argument("--module", default="encoder")
    args = parser.parse_args(argv)
    print(f"{args.exp}: CTC loss of {args.module}: {valid_loss(args.exp, args.module, args.out):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
