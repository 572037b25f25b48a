#!/usr/bin/env bash
# WMT En-De, 4.5 M pairs (Tables I, VII to X). WMT14_EN_DE=DIR ./run.sh [--local_data_opts "--preparation raw"]
set -euo pipefail
. ./path.sh
# The vocabulary is the corpus's own where it is given. Of raw text it is made from both sides.
if [[ "$*" == *"--preparation raw"* ]]; then
    vocab="--train dump/raw/train_en_de/text dump/raw/train_en_de/src_text --size 32000 --model_type bpe"
else
    vocab="--list data/given/vocab.bpe.32000 --model data/given/bpe.32000"
fi
legonn.sh \
    --input text --src_lang en --lang joint --token_joint true \
    --train_set train_en_de --valid_set newstest2013 \
    --test_sets "newstest2011 newstest2012 newstest2013 newstest2014 newstest2015 newstest2016" \
    --max_tokens 1000 --token_type bpe --nbpe 32000 --bpemode bpe \
    --vocab_opts "${vocab} --on dump/raw/newstest2013/text,dump/raw/newstest2013/src_text" \
    --metrics "bleu_split bleu_tok" --inference_config conf/decode.yaml \
    --average_candidates 0 --average_config conf/decode.yaml "$@"
