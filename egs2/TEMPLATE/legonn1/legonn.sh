#!/usr/bin/env bash
# The stages of a LegoNN recipe. Recipes call it from their folder with their own defaults; see run.sh there.
set -euo pipefail
{ # bash reads a script as it runs it; the braces make it read all of it first, so an edit cannot hurt a running job

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"; }
SECONDS=0

# General
stage=1              # first stage
stop_stage=10000     # last stage
skip_stages=         # stages to leave out: "2 13"
ngpu=auto            # GPUs; auto: those of this machine (a cluster wants a number), 0: CPU
num_nodes=1
nj=4                 # jobs of data preparation and statistics
inference_nj=2       # jobs of decoding
dumpdir=dump
expdir=exp
# Data
train_set=           # required
valid_set=           # required
test_sets=           # required
local_data_opts=     # options of local/data.sh
input=speech         # speech | text
speed_perturb_factors=   # for speech: "0.9 1.0 1.1"
fs=16k
audio_format=flac
channel=             # of audio with several channels: mean, or a number from 0
min_wav_duration=0.1
max_wav_duration=20
max_tokens=250       # words of a text, stage 4
max_ratio=           # longer / shorter side of a translation, stage 4; 1.5 in the paper
# Vocabularies (stage 5)
lang=en              # of the target
src_lang=
src_case=            # text: data/<set> has text.<case>.<lang> as in ESPnet, and not src_text and text; tc, lc.rm, ...
tgt_case=            # of the target; default: src_case
token_type=bpe       # bpe | char | word
nbpe=1000
bpemode=unigram
bpe_train_text=      # texts of the target vocabulary; default: the training text
token_joint=false    # text: source and target share one vocabulary, that of the target
vocab_opts=          # a vocabulary made or adopted by `legonn vocab` with these options, instead of --nbpe and the like
src_nbpe=1000
src_bpemode=unigram
use_phonemes=false   # make text_phn and its vocabulary
phoneme_opts="--backend auto --strip_stress"
# Model
legonn_config=conf/train_legonn.yaml
legonn_args=         # options of training; they win over the config
legonn_tag=
legonn_exp=          # default: exp/legonn_<tag>
legonn_stats_dir=
average_window=10    # checkpoints averaged (0: no averaging)
average_candidates=3 # windows tried, the newest first (0: all of the checkpoints that were kept)
average_stride=1
average_limit=0      # validation utterances decoded to choose the window (0: all)
average_config=      # a search whose beam_size and length_penalty these decodings take (default: beam 1)
# Decoding and scoring
inference_config=
inference_args=
inference_tag=
inference_legonn_model=  # weights in the experiment; default: the averaged ones
tune_search=true     # stage 12: choose ctc_weight and length_penalty on the validation set, unless ctc_weight is given
tune_limit=500       # validation utterances for it (0: all)
metrics="wer cer"    # wer cer bleu bleu_tok bleu_split bleu_detok (scoring/metrics.py); the first picks checkpoints
local_score_opts=
# Packs
download_model=      # decode with this pack (folder, zip, URL, inventory name, hub tag): no training
packs_dir=           # default: <legonn_exp>/packs
card=conf/card.yaml  # description, license, training_data, ... for the packs' cards
skip_packing=false   # stage 14
skip_upload=true     # stage 15
hf_repo=             # stage 15: <user>/<name> on the Hugging Face Hub, one repository a pack
inventory=           # stage 15: or an inventory, any place that fsspec reaches
upload_args=         # --dry_run shows what would go up

help_message="Usage: $0 --train_set NAME --valid_set NAME --test_sets \"NAMES\" [options]
Stages: 1 data, 2 speed perturbation, 3 format, 4 length filter, 5 vocabularies and phonemes, (6-9 reserved for
language models), 10 statistics, 11 train, 12 decode, 13 score, 14 pack, 15 upload.
Options are the variables at the head of $0, for instance --stage 11 --legonn_config conf/x.yaml --nj 8."

log "$0 $*"
run_args=("$0" "$@")
# shellcheck source=parse_options.sh
. parse_options.sh
# shellcheck source=path.sh
. ./path.sh
# shellcheck source=cmd.sh
. ./cmd.sh

for name in train_set valid_set test_sets; do
    [ -n "${!name}" ] || { log "error: --${name} is required"; exit 2; }
done

if [ "${ngpu}" = auto ]; then
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        read -ra visible <<< "${CUDA_VISIBLE_DEVICES//,/ }"
        ngpu=${#visible[@]}
    else
        ngpu=$(nvidia-smi -L 2> /dev/null | grep -c '^GPU' || true)
    fi
    log "--ngpu ${ngpu}: the GPUs of this machine"
fi

active() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && [[ " ${skip_stages} " != *" $1 "* ]]; }
# One process, or one that is parallel inside (--nj): here, or on a cluster as one job of so many cores.
one_job() { # CORES|gpu LOG COMMAND...
    case "${cmd_backend}" in
        local | stdout) "${@:3}" ;;
        *)
            local job="${train_cmd} --num_threads $1"
            if [ "$1" = gpu ]; then job="${cuda_cmd} --gpu 1"; fi
            # shellcheck disable=SC2086
            ${job} "${@:2}" || return
            { grep -v '^#' "$2" || true; } ;;
    esac
}
data_cli() { # STEP TARGET...
    local cores=1
    if [ "$1" = format ]; then cores=${nj}; fi
    one_job "${cores}" "${dumpdir}/log/$1_${2//\//_}.log" python3 -m espnet2_legonn.data.cli "$@"
}
legonn_cli() { python3 -m espnet2_legonn.bin.legonn "$@"; }
stage_cli() { python3 -m espnet2_legonn.bin.legonn_stage "$@"; }
# A script that repeats a stage, beside its results.
repeatable() {
    mkdir -p "$2"
    { echo "#!/usr/bin/env bash"; printf '%q ' "${run_args[@]}" --stage "$1"; echo '"$@"'; } > "$2/run.sh"
    chmod +x "$2/run.sh"
    log "Stage $1: $2 (again with $2/run.sh)"
}

