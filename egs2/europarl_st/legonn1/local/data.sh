#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} from EUROPARL_ST=DIR, which is v1.1 or holds it. Options: see --help. --pairs all joins
# all pairs with English speech, --download gets the corpus into DIR (about 20 GB).
set -euo pipefail
. ./path.sh
. ./db.sh
python3 -m legonn_corpora.europarl_st --out data \
    --corpus "${EUROPARL_ST:?set EUROPARL_ST=DIR, the folder v1.1 of Europarl-ST; with --download it is put there}" "$@"
