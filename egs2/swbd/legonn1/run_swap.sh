#!/usr/bin/env bash
# The speech bars of Figure 4: decoders behind encoders of another seed, of another ingestor, and trained alone; means over
# all pairs of seeds, in per cent of Table II. SWBD=DIR ./run_baselines.sh --ngpu 8 && ./run_swap.sh --ngpu 8
# --baseline_swap true also swaps the parts of ordinary encoder-decoder models, which fails completely in the paper; nothing
# is decoded without it but what `legonn compose` finds fit.
set -euo pipefail

expdir=exp
ngpu=auto            # GPUs: those of this machine; a cluster wants a number
nj=8
decode_tag=decode
test_set=eval2000
seeds="1 2 3"
baseline_swap=false
speech_args=         # options of run.sh for all decodings
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"] [--baseline_swap true]; options are the variables at its head"

. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh

mean() { # NAME REFERENCE PLACE...: of SWB and CH
    local part name=$1 reference=$2 place places
    shift 2
    for part in swb ch; do
        places=()
        for place in "$@"; do places+=("${expdir}/legonn_${place}/${decode_tag}/${test_set}/score_wer_${part}"); done
        python3 -m espnet2_legonn.recipes.mean_scores "${expdir}/mean/${name}_${part}" "${places[@]}" \
            ${reference:+--reference "${expdir}/mean/${reference}_${part}"}
    done
}
plug() { # KIND ENCODER DECODER: both without seeds
    local a b name names=()
    for a in ${seeds}; do
        for b in ${seeds}; do
            if [ "$2" = "$3" ] && [ "${a}" = "${b}" ]; then continue; fi # that is no swap
            name=$1_${a}_${b}
            names+=("${name}")
            if is_scored "${name}" "${test_set}" wer_swb; then log "${name}: scored before"; continue; fi
            log "${name}: $2_seed${a} $3_seed${b}"
            python3 -m espnet2_legonn.bin.legonn compose "${expdir}/legonn_$2_seed${a}#encoder" \
                "${expdir}/legonn_$3_seed${b}#decoder" -o "${expdir}/legonn_${name}"
            # shellcheck disable=SC2086
            stages ./run.sh --legonn_exp "${expdir}/legonn_${name}" --stage 12 ${speech_args}
        done
    done
    if [ ${#names[@]} -gt 0 ]; then mean "$1" "$3" "${names[@]}"; fi
}

systems="wemb beam_conv"
if "${baseline_swap}"; then systems+=" baseline"; fi
for system in ${systems}; do # 100 %
    names=()
    for seed in ${seeds}; do names+=("${system}_seed${seed}"); done
    mean "${system}" "" "${names[@]}"
done
log "Figure 4, left: another seed"
for system in ${systems}; do plug "seed_${system}" "${system}" "${system}"; done
log "Figure 4, middle: another ingestor"
plug architecture_wemb beam_conv wemb
plug architecture_beam_conv wemb beam_conv
log "Figure 4, right: encoders trained alone"
plug isolated_wemb encoder wemb
plug isolated_beam_conv encoder beam_conv
