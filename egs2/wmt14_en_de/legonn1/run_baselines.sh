#!/usr/bin/env bash
# Tables I, VII, VIII and IX on WMT En-De (Table II and the speech half of IX: ../../swbd/legonn1). Trains what is missing.
#   WMT14_EN_DE=DIR ./run_baselines.sh --ngpu 8
# All of it is 12 trainings of hundreds of GPU hours each: legonn cost conf/train_*.yaml --gpus 8 --markdown
set -euo pipefail
. ./path.sh

expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=4
conf=conf          # folder of train_<system><suffix>.yaml
suffix=            # --conf conf/tuning --suffix _1gpu: for one GPU
seeds="1 2 3"      # the paper averages three
test_sets="newstest2011 newstest2012 newstest2013 newstest2014 newstest2015 newstest2016"
metrics="bleu_split bleu_tok bleu_detok" # bleu_detok (Tables VII, VIII) needs the SGML test sets beside the corpus
skip_data_prep=false
data_args=         # options of run.sh for stages 1 to 5
train_opts=        # options of legonn.sh for all trainings
decode_tag=decode
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"] [--metrics ...]. Options are the variables at its head"
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh
read -ra extra <<< "${train_opts}"
read -ra sets <<< "${test_sets}"

# shellcheck disable=SC2086
if ! "${skip_data_prep}"; then ./run.sh --stop_stage 5 --nj "${nj}" ${data_args}; fi
en_de=(--input text --src_lang en --train_set train_en_de --valid_set newstest2013 --inference_config conf/decode.yaml
    --average_candidates 0 --average_config conf/decode.yaml)

average() { # TABLE.ROW.COLUMN METRIC SETS [MODULE]: SYSTEM's mean over seeds and sets
    local places=() seed set
    for seed in ${seeds}; do
        for set in $3; do
            places+=("${expdir}/legonn_${system}_seed${seed}/${decode_tag}/${set}/${4:+interfaces/$4/}score_$2")
        done
    done
    python3 -m espnet2_legonn.recipes.mean_scores "${expdir}/mean/$1" "${places[@]}"
    results+=("$1=${expdir}/mean/$1")
}

years="${test_sets/newstest2013/}"
has_dev=false
if [[ " ${test_sets} " == *" newstest2013 "* ]]; then has_dev=true; fi
for system in baseline encoder beam_conv legonn; do
    for seed in ${seeds}; do
        name=${system}_seed${seed}
        if is_scored "${name}" "${sets[-1]}" "${metrics##* }"; then log "${name}: scored before"; continue; fi
        stages legonn.sh "${en_de[@]}" --legonn_tag "${name}" --legonn_config "${conf}/train_${system}${suffix}.yaml" \
            --legonn_args "--seed ${seed}" --test_sets "${test_sets}" --metrics "${metrics}" --stage 10 "${extra[@]}"
    done
    row=${system/legonn/wemb}
    average "I.${row}.test" bleu_split "${years}"
    if "${has_dev}"; then average "I.${row}.dev" bleu_split newstest2013; fi
    for set in ${test_sets}; do average "VIII.${row}.tok_${set#newstest20}" bleu_split "${set}"; done
    if [[ " ${metrics} " == *" bleu_detok "* ]]; then
        average "VII.${row}.test" bleu_detok "${years}"
        if "${has_dev}"; then average "VII.${row}.dev" bleu_detok newstest2013; fi
        for set in ${test_sets}; do average "VIII.${row}.detok_${set#newstest20}" bleu_detok "${set}"; done
    fi
    if [ "${system}" = legonn ] || [ "${system}" = beam_conv ]; then
        average "IX.mt_${row}.second" bleu_split "${years}" encoder
        if "${has_dev}"; then average "IX.mt_${row}.first" bleu_split newstest2013 encoder; fi
        for seed in ${seeds}; do
            exp=${expdir}/legonn_${system}_seed${seed}
            # beside the scores, where a mean looks
            python3 -m espnet2_legonn.recipes.valid_loss "${exp}" \
                "${exp}/${decode_tag}/${sets[-1]}/interfaces/encoder/score_ctc_loss"
        done
        average "IX.mt_${row}.loss" ctc_loss "${sets[-1]}" encoder
    fi
done
print_tables "${expdir}/TABLES_en_de.md" I VII VIII IX
