#!/usr/bin/env bash
# The stages of a LegoNN recipe. Recipes call it from their folder with their own defaults. See run.sh there.
set -euo pipefail
{ # bash reads a script as it runs it. The braces make it read all of it first, so an edit cannot hurt a running job

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (${BASH_SOURCE[0]##*/}) $*"; }
SECONDS=0
# GPUs of this machine that CUDA_VISIBLE_DEVICES leaves
gpus() {
    local found=0 visible
    if command -v nvidia-smi >/dev/null; then found=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true); fi
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        visible=$(tr ',' '\n' <<< "${CUDA_VISIBLE_DEVICES}" | grep -c '^[^-]' || true)
        if [ "${visible}" -lt "${found}" ]; then found=${visible}; fi
    fi
    echo "${found}"
}

# General
stage=1              # first stage
stop_stage=10000     # last stage
skip_stages=         # stages to leave out: "2 13"
skip_data_prep=false # leave out stages 1 to 5
skip_train=false     # leave out stages 2 and 4 to 11. Stage 3 makes ready test sets alone
skip_eval=false      # leave out stages 12 and 13
ngpu=auto            # auto: the GPUs of this machine (a cluster wants a number), 0: CPU
num_nodes=1          # machines that train together
nj=4                 # jobs of data preparation and statistics
inference_nj=2       # jobs of decoding
gpu_inference=true   # decode on GPUs too, where ngpu is above 0
dumpdir=dump         # what stages 3 to 5 make of data/
expdir=exp           # experiments
python=python3       # command that runs Python
# Data
train_set=           # required
valid_set=           # required
test_sets=           # required
local_data_opts=     # options of local/data.sh
input=speech         # speech | text
feats_type=raw       # raw: sound. extracted: feats.scp in dump/extracted, made before (stages 2 to 4 have nothing to do)
speed_perturb_factors=   # for speech: "0.9 1.0 1.1"
fs=16k               # sampling rate that stage 3 writes
audio_format=flac    # flac | wav
channel=             # of audio with several channels: mean, or a number from 0
min_wav_duration=0.1 # seconds, stage 4
max_wav_duration=20  # seconds, stage 4
cleaner=none         # of all texts, stage 3: tc | lc | lc.rm, or ESPnet's tacotron, whisper_en, ...
max_tokens=250       # words of a text, stage 4
max_ratio=           # longer / shorter side of a translation, stage 4 (1.5 in the paper)
# Vocabularies (stage 5)
lang=en              # of the target
src_lang=            # of a text that is read
src_case=            # text: data/<set> has text.<case>.<lang> as in ESPnet, and not src_text and text (tc, lc.rm, ...)
tgt_case=            # of the target. Default: src_case
token_type=bpe       # bpe | char | word
nbpe=1000            # tokens, the special ones among them
bpemode=unigram      # unigram | bpe
bpe_input_sentence_size=0   # learn BPE from a sample of so many lines (0: all)
bpe_nlsyms=          # symbols that are one unit each: "<noise>,<laugh>", or a file with one a line
bpe_char_cover=1.0   # share of characters that BPE covers
nlsyms_txt=none      # file of non-linguistic symbols, one a line: units, too, and left out of error rates
oov="<unk>"          # fixed
blank="<blank>"      # fixed
sos_eos="<sos/eos>"  # fixed
bpe_train_text=      # texts of the target vocabulary. Default: the training text
token_joint=false    # text: source and target share one vocabulary, that of the target
vocab_opts=          # a vocabulary made or adopted by `legonn vocab` with these options, instead of --nbpe and the like
src_token_type=bpe   # of the source: bpe | char | word
src_nbpe=1000        # tokens of the source
src_bpemode=unigram  # unigram | bpe
src_bpe_train_text=  # texts of the source vocabulary. Default: the training text
src_bpe_input_sentence_size=0   # as without src_
src_bpe_nlsyms=      # as without src_
src_bpe_char_cover=1.0   # as without src_
use_phonemes=false   # make text_phn and its vocabulary
phoneme_opts="--backend auto --strip_stress"   # options of `data.cli phonemes`
g2p=none             # lexicon | g2p_en | auto: use_phonemes with this backend
# Language models (stages 6-9), which the search of stage 12 uses, too
use_lm=false         # train a language model of ESPnet's over the target's tokens
lm_config=conf/train_lm.yaml   # its training. Where a recipe has no such file, that of TEMPLATE
lm_args=             # options of its statistics and training. They win over the config
lm_tag=              # default: that of the config with lm_args
lm_exp=              # default: exp/lm_<tag>
lm_stats_dir=        # where stage 6 writes
lm_train_text=       # its texts. Default: the training text
lm_dev_text=         # default: the text of the validation set
lm_test_text=        # whose perplexity stage 8 tells. Default: the text of the first test set
inference_lm=valid.loss.ave.pth   # its weights in the search
use_ngram=false      # estimate an n-gram model (stage 9)
ngram_num=4          # tokens of its longest n-grams
ngram_exp=           # default: exp/ngram
inference_ngram=     # default: <ngram_num>gram.arpa.gz
# Model
legonn_config=conf/train_legonn.yaml   # the chain and its training (conf/reference.yaml)
legonn_args=         # options of statistics and training. They win over the config
legonn_tag=          # name of the experiment. Default: that of the config with legonn_args
legonn_exp=          # default: exp/legonn_<tag>
legonn_stats_dir=    # where stage 10 writes
pretrained_model=    # begin with its weights: an experiment, a pack, or FILE.pth[:source[:target]] as in ESPnet
ignore_init_mismatch=false   # of FILE.pth: leave what has another shape
num_splits=1         # read the training set in so many parts
average_window=10    # checkpoints averaged (0: no averaging)
average_candidates=3 # windows that are decoded, the newest first (0: all of the checkpoints that were kept)
average_stride=1     # epochs between them
average_limit=0      # validation utterances decoded to choose the window (0: all)
average_config=      # a search whose beam_size and length_penalty these decodings take (default: beam 1)
# Decoding and scoring
inference_config=    # YAML of the search
inference_args=      # options of the search. They win over the config
inference_tag=       # folder of the experiment that gets the results. Default: names the search
batch_size=          # utterances decoded together. Answers do not depend on it
eval_valid_set=false # decode and score the validation set too
inference_legonn_model=  # weights in the experiment. Default: the averaged ones
tune_search=true     # stage 12: choose ctc_weight and length_penalty on the validation set, unless ctc_weight is given
tune_limit=500       # validation utterances for it (0: all)
metrics="wer cer"    # wer cer bleu bleu_tok bleu_split bleu_detok (scoring/metrics.py). The first picks checkpoints
score_opts=          # of sclite, which is run beside our own scores where SCTK is installed
local_score_opts=    # options of local/score.sh
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
Stages: 1 data, 2 speed perturbation, 3 format, 4 length filter, 5 vocabularies and phonemes, 6-8 language model
(statistics, training, perplexity), 9 n-gram model, 10 statistics, 11 train, 12 decode, 13 score, 14 pack, 15 upload."

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
[ $# -eq 0 ] || { log "error: '$1' is no option; options are --name value"; exit 2; }
case "${feats_type} ${oov} ${blank} ${sos_eos}" in
    "raw <unk> <blank> <sos/eos>") ;;
    "extracted <unk> <blank> <sos/eos>") skip_stages+=" 2 3 4" ;; # somebody made dump/extracted before
    *)
        fixed=(feats_type "${feats_type}" oov "${oov}" blank "${blank}" sos_eos "${sos_eos}")
        log "error: $(${python} -m espnet2_legonn.recipes.options fixed "${fixed[@]}")"
        exit 2
        ;;
