#!/usr/bin/env bash
# An input of one's own, from data to a plug: images of text in front of the shipped German-English decoder.
#   ./run.sh            trains, decodes, packs, checks and plugs; some minutes on two cores
set -euo pipefail
cd "$(dirname "$0")"
texts=${TEXTS:-../../egs2/mini_legonn/legonn1/data}    # stage 1 of the demo writes them
# shellcheck source=../../egs2/TEMPLATE/legonn1/path.sh
. ../../egs2/TEMPLATE/legonn1/path.sh
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" LEGONN_PLUGINS=glyphs
decoder=$(echo ../../packs/mt_de_en-*.zip)
stage() { python3 -m espnet2_legonn.bin.legonn_stage "$@"; }
legonn() { python3 -m espnet2_legonn.bin.legonn "$@"; }

python3 draw.py --texts "$texts" --out data
mkdir -p decoder && unzip -qo "$decoder" 'bpe_en.*' -d decoder
stage stats --config train.yaml --train data/train --valid data/valid --out exp/stats
stage train --config train.yaml --train data/train --valid data/valid --stats_dir exp/stats --out exp/reader
stage decode --exp exp/reader --data data/test --out exp/reader/decode/test
stage score --exp exp/reader --data data/test --decoded exp/reader/decode/test --metrics wer
legonn pack exp/reader -o exp/packs
legonn check exp/packs/reader "$decoder#decoder" || [ $? -eq 1 ] # 1: fits, but differs from training
legonn compose exp/packs/reader "$decoder#decoder" -o exp/plugged
stage decode --exp exp/plugged --data data/test --out exp/plugged/decode/test
stage score --exp exp/plugged --data data/test --decoded exp/plugged/decode/test --metrics wer
echo "on the page: legonn demo exp/packs/reader $decoder"
