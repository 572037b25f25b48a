#!/usr/bin/env bash
# WMT16 Ro-En as prepared by Lee et al. (Tables III and VI). WMT16_RO_EN=DIR ./run.sh
# The vocabulary is that of ../../wmt19_de_en, made from both corpora. run_compose_ro_en.sh does all in order.
set -euo pipefail
. ./path.sh
joint=../../wmt19_de_en/legonn1/data/joint_token_list/bpe_bpe41000
legonn.sh \
    --input text --src_lang ro --lang joint --token_joint true \
    --train_set train_ro_en --valid_set newsdev2016 --test_sets newstest2016 \
    --max_tokens 1000 --token_type bpe --nbpe 41000 --bpemode bpe \
    --vocab_opts "--list ${joint}/tokens.txt --model ${joint}/bpe.model --on dump/raw/train_ro_en/text,dump/raw/train_ro_en/src_text" \
    --legonn_config conf/train_encoder.yaml \
    --metrics bleu_tok --inference_config conf/decode.yaml \
    --average_candidates 0 --average_config conf/decode.yaml "$@"
