#!/usr/bin/env bash
# A corpus of your own: CORPUS=DIR ./run.sh --input speech    or    CORPUS=DIR ./run.sh --input text
# What DIR holds is said in local/data.sh. Sizes are those of a first try on few utterances: make --nbpe and
# conf/train_small*.yaml larger with the corpus (100 hours: 1000 to 2000 units, conf/reference.yaml has the paper's sizes).
set -euo pipefail
. ./path.sh
. ./db.sh

input=speech
for ((i = 1; i < $#; i++)); do
    if [ "${!i}" = --input ]; then j=$((i + 1)); input=${!j}; fi
done
case "${input}" in
    speech) kind=(--legonn_config conf/train_small.yaml --metrics "wer cer") ;;
    text) kind=(--legonn_config conf/train_small_text.yaml --metrics bleu --src_lang src --src_nbpe 100) ;;
    *) echo "$0: --input ${input} is neither speech nor text" >&2; exit 2 ;;
esac
legonn.sh \
    --train_set train --valid_set valid --test_sets "test" --local_data_opts "--input ${input}" \
    --lang en --token_type bpe --nbpe 100 --bpemode unigram \
    --inference_config conf/decode.yaml --average_window 5 "${kind[@]}" "$@"