esac
if "${skip_data_prep}"; then skip_stages+=" 1 2 3 4 5"; fi
if "${skip_train}"; then skip_stages+=" 2 4 5 6 7 8 9 10 11"; fi
if ! "${use_lm}"; then skip_stages+=" 6 7 8"; fi
if ! "${use_ngram}"; then skip_stages+=" 9"; fi
if "${skip_eval}"; then skip_stages+=" 12 13"; fi
if [ -z "${ngpu}" ] || [ "${ngpu}" = auto ]; then
    ngpu=$(gpus)
    log "--ngpu ${ngpu}: the GPUs that were found on this machine"
fi
if [ "${g2p}" != none ]; then use_phonemes=true; phoneme_opts+=" --backend ${g2p}"; fi

# shellcheck disable=SC2086  # python may be several words: "coverage run --append"
py() { ${python} "$@"; }
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
    one_job "${cores}" "${dumpdir}/log/$1_${2//\//_}.log" ${python} -m espnet2_legonn.data.cli "$@"
}
legonn_cli() { py -m espnet2_legonn.bin.legonn "$@"; }
stage_cli() { py -m espnet2_legonn.bin.legonn_stage "$@"; }
# A script that repeats a stage alone, beside its results, in a shell that knows nothing: STAGE FOLDER OPTIONS...
repeatable() {
    mkdir -p "$2"
    log "Stage $1: $2 (again with $2/run.sh)"
    if [ -n "${legonn_repeats:-}" ]; then return; fi # it is that script which runs
    {
        echo "#!/usr/bin/env bash"
        echo "# Stage $1 again; further options win."
        printf 'cd %q || exit\n' "${PWD}"
        for name in VIRTUAL_ENV PYTHONPATH OMP_NUM_THREADS cmd_backend train_cmd_opts cuda_cmd_opts decode_cmd_opts; do
            if [ -n "${!name:-}" ]; then printf 'export %s=%q\n' "${name}" "${!name}"; fi
        done
        printf 'export PATH=%q:"${PATH}" legonn_repeats=1\n. ./path.sh\n' "$(dirname "$(command -v "${python%% *}")")"
        printf 'exec '; printf '%q ' "${run_args[@]}" --stage "$1" --stop_stage "$1" "${@:3}"; echo '"$@"'
    } > "$2/run.sh"
    chmod +x "$2/run.sh"
}
# A list of symbols for sentencepiece: comma-separated, or a file with one a line
symbols() {
    if [ -f "$1" ]; then grep -v '^[[:space:]]*$' "$1" || true; elif [ "$1" != none ]; then tr ',' '\n' <<< "$1"; fi
}
# What options say of a vocabulary, into the array bpe: CHAR_COVER INPUT_SENTENCE_SIZE NLSYMS
bpe_options() {
    bpe=(--character_coverage "$1" --input_sentence_size "$2")
    mapfile -t units < <({ symbols "$3"; symbols "${nlsyms_txt}"; } | awk 'NF && !seen[$0]++')
    if [ "${#units[@]}" -gt 0 ]; then bpe+=(--user_defined_symbols "${units[@]}"); fi
}

