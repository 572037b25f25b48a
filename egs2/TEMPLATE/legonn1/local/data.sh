#!/usr/bin/env bash
# Stage 1: data/{train,valid,test} from CORPUS=DIR, which holds for each set either
#   train.tsv   lines of: utterance id, audio file (from DIR) or source text, text, and if known the speaker, with tabs between
#   train/      a data directory as Kaldi and ESPnet have it: text, and wav.scp or src_text (utt2spk, segments, ...)
# Text is taken as it is. --cleaner lc.rm of run.sh lower-cases it and removes punctuation.
set -euo pipefail
. ./path.sh
. ./db.sh
input=speech
# shellcheck source=../parse_options.sh
. parse_options.sh
: "${CORPUS:?set CORPUS=DIR, the folder with train.tsv, valid.tsv and test.tsv, or with train/, valid/ and test/}"

for set in train valid test; do
    if [ -d "${CORPUS}/${set}" ]; then
        python3 -m espnet2_legonn.data.cli copy "${CORPUS}/${set}" "data/${set}"
    else
        python3 -m espnet2_legonn.data.manifest "${CORPUS}/${set}.tsv" "data/${set}" --input "${input}"
    fi
    python3 -m espnet2_legonn.data.cli validate "data/${set}"
done
