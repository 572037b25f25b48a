#!/usr/bin/env bash
# TED-LIUM release 2: English talks. TEDLIUM2=DIR ./run.sh [--legonn_config conf/train_baseline.yaml]
# Release 3: TEDLIUM3=DIR ./run.sh --local_data_opts "--release 3"
# For the paper's Table V, see run_three_modules.sh in ../../europarl_st/legonn1.
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
