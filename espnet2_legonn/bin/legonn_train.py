"""Train a chain: ``python -m espnet2_legonn.bin.legonn_train --config conf/train.yaml ...`` (ESPnet's options)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from espnet2_legonn.errors import command


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Run ESPnet's training with the LegoNN task."""
    from espnet2_legonn.tasks.legonn import LegoNNTask

    LegoNNTask.main(cmd=cmd)


if __name__ == "__main__":
    sys.exit(main())
