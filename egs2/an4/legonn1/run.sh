#!/usr/bin/env bash
# AN4: real English speech, 37 minutes of training. AN4=DIR ./run.sh
# A speech encoder, a decoder from invented sentences, without audio, and the two put together.
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
    *" --legonn_config "* | *" --legonn-config "* | *" --legonn_exp "* | *" --legonn-exp "* | *" --help "* | *" -h "*)
        speech "$@" ;; # one experiment
    *)
        # Three steps, each of them the stages that were asked for. The plug has 12 and later ones alone.
        stage=1 stop_stage=10000 expdir=exp
        for ((i = 1; i < $#; i++)); do
            j=$((i + 1))
            case "${!i}" in
                --stage) stage=${!j} ;;
                --stop_stage | --stop-stage) stop_stage=${!j} ;;
                --expdir) expdir=${!j} ;;
            esac
        done
        speech --legonn_config conf/train_encoder.yaml "$@"
        text --legonn_config conf/train_text.yaml "$@"
        if [ "${stop_stage}" -lt 12 ]; then exit; fi
        if [ "${stage}" -le 12 ]; then
            stage=12
            python3 -m espnet2_legonn.bin.legonn compose "${expdir}/legonn_encoder" "${expdir}/legonn_text#decoder" \
                -o "${expdir}/legonn_plugged"
        fi
        speech "$@" --legonn_exp "${expdir}/legonn_plugged" --stage "${stage}"
        ;;
esac
