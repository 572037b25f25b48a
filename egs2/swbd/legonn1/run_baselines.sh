#!/usr/bin/env bash
# Table II and the speech half of Table IX: baseline, encoder only, BeamConv and WEmb, the mean of three seeds. Trains what
# is missing. SWBD=DIR ./run_baselines.sh --ngpu 8
# All of it is 12 trainings. What one costs: legonn cost conf/train_wemb.yaml --gpus 8
set -euo pipefail

conf=conf            # folder of train_{baseline,encoder,beam_conv,wemb}<suffix>.yaml
suffix=              # --conf conf/tuning --suffix _1gpu: for one GPU
expdir=exp
ngpu=auto            # GPUs: those of this machine. A cluster wants a number
nj=8
decode_tag=decode
test_set=eval2000
seeds="1 2 3"        # the paper averages three
systems="baseline encoder beam_conv wemb"
data_args=           # options of run.sh for stages 1 to 5
speech_args=         # options of run.sh for all trainings
help_message="Usage: $0 [--ngpu N] [--seeds \"1 2 3\"] [--systems \"wemb\"]. Options are the variables at its head"

. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
# shellcheck source=../../TEMPLATE/legonn1/composition.sh
. composition.sh

average() { # TABLE.ROW.COLUMN SCORE [MODULE]: SYSTEM's mean over seeds
    local places=() seed
    for seed in ${seeds}; do
        places+=("${expdir}/legonn_${system}_seed${seed}/${decode_tag}/${test_set}/${3:+interfaces/$3/}$2")
    done
    python3 -m espnet2_legonn.recipes.mean_scores "${expdir}/mean/$1" "${places[@]}"
    results+=("$1=${expdir}/mean/$1")
}

# shellcheck disable=SC2086
[ -f dump/raw/train_dev/text ] || ./run.sh --nj "${nj}" --stop_stage 5 ${data_args}
for system in ${systems}; do
    for seed in ${seeds}; do
        name=${system}_seed${seed}
        exp=${expdir}/legonn_${name}
        if is_scored "${name}" "${test_set}" wer_swb; then log "${name}: scored before"; else
            log "${name}: training"
            # shellcheck disable=SC2086
            stages ./run.sh --legonn_tag "${name}" --legonn_config "${conf}/train_${system}${suffix}.yaml" \
                --legonn_args "--seed ${seed}" --stage 10 ${speech_args}
        fi
        if [ "${system}" = wemb ] || [ "${system}" = beam_conv ]; then
            python3 -m espnet2_legonn.recipes.valid_loss "${exp}" \
                "${exp}/${decode_tag}/${test_set}/interfaces/encoder/score_ctc_loss"
        fi
    done
    average "II.${system}.swb" score_wer_swb
    average "II.${system}.ch" score_wer_ch
    if [ "${system}" = wemb ] || [ "${system}" = beam_conv ]; then
        average "IX.asr_${system}.first" score_wer_swb encoder
        average "IX.asr_${system}.second" score_wer_ch encoder
        average "IX.asr_${system}.loss" score_ctc_loss encoder
    fi
done
print_tables "${expdir}/TABLES_swbd.md" II IX
