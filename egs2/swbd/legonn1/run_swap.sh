#!/usr/bin/env bash
# The speech bars of Figure 4: decoders behind encoders of another seed, of another ingestor, and trained alone. Means over
# all pairs of seeds, in per cent of Table II. SWBD=DIR ./run_baselines.sh --ngpu 8 && ./run_swap.sh --ngpu 8
# --baseline_swap true also swaps the parts of ordinary encoder-decoder models, which fails completely in the paper. Nothing
# is decoded without it but what `legonn compose` finds fit.
set -euo pipefail

expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=8
decode_tag=decode
test_set=eval2000
seeds="1 2 3"
baseline_swap=false
speech_args=         # options of run.sh for all decodings
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"] [--baseline_swap true]. Options are the variables at its head"

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
    swap "$1" "$2" "$3" decode
    if [ ${#swapped[@]} -gt 0 ]; then mean "$1" "$3" "${swapped[@]}"; fi
}
# shellcheck disable=SC2086
decode() { plug_run "$1" "${test_set}" wer_swb "$2" "$3" ${speech_args}; } # NAME PART PART

systems="wemb beam_conv"
if "${baseline_swap}"; then systems+=" baseline"; fi
for system in ${systems}; do # 100 %
    names=()
    for seed in ${seeds}; do names+=("${system}_seed${seed}"); done
    mean "${system}" "" "${names[@]}"
done
figure_4 wemb