if [ "${input}" = text ]; then speed_perturb_factors=; fi
plain_train_set=${train_set}
if [ -n "${speed_perturb_factors}" ]; then train_set=${train_set}_sp; fi
token_dir=data/${lang}_token_list/${token_type}_${bpemode}${nbpe}
raw=${dumpdir}/raw

if active 1; then
    log "Stage 1: data preparation"
    # shellcheck disable=SC2086
    local/data.sh ${local_data_opts}
fi
if active 2 && [ -n "${speed_perturb_factors}" ]; then
    log "Stage 2: speed perturbation: data/${plain_train_set} -> data/${train_set}"
    # shellcheck disable=SC2086
    data_cli perturb "data/${plain_train_set}" "data/${train_set}" --factors ${speed_perturb_factors}
fi
if active 3; then
    for set in ${train_set} ${valid_set} ${test_sets}; do
        target=${raw}/${set}
        if [ "${set}" = "${train_set}" ] || [ "${set}" = "${valid_set}" ]; then target=${raw}/org/${set}; fi
        log "Stage 3: data/${set} -> ${target}"
        if [ "${input}" = speech ]; then
            data_cli format "data/${set}" "${target}" --fs "${fs}" --audio_format "${audio_format}" --nj "${nj}" \
                ${channel:+--channel "${channel}"}
        else
            data_cli copy "data/${set}" "${target}" \
                ${src_case:+--pair "text.${src_case}.${src_lang}" "text.${tgt_case:-${src_case}}.${lang}"}
        fi
    done
