#!/usr/bin/env bash
# Multi30K: real translation into English. MULTI30K=DIR ./run.sh [--src_lang de|fr|cs]
# The English vocabulary is that of German-English for all pairs, so run German first.
set -euo pipefail
. ./path.sh
src_lang=de
for ((i = 1; i < $#; i++)); do
    j=$((i + 1))
    case "${!i}" in --src_lang | --src-lang) src_lang=${!j} ;; esac
done
test_sets="test2016_${src_lang}_en"
if [ "${src_lang}" != cs ]; then test_sets+=" test2017_${src_lang}_en"; fi # there is no Czech test2017
legonn.sh \
    --input text --src_lang "${src_lang}" --local_data_opts "--src ${src_lang}" \
    --train_set "train_${src_lang}_en" --valid_set "valid_${src_lang}_en" --test_sets "${test_sets}" \
    --bpe_train_text dump/raw/train_de_en/text \
    --token_type bpe --nbpe 2000 --bpemode unigram --src_nbpe 2000 --src_bpemode unigram \
    --legonn_config "conf/train_legonn_${src_lang}_en.yaml" \
    --metrics "bleu" --inference_config conf/decode.yaml "$@"
