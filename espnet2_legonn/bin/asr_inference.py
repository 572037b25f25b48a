"""ESPnet's ASR decoding of what ``bin.asr_train`` trained: ``python -m espnet2_legonn.bin.asr_inference --help``."""

import sys

from espnet2_legonn.bin.stock import stock

main = stock("asr", "espnet2.bin.asr_inference")

if __name__ == "__main__":
    sys.exit(main())
