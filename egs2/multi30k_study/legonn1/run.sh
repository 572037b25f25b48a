#!/usr/bin/env bash
# The study of docs/study.md on Multi30K. MULTI30K=DIR ./run.sh, or `MULTI30K=DIR make study-real`.
# What is done is not done again, so a run that was stopped goes on by the same command.
set -euo pipefail
{ # bash reads a script as it runs it. The braces make it read all of it first, so an edit cannot hurt a running job
. ./path.sh

stage=1              # 1 data, 3-5 filter, vocabularies, language models, 10 the plan, 11 swaps, 12 the tables
stop_stage=10000
nj=1                 # experiments at a time
plan=conf/plan.yaml  # or conf/plan_interface.yaml: what makes an interface better
expdir=exp/study
seeds="1 2 3"
only=                # experiments to run, with what they need (default: those of the tables, in their order)
speech=false         # conf/plan_speech.yaml instead, after the text rows: captions read aloud by espeak-ng
translation=false    # conf/plan_translation.yaml instead, after the text rows: German speech into English, three modules
lm=false             # conf/plan_lm.yaml instead, after the text rows: a language model as the decoder, and beside the search
lm_args="--lm_conf att_unit=128 --lm_conf unit=512" # options of ESPnet's one (stage 7): small, as the rest
results=             # where stages 11 and 12 write (default: the project's pages, of a part of the study exp/study/results)
help_message="Usage: MULTI30K=DIR $0 [--stage N] [--stop_stage N] [--nj N] [--seeds \"NUMBERS\"] [--only \"NAMES\"]"

SECONDS=0
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh

if "${speech}"; then plan=conf/plan_speech.yaml; fi
if "${translation}"; then plan=conf/plan_translation.yaml; fi
if "${lm}"; then plan=conf/plan_lm.yaml; fi
name=multi30k_study claims=(--claims conf/claims.yaml) # of the page that stage 12 writes
swaps=(--swaps "Seeds, the decoder alone (H5)=${expdir}/swap_seeds_ctc_0"
    "Seeds, CTC weight 0.4 (H5)=${expdir}/swap_seeds_ctc_0.4"
    "Readers, the decoder alone=${expdir}/swap_readers_ctc_0"
    "Readers, CTC weight 0.4=${expdir}/swap_readers_ctc_0.4"
    "Seeds of attention models=${expdir}/swap_attention")
if [ "${plan}" != conf/plan.yaml ]; then
    name=${name}_$(basename "${plan#*plan_}" .yaml) claims=() swaps=()
fi
if [ -z "${results}" ]; then
    results=${expdir}/results
    if [ -z "${only}" ] && [ "${seeds}" = "1 2 3" ]; then results=../../../docs/results; fi
fi
mkdir -p "${results}/${name}"
active() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
if active 1; then local/data.sh; fi
for step in 3 4 5; do
    if ! active "${step}"; then continue; fi
    for task in de fr_4500 cs_4500; do # German first: all write in the units of its English side
        src=${task%_*}
        legonn.sh --input text --src_lang "${src}" --train_set "train_${task}" --valid_set "valid_${src}" \
            --test_sets "test_${src}" --nbpe 1000 --src_nbpe 1000 --bpe_train_text dump/raw/train_de/text \
            --stage "${step}" --stop_stage "${step}"
    done
    if [ "${step}" = 4 ]; then
        for task in de_29000 fr_1000 cs_1000; do
            python3 -m espnet2_legonn.data.cli filter "data/train_${task}" "dump/raw/train_${task}" \
                --min_tokens 1 --max_tokens 250
        done
    fi
done
if active 5 && "${speech}"; then
    python3 local/speech.py dump/raw/train_fr_4500 data/train_speech_4500 --voices train_asr
    python3 local/speech.py dump/raw/valid_fr data/valid_speech --voices valid_asr --first 200
    python3 local/speech.py data/local/all/test2016_fr_en data/test_speech --voices test_asr --first 500
    legonn.sh --input speech --audio_format wav --train_set train_speech_4500 --valid_set valid_speech \
        --test_sets test_speech --use_phonemes true --phoneme_opts "--backend g2p_en --strip_stress" --nbpe 1000 \
        --bpe_train_text dump/raw/train_de/text --stage 3 --stop_stage 5
    python3 -m espnet2_legonn.data.cli vocab data/en_token_list/char dump/raw/train_speech_4500/text --unit char
    # Ids begin with the speaker: by sentence number, so that all speakers stay
    grep -o '^[^ ]*-00[0-9][0-9][0-9] ' dump/raw/train_speech_4500/text > data/train_speech_1000.list
    python3 -m espnet2_legonn.data.cli subset dump/raw/train_speech_4500 dump/raw/train_speech_1000 \
        --utt_list data/train_speech_1000.list
fi
if active 5 && "${translation}"; then local/translation.sh; fi
if active 5 && "${lm}"; then
    if [ ! -f exp/lm_en/model.safetensors ]; then
        python3 ../../multi30k/legonn1/local/train_lm.py --train dump/raw/train_de/text --valid dump/raw/valid_de/text \
            --bpemodel data/en_token_list/bpe_unigram1000/bpe.model --size 192 --out exp/lm_en
    fi
    legonn.sh --input text --src_lang de --train_set train_de --valid_set valid_de --test_sets test_de --nbpe 1000 \
        --src_nbpe 1000 --use_lm true --lm_exp exp/lm_train_lm --lm_args "${lm_args}" --stage 6 --stop_stage 8
fi
if active 10; then
    # shellcheck disable=SC2086
    python3 -m espnet2_legonn.bin.legonn_plan "${plan}" --workers "${nj}" --expdir "${expdir}" --tables study \
        --seeds ${seeds} ${only:+--only ${only}}
fi
# What the rest of a chain would make of another interface, with the first seed
oracle() { # oracle EXPERIMENT NAME OPTIONS...: if it is trained
    local exp=${expdir}/seed${seeds%% *}/legonn_$1
    [ ! -f "${exp}/done.json" ] || python3 -m espnet2_legonn.bin.legonn oracle "${exp}" --metric bleu --beam_size 4 \
        -o "${results}/${name}/oracle_$2.json" "${@:3}"
}
if active 11 && "${translation}"; then # what the recogniser's errors cost, and cascades of its texts
    for at in recognizer encoder; do
        oracle st_40 "${at}" --data dump/raw/test_st --at "${at}"
    done
fi
if active 11 && [ "${name}" = multi30k_study_repairs ]; then # whether a decoder copies what it reads
    for donor in plug references wide; do
        oracle "valid_${donor}_warm_fr" "valid_${donor}_warm_fr" --data dump/raw/valid_fr --limit 300
    done
fi
# The paper's Figure 4: decoders change their encoders, among seeds and among readers, by its search and by the default
swap() { # swap NAME CTC_WEIGHT EXPERIMENTS...: of those that are trained
    local out=${expdir}/swap_$1 weight=$2 found=()
    for exp in "${@:3}"; do
        [ ! -f "${exp}/done.json" ] || found+=("${exp}")
    done
    [ "${#found[@]}" -gt 1 ] || return 0
    python3 -m espnet2_legonn.bin.legonn swap "${found[@]}" --data dump/raw/test_de --margin 1.5 --beam_size 4 \
        --ctc_weight "${weight}" -o "${out}"
}
if active 11 && [ "${name}" = multi30k_study ]; then
    donors=() attention=()
    for seed in ${seeds}; do
        donors+=("${expdir}/seed${seed}/legonn_de_en")
        attention+=("${expdir}/seed${seed}/legonn_ar_de_en")
    done
    for weight in 0 0.4; do
        swap "seeds_ctc_${weight}" "${weight}" "${donors[@]}"
        swap "readers_ctc_${weight}" "${weight}" "${donors[0]}" "${donors[0]}"{_beam_conv,_collapsed}
    done
    swap attention 0 "${attention[@]}"
    oracle plug_warm_fr_4500 plug_warm_fr_4500 --data dump/raw/test_fr --limit 300
fi
if active 12; then
    # shellcheck disable=SC2086
    python3 -m espnet2_legonn.studies.tables "${plan}" "${claims[@]}" "${swaps[@]}" --expdir "${expdir}" \
        --seeds ${seeds} --out "${results}/${name}"
    if [ "${name}" = multi30k_study ] && [ -f "${results}/paper.yaml" ]; then # pages put together from this one and others
        python3 -m espnet2_legonn.studies.digest "${results}"/*.yaml
        echo "python tools/update_readme.py copies the table of ${results}/real.md"
    fi
fi
echo "$0: done in $((SECONDS / 60)) min $((SECONDS % 60)) s"
exit
}
