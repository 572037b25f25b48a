#!/usr/bin/env bash
# Europarl-ST v1.1 as English speech recognition. EUROPARL_ST=DIR ./run.sh [--legonn_config conf/train_baseline.yaml]
# Compositions of the paper: run_compose_europarl.sh (Table IV), run_three_modules.sh (Table V). Both fill Table VI.
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
