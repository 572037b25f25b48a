#!/usr/bin/env python3
"""run.pl for a Slurm cluster; `slurm.pl --help` shows the usage. What it does is in espnet2_legonn/recipes/slurm.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # where the package is when it is not installed
from espnet2_legonn.recipes.slurm import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
