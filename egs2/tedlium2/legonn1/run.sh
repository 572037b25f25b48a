#!/usr/bin/env bash
# TED-LIUM release 2: English talks. TEDLIUM2=DIR ./run.sh [--legonn_config conf/train_baseline.yaml]
# Release 3: TEDLIUM3=DIR ./run.sh --local_data_opts "--release 3"
# For the paper's Table V, see run_three_modules.sh in ../../europarl_st/legonn1.
set -euo pipefail
. ./path.sh
. ./db.sh
# Segments are left out beyond 30 s: 365 slots are a maximum, not a filter. The paper decodes with the last model.
legonn.sh \
    --input speech --train_set train --valid_set dev --test_sets "test" \
    --speed_perturb_factors "0.9 1.0 1.1" --max_wav_duration 30 --token_type bpe --nbpe 2000 --bpemode unigram \
    --use_phonemes true --phoneme_opts "--backend auto --strip_stress" \
    --legonn_config conf/train_phonemes.yaml --inference_config conf/decode.yaml \
    --average_window 0 --metrics "wer cer" "$@"
