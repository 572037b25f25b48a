#!/usr/bin/env bash
# Stage 1: data/{train_ro_en,newsdev2016,newstest2016} from WMT16_RO_EN=DIR. Options: see --help of the module.
set -euo pipefail
. ./path.sh
. ./db.sh
python3 -m legonn_corpora.wmt16_ro_en \
    "${WMT16_RO_EN:?set WMT16_RO_EN=DIR, the folder with corpus.bpe.ro and the others}" --out data "$@"
