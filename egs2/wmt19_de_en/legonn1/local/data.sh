#!/usr/bin/env bash
# Stage 1: data/{train,newstest2018,newstest2019}_{lc_tok,lc_rm} from WMT19_DE_EN=DIR. Options: see --help of the module.
set -euo pipefail
. ./path.sh
. ./db.sh
python3 -m legonn_corpora.wmt19_de_en \
    "${WMT19_DE_EN:?set WMT19_DE_EN=DIR, the folder with europarl-v9.de-en.tsv.gz and the others}" --out data "$@"
