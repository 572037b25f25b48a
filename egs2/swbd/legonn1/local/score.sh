#!/usr/bin/env bash
# Stage 13: eval2000 through glm filtering, whole (hub5), Switchboard (swb) and CallHome (ch), of the final text and of
# every interface. Usage: local/score.sh [--scorer sctk|python] EXP
set -euo pipefail
. ./path.sh
exp=${*: -1}
for decoded in "${exp}"/*/eval2000; do
    for folder in "${decoded}" "${decoded}"/interfaces/*; do
        if [ -f "${folder}/text" ]; then
            python3 -m legonn_corpora.hub5 --stm data/eval2000/stm --glm data/eval2000/glm \
                --hyp "${folder}/text" --outdir "${folder}" "${@:1:$#-1}"
        fi
    done
done