fi
if active 4; then
    for set in ${train_set} ${valid_set}; do
        log "Stage 4: length filter: ${raw}/org/${set} -> ${raw}/${set}"
        limits=(--min_tokens 1 --max_tokens "${max_tokens}")
        if [ "${input}" = speech ]; then
            limits+=(--fs "${fs}" --min_wav_duration "${min_wav_duration}" --max_wav_duration "${max_wav_duration}")
        fi
        if [ -n "${max_ratio}" ]; then limits+=(--max_ratio "${max_ratio}"); fi
        data_cli filter "${raw}/org/${set}" "${raw}/${set}" "${limits[@]}"
    done
fi
if active 5; then
    log "Stage 5: vocabularies"
    if [ -n "${vocab_opts}" ]; then
        # shellcheck disable=SC2086
        one_job 1 "${dumpdir}/log/vocab_${token_dir//\//_}.log" \
            python3 -m espnet2_legonn.bin.legonn vocab "${token_dir}" --unit "${token_type}" ${vocab_opts}
    else
        # shellcheck disable=SC2086
        data_cli vocab "${token_dir}" ${bpe_train_text:-${raw}/${train_set}/text} \
            --unit "${token_type}" --vocab_size "${nbpe}" --model_type "${bpemode}" --report_on "${raw}/${valid_set}/text"
    fi
    if [ "${input}" = text ] && ! "${token_joint}"; then
        data_cli vocab "data/${src_lang}_token_list/bpe_${src_bpemode}${src_nbpe}" "${raw}/${train_set}/src_text" \
            --unit bpe --vocab_size "${src_nbpe}" --model_type "${src_bpemode}" \
            --report_on "${raw}/${valid_set}/src_text"
    fi
    if "${use_phonemes}"; then
        for set in ${train_set} ${valid_set} ${test_sets}; do
            # shellcheck disable=SC2086
            [ -f "${raw}/${set}/text_phn" ] || data_cli phonemes "${raw}/${set}" ${phoneme_opts}
        done
        data_cli vocab "data/${lang}_token_list/phn" "${raw}/${train_set}/text_phn" --unit phn
    fi
fi

