#!/usr/bin/env bash
# What scripts of compositions share (run_compose_*.sh, run_three_modules.sh, ...). Source it in a recipe's folder after
# path.sh and the options, which are: expdir ngpu nj decode_tag.
# An experiment exp/legonn_<name> is left alone once its test set is scored. A training that was stopped goes on.
#
# MODEL or PART is what `legonn compose` takes: an experiment's folder, a pack, a URL, a name of the inventory. #module
# behind it takes modules. OPTIONS are those of legonn.sh.
# shellcheck disable=SC2154  # the options

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (${0##*/}) $*"; }
# Where stage 13 leaves a result: NAME SET METRIC
scored() { echo "${expdir}/legonn_$1/${decode_tag}/$2/score_$3"; }
is_scored() { [ -f "$(scored "$@")/result.json" ]; }
# The stages, with what all experiments of a composition share
stages() {
    local runner=$1
    shift
    "${runner}" --inference_tag "${decode_tag}" --expdir "${expdir}" --ngpu "${ngpu}" --nj "${nj}" \
        --inference_nj "${nj}" --stop_stage 13 "$@"
}

# train_model NAME SET METRIC OPTIONS...: train, decode and score, with --legonn_config among the options
train_model() {
    if is_scored "$1" "$2" "$3"; then log "$1: scored before"; return; fi
    log "$1: training"
    stages legonn.sh --legonn_tag "$1" --test_sets "$2" --metrics "$3" --stage 10 "${@:4}"
}

# plug_model NAME SET METRIC OPTIONS... -- PART...: put together without an update, decode and score
plug_model() {
    local name=$1 set=$2 metric=$3 options=()
    shift 3
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    if is_scored "${name}" "${set}" "${metric}"; then log "${name}: scored before"; return; fi
    log "${name}: $*"
    python3 -m espnet2_legonn.bin.legonn compose "$@" -o "${expdir}/legonn_${name}" \
        ${finetune_config:+--finetune "${finetune_config}"}
    stages legonn.sh --legonn_exp "${expdir}/legonn_${name}" --test_sets "${set}" --metrics "${metric}" \
        --stage 12 "${options[@]}"
}

# plug_run NAME SET METRIC PART PART OPTIONS...: the same by the recipe's own run.sh, whose options and scores it takes
plug_run() {
    if is_scored "$1" "$2" "$3"; then log "$1: scored before"; return; fi
    log "$1: $4 $5"
    python3 -m espnet2_legonn.bin.legonn compose "$4" "$5" -o "${expdir}/legonn_$1"
    stages ./run.sh --legonn_exp "${expdir}/legonn_$1" --stage 12 "${@:6}"
}

# swap KIND ENCODER DECODER COMMAND...: COMMAND... NAME PART PART for decoders behind the encoders of all other seeds. The
# names are left in swapped
swapped=()
swap() {
    local a b
    swapped=()
    for a in ${seeds}; do
        for b in ${seeds}; do
            if [ "$2" = "$3" ] && [ "${a}" = "${b}" ]; then continue; fi # that is no swap
            swapped+=("$1_${a}_${b}")
            "${@:4}" "$1_${a}_${b}" "${expdir}/legonn_$2_seed${a}#encoder" "${expdir}/legonn_$3_seed${b}#decoder"
        done
    done
}

# figure_4 WEMB: all swaps of Figure 4, by the script's own `plug KIND ENCODER DECODER`. WEMB is the system with WEmb
figure_4() {
    local system
    log "Figure 4, left: another seed"
    for system in ${systems}; do plug "seed_${system}" "${system}" "${system}"; done
    log "Figure 4, middle: another ingestor"
    plug "architecture_$1" beam_conv "$1"
    plug architecture_beam_conv "$1" beam_conv
    log "Figure 4, right: encoders trained alone"
    plug "isolated_$1" encoder "$1"
    plug isolated_beam_conv encoder beam_conv
}

# tune_model NAME SET METRIC OPTIONS...: what plug_model made with ${finetune_config}, fine-tuned: exp/legonn_<name>_tuned
tune_model() {
    train_model "$1_tuned" "$2" "$3" --legonn_config "${expdir}/legonn_$1/train.yaml" \
        --legonn_stats_dir "${expdir}/legonn_stats_$1_tuned" --inference_legonn_model valid.loss_decoder.best.pth "${@:4}"
}

# train_elsewhere FOLDER DATA NAME SET METRIC OPTIONS...: by the run.sh of another recipe, in its folder, from stage 1
# on if it has no dump/raw/DATA yet
train_elsewhere() (
    cd "$1" || exit
    if is_scored "$3" "$4" "$5"; then log "$1, $3: scored before"; return; fi
    log "$1, $3: training"
    first=1
    if [ -f "dump/raw/$2/text" ]; then first=5; fi
    stages ./run.sh --legonn_tag "$3" --test_sets "$4" --metrics "$5" --stage "${first}" "${@:6}"
)

# with_lang CONFIG LANG: prints the name of that config, with all that it inherits, with data/LANG_token_list instead of
# data/en_token_list
with_lang() {
    local copy
    copy=${expdir}/conf/$(basename "${1%.yaml}")_$2.yaml
    mkdir -p "${expdir}/conf" || return # a $(...) does not know of set -e
    python3 -m espnet2_legonn.files.configs "$1" | sed "s|data/en_token_list|data/$2_token_list|g" > "${copy}" || return
    echo "${copy}"
}

# found TABLE.ROW[.COLUMN] NAME SET METRIC: a result for print_tables, if there is one
results=()
found() { if is_scored "$2" "$3" "$4"; then results+=("$1=$(scored "$2" "$3" "$4")"); fi; }

# print_tables FILE TABLE...: the paper's tables with what `found` collected
print_tables() {
    python3 -m espnet2_legonn.recipes.paper_tables "${@:2}" --found "${results[@]}" --out "$1"
    log "written to $1"
}
