#!/usr/bin/env bash
# Stage 1: data/ of the study from MULTI30K=DIR, split by sentence number so that donors and poor tasks share no sentence.
#   A  sentences 0 to 19,999       donors: German-English
#   B  sentences 20,000 to 28,999  poor tasks: the first 1,000, 4,500 or all 9,000 of them, nested
set -euo pipefail
. ./path.sh
. ./db.sh
dir() { python3 -m espnet2_legonn.data.cli "$@"; }
all=data/local/all
for src in de fr cs; do
    python3 ../../multi30k/legonn1/local/data.py --out "${all}" --src "${src}" \
        --corpus "${MULTI30K:?set MULTI30K=DIR, the folder with train.de.gz and the others}"
    dir subset "${all}/valid_${src}_en" "data/valid_${src}" --first 500 # choice of epochs and of the search's weights
    if [ "${src}" = cs ]; then # Czech has no test set of 2017
        dir copy "${all}/test2016_cs_en" data/test_cs
    else
        dir combine "data/test_${src}" "${all}/test2016_${src}_en" "${all}/test2017_${src}_en"
    fi
done
dir subset "${all}/train_de_en" data/train_de --first 20000
dir copy "${all}/train_de_en" data/train_de_29000
for src in fr cs; do
    dir subset "${all}/train_${src}_en" "data/local/b_${src}" --last 9000
    for size in 1000 4500 9000; do dir subset "data/local/b_${src}" "data/train_${src}_${size}" --first "${size}"; done
done
python3 local/overlap.py data/train_de data/train_fr_9000 data/test_fr
