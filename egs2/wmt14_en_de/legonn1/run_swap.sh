#!/usr/bin/env bash
# Figure 4 and Table X on WMT En-De: decoders behind encoders of another seed, of another ingestor, and trained alone.
#   WMT14_EN_DE=DIR ./run_baselines.sh --ngpu 8 && ./run_swap.sh --ngpu 8
# Figure 4 is of the five test sets of Table I, Table X of newstest2014. --baseline_swap true also swaps the parts of
# ordinary encoder-decoder models: hidden states are no interface, and in the paper that fails completely.
# Table X trains one system more, for each seed: legonn cost conf/train_no_ctc.yaml --gpus 8
set -euo pipefail
. ./path.sh

expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=4
conf=conf          # folder of train_<system><suffix>.yaml
suffix=            # --conf conf/tuning --suffix _1gpu: for one GPU
seeds="1 2 3"
test_sets="newstest2011 newstest2012 newstest2014 newstest2015 newstest2016"  # Figure 4
set=newstest2014   # Table X
baseline_swap=false
train_opts=        # options of legonn.sh for all trainings
decode_tag=decode
finetune_config=   # nothing is fine-tuned here
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"]. Options are the variables at its head"
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh
read -ra extra <<< "${train_opts}"
en_de=(--input text --src_lang en --train_set train_en_de --valid_set newstest2013 --inference_config conf/decode.yaml
    --average_candidates 0 --average_config conf/decode.yaml)

mean() { # NAME REFERENCE SETS EXPERIMENT...: over sets and experiments
    local name=$1 reference=$2 where=$3 places=() one place
    shift 3
    for place in "$@"; do
        for one in ${where}; do places+=("$(scored "${place}" "${one}" bleu_split)"); done
    done
    python3 -m espnet2_legonn.recipes.mean_scores "${expdir}/mean/${name}" "${places[@]}" \
        ${reference:+--reference "${expdir}/mean/${reference}"}
}
plug() { # KIND ENCODER DECODER [SETS]: both without seeds
    local where=${4:-${test_sets}}
    swap "$1" "$2" "$3" decode
    if [ ${#swapped[@]} -gt 0 ]; then
        if [ "$3" != no_ctc ]; then mean "$1" "$3" "${where}" "${swapped[@]}"; fi
        if [[ " ${where} " == *" ${set} "* ]]; then mean "$1_${set}" "$3_${set}" "${set}" "${swapped[@]}"; fi
    fi
}
decode() { # NAME PART PART: on the sets of plug
    plug_model "$1" "${where##* }" bleu_split "${en_de[@]}" --test_sets "${where}" -- "$2" "$3"
}

for seed in ${seeds}; do # Table X: without CTC and length controller
    train_model "no_ctc_seed${seed}" "${set}" bleu_split "${en_de[@]}" --legonn_config "${conf}/train_no_ctc${suffix}.yaml" \
        --legonn_args "--seed ${seed}" "${extra[@]}"
done
systems="legonn beam_conv"
if "${baseline_swap}"; then systems+=" baseline"; fi
for system in ${systems} no_ctc; do # 100 %
    names=()
    for seed in ${seeds}; do names+=("${system}_seed${seed}"); done
    if [ "${system}" != no_ctc ]; then mean "${system}" "" "${test_sets}" "${names[@]}"; fi
    mean "${system}_${set}" "" "${set}" "${names[@]}"
done
figure_4 legonn

log "Table X"
plug seed_no_ctc no_ctc no_ctc "${set}"
results+=("X.ctc.own=${expdir}/mean/legonn_${set}" "X.no_ctc.own=${expdir}/mean/no_ctc_${set}")
if [ -d "${expdir}/mean/seed_legonn_${set}" ]; then
    results+=("X.ctc.swap=${expdir}/mean/seed_legonn_${set}" "X.no_ctc.swap=${expdir}/mean/seed_no_ctc_${set}")
fi
print_tables "${expdir}/TABLES_swap.md" X
