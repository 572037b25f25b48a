"""ESPnet's MT training with our classes: ``python -m espnet2_legonn.bin.mt_train --decoder legonn ...``."""

import sys

from espnet2_legonn.bin.stock import stock

main = stock("mt", "espnet2.tasks.mt", "MTTask")

if __name__ == "__main__":
    sys.exit(main())
