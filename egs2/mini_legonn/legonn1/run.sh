#!/usr/bin/env bash
# LegoNN in miniature: an embedded corpus, the paper's Tables III-VI and X. `make demo` runs all of it.
set -euo pipefail

stage=1              # 1 data, 3-5 format, filter, vocabularies, 10-13 the experiments of conf/plan.yaml, 14 packs
stop_stage=10000
nj=2                 # processes
plan=conf/plan.yaml
data_opts="--de_en 8000 --ro_en 700 --test 1000"   # options of local/data.py
nbpe=300             # English
src_nbpe=500         # German, Romanian
expdir=exp
packs="mt_de_en mt_de_en_collapsed mt_de_en_beam_conv ro_encoder asr_encoder"   # stage 14
inventory=exp/packs  # where stage 14 puts them
tables=first         # which tables to fill: first, all, or study
only=                # experiments to run, with what they need (default: those of the tables)
report=              # where the tables are written (default: exp/RESULTS.md; with --seeds exp/study/STUDY.md)
seeds=               # repeat all with each of them, for mean and deviation: "1 2 3"
help_message="Usage: $0 [--stage N] [--stop_stage N] [--nj N] [--plan FILE] [--tables first|all|study]
    [--only \"NAMES\"] [--seeds \"NUMBERS\"]"

SECONDS=0
. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh

english="dump/raw/train_de_en/text dump/raw/train_ro_en/text dump/raw/train_asr/text dump/raw/train_ted/text"
common=(--nj "${nj}" --lang en --nbpe "${nbpe}" --src_nbpe "${src_nbpe}" --expdir "${expdir}")
active() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
translation() { # de | ro, first stage, last stage
    legonn.sh "${common[@]}" --input text --src_lang "$1" --train_set "train_$1_en" --valid_set "valid_$1_en" \
        --test_sets "test_$1_en" --bpe_train_text "${english}" --stage "$2" --stop_stage "$3"
}

if active 1; then
    # shellcheck disable=SC2086
    local/data.sh --nj "${nj}" ${data_opts}
fi
if active 3 || active 4; then
    range=("$((stage > 3 ? stage : 3))" "$((stop_stage < 4 ? stop_stage : 4))")
    for src in de ro; do translation "${src}" "${range[@]}"; done
    legonn.sh "${common[@]}" --audio_format wav --train_set train_asr --valid_set valid_asr --test_sets test_asr \
        --stage "${range[0]}" --stop_stage "${range[1]}"
    legonn.sh "${common[@]}" --audio_format wav --train_set train_ted --valid_set valid_ted --test_sets valid_ted \
        --stage "${range[0]}" --stop_stage "${range[1]}"
fi
if active 5; then # after all others: the English vocabulary sees all texts
    for src in de ro; do translation "${src}" 5 5; done
    python3 -m espnet2_legonn.data.cli vocab data/en_token_list/phn dump/raw/train_asr/text_phn \
        dump/raw/train_ted/text_phn --unit phn
    # shellcheck disable=SC2086
    python3 -m espnet2_legonn.data.cli vocab data/en_token_list/char ${english} --unit char
fi
if active 5 && [ "${plan}" = conf/plan_lm.yaml ] && [ ! -f exp/lm_en/model.safetensors ]; then
    python3 ../../multi30k/legonn1/local/train_lm.py --train dump/raw/train_de_en/text --valid dump/raw/valid_de_en/text \
        --bpemodel "data/en_token_list/bpe_unigram${nbpe}/bpe.model" --size 128 --out exp/lm_en
fi
if [ "${stage}" -le 13 ] && [ "${stop_stage}" -ge 10 ]; then
    # shellcheck disable=SC2086
    python3 -m espnet2_legonn.bin.legonn_plan "${plan}" --workers "${nj}" --expdir "${expdir}${seeds:+/study}" \
        --tables "${tables}" ${only:+--only ${only}} ${seeds:+--seeds ${seeds}} ${report:+--report "${report}"}
fi
if active 14; then
    for name in ${packs}; do
        [ -d "${expdir}/legonn_${name}" ] || continue # not among --only
        python3 -m espnet2_legonn.bin.legonn pack "${expdir}/legonn_${name}" --about conf/card.yaml --out "${expdir}/made"
        python3 -m espnet2_legonn.bin.legonn push "${expdir}/made/${name}" --inventory "${inventory}" --replace
    done
fi
echo "$0: done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
