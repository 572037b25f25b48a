#!/usr/bin/env bash
# AN4: real English speech, 37 minutes of training. AN4=DIR ./run.sh
set -euo pipefail
. ./path.sh
. ./db.sh
legonn.sh \
    --input speech --train_set train --valid_set valid --test_sets "test" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --token_type bpe --nbpe 60 --bpemode unigram \
    --use_phonemes true --phoneme_opts "--backend lexicon --lexicon ${AN4}/an4.dic --strip_stress" \
    --legonn_config conf/train_legonn.yaml --metrics "wer cer" --inference_config conf/decode.yaml "$@"
