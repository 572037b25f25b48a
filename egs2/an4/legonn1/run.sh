#!/usr/bin/env bash
# AN4: real English speech, 37 minutes of training, in two steps. AN4=DIR ./run.sh
set -euo pipefail
. ./path.sh
. ./db.sh
recipe() {
    legonn.sh \
        --input speech --train_set train --valid_set valid --test_sets "test" \
        --speed_perturb_factors "0.9 1.0 1.1" \
        --token_type bpe --nbpe 60 --bpemode unigram \
        --use_phonemes true --phoneme_opts "--backend lexicon --lexicon ${AN4}/an4.dic --strip_stress" \
        --metrics "wer cer" --inference_config conf/decode.yaml --average_window 4 "$@"
}
if [[ " $* " == *" --legonn_config "* || " $* " == *" --legonn-config "* ]]; then
    recipe "$@"
else
    recipe --legonn_config conf/train_phn_decoder.yaml "$@"
    recipe --legonn_config conf/train_legonn.yaml --skip_stages "1 2 3 4 5" "$@"
fi
