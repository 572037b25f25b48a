#!/usr/bin/env bash
# WMT19 De-En, 7.4 M pairs, decoders for others to use. WMT19_DE_EN=DIR ./run.sh [--treatment lc_tok|lc_rm]
#   lc_tok (default)  beside Romanian (Table III): joint vocabulary with ../../wmt16_ro_en, so run its stages 1 to 4 first
#   lc_rm             beside speech (Tables IV to VI): the 2,000 units of ../../europarl_st, so run its stages 1 to 5 first
set -euo pipefail
. ./path.sh
treatment=lc_tok
options=()
while [ $# -gt 0 ]; do
    if [ "$1" = --treatment ]; then treatment=$2; shift 2; else options+=("$1"); shift; fi
done
ro_en=../../wmt16_ro_en/legonn1/dump/raw/train_ro_en
europarl=${EUROPARL_VOCAB:-../../europarl_st/legonn1/data/en_token_list/bpe_unigram2000}
own=dump/raw/train_${treatment}
case "${treatment}" in
    lc_tok)
        vocab="--train ${own}/text ${own}/src_text ${ro_en}/text ${ro_en}/src_text --size 41000 --model_type bpe"
        vocab+=" --sample 10000000 --on dump/raw/newstest2018_lc_tok/text,dump/raw/newstest2018_lc_tok/src_text"
        set -- --lang joint --token_joint true --nbpe 41000 --bpemode bpe --metrics bleu_tok \
            --legonn_config conf/train_legonn.yaml ;;
    lc_rm)
        vocab="--list ${europarl}/tokens.txt --model ${europarl}/bpe.model --on ${own}/text"
        set -- --lang en --src_nbpe 32000 --src_bpemode bpe --nbpe 2000 --metrics bleu \
            --legonn_config conf/train_legonn_lc_rm.yaml ;;
    *) echo "run.sh: --treatment ${treatment} is not lc_tok or lc_rm" >&2; exit 2 ;;
esac
legonn.sh --input text --src_lang de --local_data_opts "--treatment ${treatment/_/.}" \
    --train_set "train_${treatment}" --valid_set "newstest2018_${treatment}" --test_sets "newstest2019_${treatment}" \
    --max_tokens 1000 --token_type bpe --vocab_opts "${vocab}" --inference_config conf/decode.yaml \
    --average_candidates 0 --average_config conf/decode.yaml "$@" "${options[@]}"
