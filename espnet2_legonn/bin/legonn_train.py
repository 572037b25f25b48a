"""Train a chain: ``python -m espnet2_legonn.bin.legonn_train --config conf/train.yaml ...`` (ESPnet's options)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from espnet2_legonn.errors import BAD_INPUT, command


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Run ESPnet's training with the LegoNN task."""
    from torch.multiprocessing import ProcessExitedException

    from espnet2_legonn.training.task import LegoNNTask

    try:
        LegoNNTask.main(cmd=cmd)
    except ProcessExitedException as error:  # of the processes of several GPUs
        if error.exit_code != BAD_INPUT:
            raise
        return BAD_INPUT  # it has said why
    return 0


if __name__ == "__main__":
    sys.exit(main())
