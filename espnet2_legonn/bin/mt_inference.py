"""ESPnet's MT decoding of what ``bin.mt_train`` trained: ``python -m espnet2_legonn.bin.mt_inference --help``."""

import sys

from espnet2_legonn.bin.stock import stock

main = stock("mt", "espnet2.bin.mt_inference")

if __name__ == "__main__":
    sys.exit(main())
