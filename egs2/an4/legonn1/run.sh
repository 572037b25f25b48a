#!/usr/bin/env bash
# AN4: real English speech, 37 minutes of training. AN4=DIR ./run.sh
# A speech encoder; a decoder from invented sentences, without audio; the two put together.
set -euo pipefail
. ./path.sh
. ./db.sh
speech() {
    legonn.sh \
        --input speech --train_set train --valid_set valid --test_sets "test" \
        --speed_perturb_factors "0.9 1.0 1.1" \
        --token_type bpe --nbpe 60 --bpemode unigram \
        --use_phonemes true --phoneme_opts "--backend lexicon --lexicon data/local/lexicon.txt --strip_stress" \
        --metrics "wer cer" --inference_config conf/decode.yaml --average_window 8 "$@"
}
text() {
    legonn.sh \
        --input text --src_lang phn --train_set train_text --valid_set valid_text --test_sets "valid_text" \
        --token_type bpe --nbpe 60 --bpemode unigram \
        --metrics "wer cer" --inference_config conf/decode.yaml --average_window 4 --skip_stages "1 5" "$@"
}
case " $* " in
    *" conf/train_text.yaml "*) text "$@" ;;
    *" --legonn_config "* | *" --legonn-config "*) speech "$@" ;;
    *)
        speech --legonn_config conf/train_encoder.yaml "$@"
        text --legonn_config conf/train_text.yaml "$@"
        python3 -m espnet2_legonn.bin.legonn compose exp/legonn_encoder exp/legonn_text#decoder -o exp/legonn_plugged
        speech --legonn_exp exp/legonn_plugged --stage 12
        ;;
esac
