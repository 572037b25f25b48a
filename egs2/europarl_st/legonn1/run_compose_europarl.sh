#!/usr/bin/env bash
# The paper's Table IV and its line of Table VI: a De-En decoder behind a speech encoder of Europarl, without an update
# and fine-tuned. EUROPARL_ST=DIR WMT19_DE_EN=DIR ./run_compose_europarl.sh
# What is not given (--encoder, --decoder, ...) is trained, the decoders in mt_recipe. What is scored is not done again.
set -euo pipefail

conf=conf            # folder of train_baseline<suffix>.yaml, train_phonemes<suffix>.yaml, finetune<suffix>.yaml
suffix=              # --conf conf/tuning --suffix _1gpu: for one GPU
mt_configs="conf/train_legonn_lc_rm.yaml conf/train_beam_conv_lc_rm.yaml"   # in mt_recipe: WEmb, BeamConv
expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=8
decode_tag=decode
test_set="test"
speeds="0.9 1.0 1.1" # of the training set, as in run.sh ("" for none)
baseline=            # trained models to take instead: experiment folders, packs, inventory names
encoder=
decoder=             # with WEmb: exp/legonn_x#decoder
beam_conv_decoder=
mt_recipe=../../wmt19_de_en/legonn1
mt_set=newstest2019_lc_rm
data_args=           # options of run.sh for stages 1 to 5
speech_args=         # options of legonn.sh for everything that hears
mt_args=             # options of mt_recipe's run.sh
finetune=true        # fill Table VI too
help_message="Usage: $0 [--conf conf/tuning --suffix _1gpu --ngpu 1] [--encoder MODEL] [--decoder MODEL] ..."

. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh

finetune_config=${conf}/finetune${suffix}.yaml
# shellcheck disable=SC2206
speech=(--train_set train --speed_perturb_factors "${speeds}" --valid_set dev --inference_config "${conf}/decode.yaml" --average_window 0 ${speech_args})
train() { # NAME MODEL: a speech model of conf, unless MODEL is given
    if [ -n "$2" ]; then
        plug_model "$1" "${test_set}" wer "${speech[@]}" -- "$2"
    else
        train_model "$1" "${test_set}" wer --legonn_config "${conf}/train_$1${suffix}.yaml" "${speech[@]}"
    fi
}
donate() { # NAME CONFIG: a De-En model with Europarl's units
    # shellcheck disable=SC2086
    EUROPARL_VOCAB=${PWD}/data/en_token_list/bpe_unigram2000 train_elsewhere "${mt_recipe}" train_lc_rm "$1" \
        "${mt_set}" bleu --treatment lc_rm --legonn_config "$2" ${mt_args}
}

# shellcheck disable=SC2086
[ -f data/en_token_list/phn/tokens.txt ] || ./run.sh --nj "${nj}" --speed_perturb_factors "${speeds}" --stop_stage 5 ${data_args}
train baseline "${baseline}"
train phonemes "${encoder}"
read -r wemb_config beam_conv_config <<< "${mt_configs}"
if [ -z "${decoder}" ]; then
    donate lc_rm_wemb "${wemb_config}"
    decoder=${mt_recipe}/${expdir}/legonn_lc_rm_wemb#decoder
fi
if [ -z "${beam_conv_decoder}" ]; then
    donate lc_rm_beam_conv "${beam_conv_config}"
    beam_conv_decoder=${mt_recipe}/${expdir}/legonn_lc_rm_beam_conv#decoder
fi
plug_model plug_beam_conv "${test_set}" wer "${speech[@]}" -- "${expdir}/legonn_phonemes" "${beam_conv_decoder}"
plug_model plug_wemb "${test_set}" wer "${speech[@]}" -- "${expdir}/legonn_phonemes" "${decoder}"
if "${finetune}"; then tune_model plug_wemb "${test_set}" wer "${speech[@]}"; fi

found IV.baseline baseline "${test_set}" wer
found IV.encoder phonemes "${test_set}" wer
found IV.beam_conv plug_beam_conv "${test_set}" wer
found IV.wemb plug_wemb "${test_set}" wer
found VI.IV.plug plug_wemb "${test_set}" wer
found VI.IV.tuned plug_wemb_tuned "${test_set}" wer
print_tables "${expdir}/table_IV.md" IV VI
