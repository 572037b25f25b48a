#!/usr/bin/env bash
# The paper's Table XI: encoders of 10 % and 30 % of Switchboard, alone and in front of decoders that heard all of it.
# SWBD=DIR ./run_low_resource.sh
# The paper's encoders have no length control here, since on one corpus the slots are those that the decoder knows. That
# holds only if the decoder was trained behind an encoder without it too, so those are trained so (wemb_full, ...).
# What is given (--decoder, --beam_conv_decoder) is not trained. What is scored is not done again.
set -euo pipefail

conf=conf            # folder of train_{baseline,encoder,wemb,beam_conv}<suffix>.yaml
suffix=              # --conf conf/tuning --suffix _1gpu: for one GPU
expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=8
decode_tag=decode
test_set=eval2000
shares="10 30"       # percent of the training utterances: whole sides of conversations, chosen by a hash of their names
decoder=             # trained on everything, to take instead: exp/legonn_x#decoder, a pack, a name of the inventory
beam_conv_decoder=
data_args=           # options of run.sh for stages 1 to 5
speech_args=         # options of run.sh for all trainings
help_message="Usage: $0 [--conf conf/tuning --suffix _1gpu --ngpu 1] [--shares \"10 30\"] [--decoder MODEL] ..."

. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh

train() { # NAME TRAIN_SET CONFIG OPTIONS...
    if is_scored "$1" "${test_set}" wer_swb; then log "$1: scored before"; return; fi
    log "$1: training"
    # shellcheck disable=SC2086
    stages ./run.sh --legonn_tag "$1" --train_set "$2" --legonn_config "${conf}/train_$3${suffix}.yaml" \
        --legonn_stats_dir "${expdir}/legonn_stats_$1" --stage 10 "${@:4}" ${speech_args}
}
# shellcheck disable=SC2086
plug() { plug_run "$1" "${test_set}" wer_swb "$2" "$3" ${speech_args}; } # NAME ENCODER DECODER
without_control=(--legonn_args "--modules_conf encoder.length_control=null")

# shellcheck disable=SC2086
[ -f dump/raw/train_dev/text ] || ./run.sh --nj "${nj}" --stop_stage 5 ${data_args}
if [ -z "${decoder}" ]; then
    train wemb_full train_nodup wemb "${without_control[@]}"
    decoder=${expdir}/legonn_wemb_full#decoder
fi
if [ -z "${beam_conv_decoder}" ]; then
    train beam_conv_full train_nodup beam_conv "${without_control[@]}"
    beam_conv_decoder=${expdir}/legonn_beam_conv_full#decoder
fi
for share in ${shares}; do
    set=train_nodup_${share}
    if [ ! -f "dump/raw/${set}_sp/text" ]; then
        number=$(($(wc -l < data/train_nodup/utt2spk) * share / 100))
        python3 -m espnet2_legonn.data.cli subset data/train_nodup "data/${set}" --speakers "${number}"
        # shellcheck disable=SC2086
        ./run.sh --train_set "${set}" --nj "${nj}" --stage 2 --stop_stage 4 ${data_args}
    fi
    train "baseline_${share}" "${set}" baseline
    train "encoder_${share}" "${set}" encoder "${without_control[@]}"
    plug "plug_beam_conv_${share}" "${expdir}/legonn_encoder_${share}" "${beam_conv_decoder}"
    plug "plug_wemb_${share}" "${expdir}/legonn_encoder_${share}" "${decoder}"
    for part in swb ch; do
        found "XI.baseline.${part}_${share}" "baseline_${share}" "${test_set}" "wer_${part}"
        found "XI.encoder.${part}_${share}" "encoder_${share}" "${test_set}" "wer_${part}"
        found "XI.beam_conv.${part}_${share}" "plug_beam_conv_${share}" "${test_set}" "wer_${part}"
        found "XI.wemb.${part}_${share}" "plug_wemb_${share}" "${test_set}" "wer_${part}"
    done
done
print_tables "${expdir}/table_XI.md" XI
