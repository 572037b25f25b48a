#!/usr/bin/env bash
# Switchboard-1, 300 hours, scored on eval2000. SWBD=DIR ./run.sh [--legonn_config conf/train_baseline.yaml]
# Table II: train_baseline, train_encoder, train_beam_conv and train_wemb (the default) in conf/, smaller ones in conf/tuning/.
set -euo pipefail
. ./path.sh
. ./db.sh
# Utterances are left out beyond 30 s: 230 slots are a maximum, not a filter. The paper decodes with the last model.
# local/data.sh makes both vocabularies (100 and 2,000 units), so stage 5 only reports on the second.
legonn.sh \
    --input speech --train_set train_nodup --valid_set train_dev --test_sets "eval2000" \
    --speed_perturb_factors "0.9 1.0 1.1" --max_wav_duration 30 \
    --token_type bpe --nbpe 2000 --bpemode unigram --vocab_opts "--on dump/raw/train_dev/text" \
    --legonn_config conf/train_wemb.yaml --inference_config conf/decode.yaml \
    --average_window 0 --metrics "wer" "$@"
