#!/usr/bin/env bash
# A language model as the decoder of Multi30K, plugged and then with LoRA, beside the recipe's own decoder. Needs what
# ./run.sh made of German and French, and pip install 'espnet2_legonn[lora]'.
#   MULTI30K=DIR ./run_lm.sh
set -euo pipefail
. ./path.sh

lm=exp/lm_en         # folder of the model. One that is there already is used
lm_epochs=6
de=exp/legonn_legonn_de_en
fr=exp/legonn_encoder_fr_en
bpe=data/en_token_list/bpe_unigram2000/bpe.model
options=             # of run.sh for all decodings and trainings
help_message="Usage: $0 [--lm FOLDER] [--lm_epochs N] [--de EXP] [--fr EXP] [--options \"...\"]"
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh

legonn() { python3 -m espnet2_legonn.bin.legonn "$@"; }
# shellcheck disable=SC2086
evaluate() { ./run.sh --src_lang "$1" --stage 12 --stop_stage 13 --legonn_exp "$2" ${options}; }

if [ ! -f "${lm}/model.safetensors" ]; then
    python3 local/train_lm.py --train dump/raw/train_de_en/text --valid dump/raw/valid_de_en/text \
        --bpemodel "${bpe}" --epochs "${lm_epochs}" --out "${lm}"
fi
legonn compose "${de}#encoder" "hf:${lm}" -o exp/legonn_lm_plugged --finetune conf/finetune_lm.yaml
evaluate de exp/legonn_lm_plugged
for blank in drop keep; do # what the model reads of blank, trained both ways
    # shellcheck disable=SC2086
    ./run.sh --stage 10 --stop_stage 13 --legonn_config exp/legonn_lm_plugged/train.yaml --average_window 3 \
        --legonn_exp "exp/legonn_lm_lora_${blank}" --legonn_stats_dir exp/legonn_stats_lm \
        --legonn_args "--modules_conf decoder.input.blank=${blank}" ${options}
done
# Another encoder, which this model has never read, and no update.
legonn compose "${fr}#encoder" exp/legonn_lm_lora_drop#decoder -o exp/legonn_lm_lora_fr
evaluate fr exp/legonn_lm_lora_fr
python3 -m espnet2_legonn.bin.legonn_score results "${de}" exp/legonn_lm_plugged exp/legonn_lm_lora_drop \
    exp/legonn_lm_lora_keep exp/legonn_lm_lora_fr --out exp/LANGUAGE_MODEL.md
