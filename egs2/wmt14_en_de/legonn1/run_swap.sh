#!/usr/bin/env bash
# Figure 4 and Table X on WMT En-De: decoders behind encoders of another seed, of another ingestor, and trained alone.
#   WMT14_EN_DE=DIR ./run_baselines.sh --ngpu 8 && ./run_swap.sh --ngpu 8
# The paper also swaps parts of ordinary encoder-decoder models, which fails completely; hidden states are no interface,
# so `legonn compose` refuses to.
set -euo pipefail
. ./path.sh

expdir=exp
ngpu=auto            # GPUs: those of this machine; a cluster wants a number
nj=4
conf=conf          # folder of train_<system><suffix>.yaml
suffix=            # --conf conf/tuning --suffix _1gpu: for one GPU
seeds="1 2 3"
set=newstest2014   # the paper's Table X; for Figure 4 too
train_opts=        # options of legonn.sh for all trainings
decode_tag=decode
finetune_config=   # nothing is fine-tuned here
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"]; options are the variables at its head"
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh
read -ra extra <<< "${train_opts}"
en_de=(--input text --src_lang en --train_set train_en_de --valid_set newstest2013 --inference_config conf/decode.yaml
    --average_candidates 0 --average_config conf/decode.yaml)

plug() { # KIND ENCODER DECODER: both without seeds
    local a b places=()
    for a in ${seeds}; do
        for b in ${seeds}; do
            if [ "$2" = "$3" ] && [ "${a}" = "${b}" ]; then continue; fi # that is no swap
            plug_model "$1_${a}_${b}" "${set}" bleu_split "${en_de[@]}" -- \
                "${expdir}/legonn_$2_seed${a}#encoder" "${expdir}/legonn_$3_seed${b}#decoder"
            places+=("$(scored "$1_${a}_${b}" "${set}" bleu_split)")
        done
    done
    if [ ${#places[@]} -gt 0 ]; then
        python3 -m espnet2_legonn.recipe.mean_scores "${expdir}/mean/$1" "${places[@]}" --reference "${expdir}/mean/$3"
    fi
}

for seed in ${seeds}; do # Table X: without CTC and length controller
    train_model "no_ctc_seed${seed}" "${set}" bleu_split "${en_de[@]}" --legonn_config "${conf}/train_no_ctc${suffix}.yaml" \
        --legonn_args "--seed ${seed}" "${extra[@]}"
done
for system in legonn beam_conv no_ctc; do # 100 %
    places=()
    for seed in ${seeds}; do places+=("$(scored "${system}_seed${seed}" "${set}" bleu_split)"); done
    python3 -m espnet2_legonn.recipe.mean_scores "${expdir}/mean/${system}" "${places[@]}"
done
log "Figure 4, left: another seed"
for system in legonn beam_conv no_ctc; do plug "seed_${system}" "${system}" "${system}"; done
log "Figure 4, middle: another ingestor"
plug architecture_legonn beam_conv legonn
plug architecture_beam_conv legonn beam_conv
log "Figure 4, right: encoders trained alone"
plug isolated_legonn encoder legonn
plug isolated_beam_conv encoder beam_conv

results+=("X.ctc.own=${expdir}/mean/legonn" "X.no_ctc.own=${expdir}/mean/no_ctc")
if [ -d "${expdir}/mean/seed_legonn" ]; then
    results+=("X.ctc.swap=${expdir}/mean/seed_legonn" "X.no_ctc.swap=${expdir}/mean/seed_no_ctc")
fi
print_tables "${expdir}/TABLES_swap.md" X