if [ "${input}" = text ] || [ "${feats_type}" = extracted ]; then speed_perturb_factors=; fi
plain_train_set=${train_set}
if [ -n "${speed_perturb_factors}" ]; then train_set=${train_set}_sp; fi
list() { if [ "$1" = bpe ]; then echo "bpe_$2$3"; else echo "$1"; fi; } # ESPnet's names of token lists
token_dir=data/${lang}_token_list/$(list "${token_type}" "${bpemode}" "${nbpe}")
raw=${dumpdir}/${feats_type}

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
    sets="${train_set} ${valid_set} ${test_sets}"
    if "${skip_train}"; then
        sets=${test_sets}
        if "${eval_valid_set}"; then sets="${valid_set} ${sets}"; fi
    fi
    for set in ${sets}; do
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
        if [ "${cleaner}" != none ]; then stage_cli clean --data "${target}" --cleaner "${cleaner}"; fi
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
    if [ "${nlsyms_txt}" != none ] && [ ! -f "${nlsyms_txt}" ]; then # its name would become a symbol
        log "error: --nlsyms_txt ${nlsyms_txt}: no such file"
        exit 2
    fi
    if [ -n "${vocab_opts}" ]; then
        # shellcheck disable=SC2086
        one_job 1 "${dumpdir}/log/vocab_${token_dir//\//_}.log" \
            ${python} -m espnet2_legonn.bin.legonn vocab "${token_dir}" --unit "${token_type}" ${vocab_opts}
    else
        bpe_options "${bpe_char_cover}" "${bpe_input_sentence_size}" "${bpe_nlsyms}"
        # shellcheck disable=SC2086
        data_cli vocab "${token_dir}" ${bpe_train_text:-${raw}/${train_set}/text} "${bpe[@]}" \
            --unit "${token_type}" --vocab_size "${nbpe}" --model_type "${bpemode}" --report_on "${raw}/${valid_set}/text"
    fi
    if [ "${input}" = text ] && ! "${token_joint}"; then
        bpe_options "${src_bpe_char_cover}" "${src_bpe_input_sentence_size}" "${src_bpe_nlsyms}"
        # shellcheck disable=SC2086
        data_cli vocab "data/${src_lang}_token_list/$(list "${src_token_type}" "${src_bpemode}" "${src_nbpe}")" \
            ${src_bpe_train_text:-${raw}/${train_set}/src_text} "${bpe[@]}" --unit "${src_token_type}" \
            --vocab_size "${src_nbpe}" --model_type "${src_bpemode}" --report_on "${raw}/${valid_set}/src_text"
    fi
    if "${use_phonemes}"; then
        for set in ${train_set} ${valid_set} ${test_sets}; do
            if [ -f "${raw}/${set}/text_phn" ]; then
                log "${raw}/${set}/text_phn is there and stays; remove it to make it anew"
                continue
            fi
            # shellcheck disable=SC2086
            data_cli phonemes "${raw}/${set}" ${phoneme_opts}
        done
        data_cli vocab "data/${lang}_token_list/phn" "${raw}/${train_set}/text_phn" --unit phn
    fi
