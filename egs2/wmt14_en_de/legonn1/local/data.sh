#!/usr/bin/env bash
# Stage 1: data/{train_en_de,newstest2011,...} from WMT14_EN_DE=DIR. Options: those of the module, see --help.
set -euo pipefail
. ./path.sh
. ./db.sh
python3 -m legonn_corpora.wmt14_en_de \
    "${WMT14_EN_DE:?set WMT14_EN_DE=DIR, the folder with train.tok.clean.bpe.32000.en and the others}" --out data "$@"
