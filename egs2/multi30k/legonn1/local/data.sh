#!/usr/bin/env bash
# Stage 1: data/{train,valid,test...}_<src>_en from MULTI30K=DIR with <split>.<lang>.gz (or without .gz).
set -euo pipefail
. ./path.sh
. ./db.sh
python3 local/data.py --corpus "${MULTI30K:?set MULTI30K=DIR, the folder with train.de.gz and the others}" --out data "$@"
