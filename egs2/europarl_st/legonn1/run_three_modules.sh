#!/usr/bin/env bash
# The paper's Table V and its line of Table VI: a phoneme recogniser of Europarl, a pronunciation model of TED-LIUM, a
# decoder of De-En WMT. EUROPARL_ST=DIR TEDLIUM2=DIR WMT19_DE_EN=DIR ./run_three_modules.sh
# All of them share vocabularies made from the texts of Europarl and TED-LIUM (appendix A-B): data/en_ted_token_list.
# What is not given (--recognizer, --ted, --decoder, --baseline) is trained here. What is scored is not done again.
set -euo pipefail

conf=conf            # folder of train_baseline<suffix>.yaml, train_phonemes<suffix>.yaml, finetune<suffix>.yaml
suffix=              # --conf conf/tuning --suffix _1gpu: for one GPU
mt_config=conf/train_legonn_lc_rm.yaml   # in mt_recipe
expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=8
decode_tag=decode
test_set="test"
speeds="0.9 1.0 1.1" # of the training sets, as in run.sh ("" for none)
baseline=            # trained models to take instead: experiment folders, packs, inventory names
recognizer=          # phonemes of Europarl, then BPE: its first module is used
ted=                 # the same trained on TED-LIUM: its second module is used
decoder=             # with WEmb: exp/legonn_x#decoder
mt_recipe=../../wmt19_de_en/legonn1
mt_set=newstest2019_lc_rm
data_args=           # options of run.sh for stages 1 to 5
ted_args=            # options of python -m legonn_corpora.tedlium
speech_args=         # options of legonn.sh for everything that hears
mt_args=             # options of mt_recipe's run.sh
finetune=true        # fill Table VI too
help_message="Usage: $0 [--conf conf/tuning --suffix _1gpu --ngpu 1] [--recognizer MODEL] [--ted MODEL] ..."

. ./path.sh
. ./db.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh

finetune_config=${conf}/finetune${suffix}.yaml
lang=en_ted
# shellcheck disable=SC2206
common=(--speed_perturb_factors "${speeds}" --inference_config "${conf}/decode.yaml" --average_window 0 ${speech_args})
sp=${speeds:+_sp} # what legonn.sh puts behind the name of a training set
europarl=(--train_set train --valid_set dev "${common[@]}")
talks=(--train_set train_ted --valid_set dev_ted "${common[@]}")

# Stages 1 to 5 of TED-LIUM in this folder, then vocabularies of both corpora
prepare_ted() {
    # shellcheck disable=SC2086
    python3 -m legonn_corpora.tedlium --out data --suffix _ted \
        --corpus "${TEDLIUM2:?set TEDLIUM2=DIR, the folder TEDLIUM_release2}" ${ted_args}
    # shellcheck disable=SC2086
    ./run.sh --train_set train_ted --valid_set dev_ted --test_sets test_ted --lang "${lang}" --nj "${nj}" --stage 2 \
        --stop_stage 5 --speed_perturb_factors "${speeds}" \
        --bpe_train_text "dump/raw/train${sp}/text dump/raw/train_ted${sp}/text" ${data_args}
    python3 -m espnet2_legonn.data.cli vocab "data/${lang}_token_list/phn" --unit phn \
        "dump/raw/train${sp}/text_phn" "dump/raw/train_ted${sp}/text_phn"
    touch data/.prepared_ted
}
train() { # NAME MODEL OPTIONS...: a speech model, unless MODEL is given
    if [ -n "$2" ]; then
        plug_model "$1" "${test_set}" wer "${europarl[@]}" -- "$2"
    else
        train_model "$1" "${test_set}" wer "${@:3}"
    fi
}

# shellcheck disable=SC2086
[ -f data/en_token_list/phn/tokens.txt ] || ./run.sh --nj "${nj}" --speed_perturb_factors "${speeds}" --stop_stage 5 ${data_args}
[ -f data/.prepared_ted ] || prepare_ted
phonemes=$(with_lang "${conf}/train_phonemes${suffix}.yaml" "${lang}")
train baseline "${baseline}" --legonn_config "${conf}/train_baseline${suffix}.yaml" "${europarl[@]}"
train phonemes_joint "${recognizer}" --legonn_config "${phonemes}" "${europarl[@]}"
train ted "${ted}" --legonn_config "${phonemes}" "${talks[@]}"
if [ -z "${decoder}" ]; then
    config=$(cd "${mt_recipe}" && with_lang "${mt_config}" "${lang}")
    # shellcheck disable=SC2086
    EUROPARL_VOCAB=${PWD}/data/${lang}_token_list/bpe_unigram2000 train_elsewhere "${mt_recipe}" train_lc_rm \
        lc_rm_wemb_ted "${mt_set}" bleu --treatment lc_rm --lang "${lang}" --legonn_config "${config}" ${mt_args}
    decoder=${mt_recipe}/${expdir}/legonn_lc_rm_wemb_ted#decoder
fi
two=("${expdir}/legonn_phonemes_joint#phoneme_recognizer" "${expdir}/legonn_ted#pronunciation")
plug_model plug_two "${test_set}" wer "${europarl[@]}" -- "${two[@]}"
plug_model plug_three "${test_set}" wer "${europarl[@]}" -- "${two[@]}" "${decoder}"
if "${finetune}"; then tune_model plug_three "${test_set}" wer "${europarl[@]}"; fi

found V.baseline baseline "${test_set}" wer
found V.ted ted "${test_set}" wer
found V.two plug_two "${test_set}" wer
found V.three plug_three "${test_set}" wer
found VI.IV.plug plug_wemb "${test_set}" wer
found VI.IV.tuned plug_wemb_tuned "${test_set}" wer
found VI.V.plug plug_three "${test_set}" wer
found VI.V.tuned plug_three_tuned "${test_set}" wer
print_tables "${expdir}/table_V.md" V VI
