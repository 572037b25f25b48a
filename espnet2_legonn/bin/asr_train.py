"""ESPnet's ASR training with our classes: ``python -m espnet2_legonn.bin.asr_train --decoder legonn ...``."""

import sys

from espnet2_legonn.bin.stock import stock

main = stock("asr", "espnet2.tasks.asr", "ASRTask")

if __name__ == "__main__":
    sys.exit(main())
