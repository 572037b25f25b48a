#!/usr/bin/env bash
# Tables III and VI: a De-En decoder behind a Ro-En encoder, plugged, then fine-tuned. Trains what is missing.
#   WMT16_RO_EN=DIR WMT19_DE_EN=DIR ./run_compose_ro_en.sh --ngpu 8
set -euo pipefail
. ./path.sh

expdir=exp         # in both recipes
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=4
conf=conf          # folder of train_<system><suffix>.yaml and finetune<suffix>.yaml, in both recipes
suffix=            # --conf conf/tuning --suffix _1gpu: for one GPU
encoder=           # a Ro-En encoder from elsewhere: an experiment, a pack, a URL, a name of the inventory
wemb=              # the same for the De-En chains whose decoders are used
beam_conv=
skip_data_prep=false
data_args=         # options of run.sh for stages 1 to 5
train_opts=        # options of legonn.sh for all trainings
decode_tag=decode
help_message="Usage: $0 [--ngpu N] [--encoder PACK] [--wemb PACK] [--beam_conv PACK]. Options are the variables at its head"
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh
finetune_config=${conf}/finetune${suffix}.yaml

de_en=../../wmt19_de_en/legonn1
set=newstest2016
ro=(--input text --src_lang ro --train_set train_ro_en --valid_set newsdev2016 --inference_config conf/decode.yaml
    --average_candidates 0 --average_config conf/decode.yaml)
de=(--input text --src_lang de --train_set train_lc_tok --valid_set newstest2018_lc_tok --inference_config conf/decode.yaml
    --average_candidates 0 --average_config conf/decode.yaml)
read -ra extra <<< "${train_opts}"
train_de_en() { # NAME CONFIG
    (cd "${de_en}" && train_model "$1" newstest2019_lc_tok bleu_tok "${de[@]}" --legonn_config "$2" "${extra[@]}")
}

# shellcheck disable=SC2086
if ! "${skip_data_prep}"; then # the vocabulary needs both corpora
    ./run.sh --stop_stage 4 --nj "${nj}" ${data_args}
    (cd "${de_en}" && ./run.sh --treatment lc_tok --stop_stage 5 --nj "${nj}" ${data_args})
    ./run.sh --stage 5 --stop_stage 5
fi

train_model baseline "${set}" bleu_tok "${ro[@]}" --legonn_config "${conf}/train_baseline${suffix}.yaml" "${extra[@]}"
if [ -z "${encoder}" ]; then
    encoder=${expdir}/legonn_encoder
    train_model encoder "${set}" bleu_tok "${ro[@]}" --legonn_config "${conf}/train_encoder${suffix}.yaml" "${extra[@]}"
fi
if [ -z "${wemb}" ]; then
    wemb=${de_en}/${expdir}/legonn_legonn
    train_de_en legonn "${conf}/train_legonn${suffix}.yaml"
fi
if [ -z "${beam_conv}" ]; then
    beam_conv=${de_en}/${expdir}/legonn_beam_conv
    train_de_en beam_conv "${conf}/train_beam_conv${suffix}.yaml"
fi

plug_model ro_en_wemb "${set}" bleu_tok "${ro[@]}" -- "${encoder}#encoder" "${wemb}#decoder"
plug_model ro_en_beam_conv "${set}" bleu_tok "${ro[@]}" -- "${encoder}#encoder" "${beam_conv}#decoder"
tune_model ro_en_wemb "${set}" bleu_tok "${ro[@]}" "${extra[@]}"

found III.baseline baseline "${set}" bleu_tok
found III.encoder encoder "${set}" bleu_tok
found III.beam_conv ro_en_beam_conv "${set}" bleu_tok
found III.wemb ro_en_wemb "${set}" bleu_tok
found VI.III.plug ro_en_wemb "${set}" bleu_tok
found VI.III.tuned ro_en_wemb_tuned "${set}" bleu_tok
print_tables "${expdir}/TABLES_ro_en.md" III VI
