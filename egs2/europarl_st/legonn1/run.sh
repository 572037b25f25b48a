#!/usr/bin/env bash
# Europarl-ST v1.1 as English speech recognition. EUROPARL_ST=DIR ./run.sh [--legonn_config conf/train_baseline.yaml]
# Compositions of the paper: run_compose_europarl.sh (Table IV), run_three_modules.sh (Table V); both fill Table VI.
set -euo pipefail
. ./path.sh
. ./db.sh
# 365 slots for phonemes at 1/1.2 of a 40 ms step are 17.5 s; the paper decodes with the last model, not an average
legonn.sh \
    --input speech --train_set train --valid_set dev --test_sets "test" \
    --max_wav_duration 17.5 --token_type bpe --nbpe 2000 --bpemode unigram \
    --use_phonemes true --phoneme_opts "--backend auto --strip_stress" \
    --legonn_config conf/train_phonemes.yaml --inference_config conf/decode.yaml \
    --average_window 0 --metrics "wer cer" "$@"