config_name=$(basename "${legonn_config}" .yaml)
if [ -z "${legonn_tag}" ]; then
    legonn_tag=${config_name#train_}
    if [ -n "${legonn_args}" ]; then legonn_tag+=$(sed -e 's/--/_/g' -e 's/[ =/]//g' <<< "${legonn_args}"); fi
fi
: "${legonn_stats_dir:=${expdir}/legonn_stats_${train_set}_${config_name#train_}}"
: "${legonn_exp:=${expdir}/legonn_${legonn_tag}}"

if [ -n "${download_model}" ]; then
    legonn_exp=${expdir}/$(basename "${download_model%.zip}" | tr -c '[:alnum:]_.\n-' _)
    content() { legonn_cli info "$1" --json | sed -n 's/^ "content_sha256": "\([0-9a-f]\{12\}\).*/\1/p'; }
    if [ -f "${legonn_exp}/config.yaml" ]; then  # another pack may be called the same
        wanted=$(content "${download_model}")
        [ "${wanted}" = "$(content "${legonn_exp}")" ] || legonn_exp+=_${wanted}
    fi
    log "Using ${download_model} as ${legonn_exp}; stages 10 and 11 are left out"
    [ -f "${legonn_exp}/config.yaml" ] || legonn_cli pull "${download_model}" -o "${legonn_exp}"
    skip_stages+=" 10 11"
fi

if active 10; then
    repeatable 10 "${legonn_stats_dir}"
    stage_cli stats --config "${legonn_config}" --train "${raw}/${train_set}" --valid "${raw}/${valid_set}" \
        --out "${legonn_stats_dir}" --cmd "${train_cmd}" --nj "${nj}"
fi
if active 11; then
    repeatable 11 "${legonn_exp}"
    # shellcheck disable=SC2086
    stage_cli train --config "${legonn_config}" --train "${raw}/${train_set}" --valid "${raw}/${valid_set}" \
        --stats_dir "${legonn_stats_dir}" --out "${legonn_exp}" --cmd "${cuda_cmd}" --ngpu "${ngpu}" \
        --num_nodes "${num_nodes}" ${legonn_args}
    if [ "${average_window}" -gt 0 ]; then
        read -r first_metric _ <<< "${metrics}"
        average_on=${nj}
        if [ "${ngpu}" -gt 0 ]; then average_on=gpu; fi
        one_job "${average_on}" "${legonn_exp}/average.log" \
            python3 -m espnet2_legonn.bin.legonn_average "${legonn_exp}" --data "${raw}/${valid_set}" \
            --metric "${first_metric}" --window "${average_window}" --candidates "${average_candidates}" \
            --stride "${average_stride}" --limit "${average_limit}" --ngpu "${ngpu}" --num_threads "${nj}" \
            ${average_config:+--config "${average_config}"}
    fi
fi

if [ -z "${inference_tag}" ]; then
    inference_tag=$(basename "${inference_config:-decode}" .yaml)
    if [ -n "${inference_legonn_model}" ]; then # as ESPnet's recipes do
        inference_tag+=_legonn_model_$(basename "${inference_legonn_model}" .pth)
    fi
    if [ -n "${inference_args}" ]; then inference_tag+=$(sed -e 's/--/_/g' -e 's/[ =/]//g' <<< "${inference_args}"); fi
fi
if active 12; then
    if grep -qs '^ctc_weight:' "${inference_config}" || [[ "${inference_args}" == *--ctc_weight* ]]; then
        tune_search=false # nothing would search with what was found
    fi
    if "${tune_search}" && [ -d "${raw}/${valid_set}" ]; then
        log "Stage 12: weights of the search, tuned on ${raw}/${valid_set}"
        stage_cli tune --exp "${legonn_exp}" --data "${raw}/${valid_set}" --metric "${metrics%% *}" \
            --limit "${tune_limit}" ${inference_legonn_model:+--model "${inference_legonn_model}"}
    fi
    for set in ${test_sets}; do
        out=${legonn_exp}/${inference_tag}/${set}
        repeatable 12 "${out}"
        # shellcheck disable=SC2086
        stage_cli decode --exp "${legonn_exp}" --data "${raw}/${set}" --out "${out}" --cmd "${decode_cmd}" \
            --nj "${inference_nj}" --ngpu "${ngpu}" ${inference_legonn_model:+--model ${inference_legonn_model}} \
            ${inference_config:+--config ${inference_config}} ${inference_args}
    done
fi
if active 13; then
    for set in ${test_sets}; do
        # shellcheck disable=SC2086
        stage_cli score --exp "${legonn_exp}" --data "${raw}/${set}" --decoded "${legonn_exp}/${inference_tag}/${set}" \
            --metrics ${metrics}
    done
    if [ -f local/score.sh ]; then
        # shellcheck disable=SC2086
        local/score.sh ${local_score_opts} "${legonn_exp}"
    fi
    python3 -m espnet2_legonn.bin.legonn_score results "${legonn_exp}"
fi
packs=${packs_dir:-${legonn_exp}/packs}
if active 14 && ! "${skip_packing}"; then
    log "Stage 14: packs: ${packs}"
    if [ -f "${card}" ]; then about=(--about "${card}"); else about=(); fi
    legonn_cli pack "${legonn_exp}" --out "${packs}" "${about[@]}" \
        ${inference_legonn_model:+--model "${inference_legonn_model}"}
fi
if active 15 && ! "${skip_upload}"; then
    if [ -z "${hf_repo}${inventory}" ]; then log "error: stage 15 needs --hf_repo or --inventory"; exit 2; fi
    for pack in "${packs}"/*/; do
        pack=${pack%/}
        log "Stage 15: ${pack} -> ${hf_repo:-${inventory}}"
        # shellcheck disable=SC2086
        legonn_cli push "${pack}" ${hf_repo:+--hub "${hf_repo}_$(basename "${pack}")"} \
            ${inventory:+--inventory "${inventory}"} ${upload_args}
    done
fi
log "Successfully finished. [elapsed=${SECONDS}s]"
exit
}