fi

if [ "${lm_config}" = conf/train_lm.yaml ] && [ ! -f "${lm_config}" ]; then
    lm_config=${MAIN_ROOT}/egs2/TEMPLATE/legonn1/conf/train_lm.yaml
fi
if [ -z "${lm_tag}" ]; then
    lm_tag=$(basename "${lm_config}" .yaml)
    lm_tag=${lm_tag#train_}
    if [ -n "${lm_args}" ]; then lm_tag+=$(sed -e 's/--/_/g' -e 's/[ =/]//g' <<< "${lm_args}"); fi
fi
: "${lm_stats_dir:=${expdir}/lm_stats_${lang}_$(basename "${token_dir}")}"
: "${lm_exp:=${expdir}/lm_${lm_tag}}"
: "${ngram_exp:=${expdir}/ngram}"
: "${inference_ngram:=${ngram_num}gram.arpa.gz}"
lm_stage() { # STEP VALIDATION_TEXT OPTIONS...
    # shellcheck disable=SC2086
    stage_cli lm --step "$1" --config "${lm_config}" --vocab "${token_dir}" --unit "${token_type}" \
        --train "${lm_train_text:-${raw}/${train_set}/text}" --valid "$2" --stats_dir "${lm_stats_dir}" \
        --out "${lm_exp}" --weights "${inference_lm}" "${@:3}" ${lm_args}
}
if active 6; then
    log "Stage 6: lengths of the texts of the language model: ${lm_stats_dir}"
    lm_stage stats "${lm_dev_text:-${raw}/${valid_set}/text}" --cmd "${train_cmd}"
fi
if active 7; then
    log "Stage 7: training of the language model: ${lm_exp}"
    lm_stage train "${lm_dev_text:-${raw}/${valid_set}/text}" --cmd "${cuda_cmd}" --ngpu "${ngpu}"
fi
if active 8; then
    lm_stage perplexity "${lm_test_text:-${raw}/${test_sets%% *}/text}" --cmd "${train_cmd}"
fi
if active 9; then
    log "Stage 9: n-gram model: ${ngram_exp}"
    mkdir -p "${ngram_exp}"
    legonn_cli ngram "${lm_train_text:-${raw}/${train_set}/text}" --vocab "${token_dir}" --unit "${token_type}" \
        --order "${ngram_num}" -o "${ngram_exp}/${inference_ngram}"
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
    # shellcheck disable=SC2086
    stage_cli stats --config "${legonn_config}" --train "${raw}/${train_set}" --valid "${raw}/${valid_set}" \
        --out "${legonn_stats_dir}" --cmd "${train_cmd}" --nj "${nj}" ${legonn_args}
fi
if active 11; then
    repeatable 11 "${legonn_exp}"
    # shellcheck disable=SC2086
    stage_cli train --config "${legonn_config}" --train "${raw}/${train_set}" --valid "${raw}/${valid_set}" \
        --stats_dir "${legonn_stats_dir}" --out "${legonn_exp}" --cmd "${cuda_cmd}" --ngpu "${ngpu}" \
        --num_nodes "${num_nodes}" --num_splits "${num_splits}" ${pretrained_model:+--pretrained_model "${pretrained_model}"} \
        --ignore_init_mismatch "${ignore_init_mismatch}" ${legonn_args}
    if [ "${average_window}" -gt 0 ]; then
        read -r first_metric _ <<< "${metrics}"
        average_on=${nj}
        if [ "${ngpu}" -gt 0 ]; then average_on=gpu; fi
        one_job "${average_on}" "${legonn_exp}/average.log" \
            ${python} -m espnet2_legonn.bin.legonn_average "${legonn_exp}" --data "${raw}/${valid_set}" \
            --metric "${first_metric}" --window "${average_window}" --candidates "${average_candidates}" \
            --stride "${average_stride}" --limit "${average_limit}" --ngpu "${ngpu}" --num_threads "${nj}" \
            ${average_config:+--config "${average_config}"}
    fi
fi

given_weight=false # of CTC in the search: then nothing is tuned, since nothing would search with what was found
searches=${inference_args}
if [ -f "${inference_config}" ]; then searches+=$'\n'$(py -m espnet2_legonn.files.configs "${inference_config}"); fi
if [[ "${searches}" == *--ctc_weight* ]] || [[ "${searches}" == *$'\n'ctc_weight:* ]]; then given_weight=true; fi
if [ -z "${inference_tag}" ]; then
    inference_tag=$(basename "${inference_config:-decode}" .yaml)
    if [ -n "${inference_legonn_model}" ]; then # as ESPnet's recipes do
        inference_tag+=_legonn_model_$(basename "${inference_legonn_model}" .pth)
    fi
    if [ -n "${inference_args}" ]; then inference_tag+=$(sed -e 's/--/_/g' -e 's/[ =/]//g' <<< "${inference_args}"); fi
    if "${use_lm}"; then inference_tag+=_lm_${lm_tag}; fi
    if "${use_ngram}"; then inference_tag+=_ngram_${ngram_num}gram; fi
    if ! "${tune_search}" && ! "${given_weight}"; then inference_tag+=_untuned; fi
fi
lm_files=()
if "${use_lm}"; then lm_files+=(--lm_file "${lm_exp}/${inference_lm}"); fi
if "${use_ngram}"; then lm_files+=(--ngram_file "${ngram_exp}/${inference_ngram}"); fi
decode_ngpu=$((ngpu > 0 ? 1 : 0))
if ! "${gpu_inference}"; then decode_ngpu=0; fi
decoded_sets=${test_sets}
if "${eval_valid_set}" && [[ " ${test_sets} " != *" ${valid_set} "* ]]; then decoded_sets="${valid_set} ${test_sets}"; fi
data_of() { if [ -d "${raw}/$1" ]; then echo "${raw}/$1"; else echo "${raw}/org/$1"; fi; } # of the validation set
if active 12; then
    if "${tune_search}" && ! "${given_weight}" && [ -d "${raw}/${valid_set}" ]; then
        log "Stage 12: weights of the search, tuned on ${raw}/${valid_set}"
        stage_cli tune --exp "${legonn_exp}" --data "${raw}/${valid_set}" --metric "${metrics%% *}" \
            --limit "${tune_limit}" "${lm_files[@]}" ${inference_legonn_model:+--model "${inference_legonn_model}"}
    fi
    for set in ${decoded_sets}; do
        out=${legonn_exp}/${inference_tag}/${set}
        repeatable 12 "${out}" --test_sets "${set}" --eval_valid_set false
        # shellcheck disable=SC2086
        stage_cli decode --exp "${legonn_exp}" --data "$(data_of "${set}")" --out "${out}" --cmd "${decode_cmd}" \
            --nj "${inference_nj}" --ngpu "${decode_ngpu}" ${inference_legonn_model:+--model ${inference_legonn_model}} \
            ${inference_config:+--config ${inference_config}} ${batch_size:+--batch_size ${batch_size}} "${lm_files[@]}" \
            ${inference_args}
    done
fi
if active 13; then
    for set in ${decoded_sets}; do
        # shellcheck disable=SC2086
        stage_cli score --exp "${legonn_exp}" --data "$(data_of "${set}")" \
            --decoded "${legonn_exp}/${inference_tag}/${set}" --nlsyms "${nlsyms_txt}" --score_opts="${score_opts}" \
            --metrics ${metrics}
    done
    if [ -f local/score.sh ]; then
        # shellcheck disable=SC2086
        local/score.sh ${local_score_opts} "${legonn_exp}"
    fi
    py -m espnet2_legonn.bin.legonn_score results "${legonn_exp}"
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
