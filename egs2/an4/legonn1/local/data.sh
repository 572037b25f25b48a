#!/usr/bin/env bash
# Stage 1: data/{train,valid,test} from AN4=DIR with utts.tsv (columns utt_id path speaker split text), and invented
# sentences in data/{train,valid}_text.
set -euo pipefail
. ./path.sh
. ./db.sh
python3 local/data.py --corpus "${AN4:?set AN4=DIR, the folder with utts.tsv and the audio}" --out data "$@"
# A text corpus for the decoder (see README.md)
python3 local/sentences.py --out data/train_text
python3 local/sentences.py --out data/valid_text --sentences 300 --seed 2
