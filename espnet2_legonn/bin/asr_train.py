"""ESPnet's ASR training with our classes: ``python -m espnet2_legonn.bin.asr_train --decoder legonn ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from espnet2_legonn.errors import command


@command
def main(cmd: Sequence[str] | None = None) -> None:
    """Register, then run ESPnet's ASRTask."""
    from espnet2_legonn.training.compat import load
    from espnet2_legonn.training.register import register_classes

    register_classes("asr")
    load("espnet2.tasks.asr").ASRTask.main(cmd=cmd)


if __name__ == "__main__":
    sys.exit(main())
