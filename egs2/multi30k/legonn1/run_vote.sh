#!/usr/bin/env bash
# Encoders of German, French and Czech vote: one search by the CTC of all of them, the decoder fed by the first.
# Needs what run.sh trains for these languages (README.md). MULTI30K=DIR makes the test sets that are not there yet.
set -euo pipefail
sources="fr de cs"   # the first feeds the decoder
# shellcheck disable=SC2034  # read by name
encoder_fr=exp/legonn_encoder_fr_en#encoder
# shellcheck disable=SC2034
encoder_de=exp/legonn_legonn_de_en#encoder
# shellcheck disable=SC2034
encoder_cs=exp/legonn_encoder_cs_en#encoder
decoder=exp/legonn_legonn_de_en#decoder
test_set=test2016
beam_size=5
limit=0              # texts (0: all). Half of them tune, the other half is told of
out=                 # default: exp/vote_<sources>
help_message="Usage: $0 [--sources \"fr de cs\"] [--test_set test2016] [--limit N]"
. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh
: "${out:=exp/vote_${sources// /_}}"
encoders=() data=()
for source in ${sources}; do
    set=dump/raw/${test_set}_${source}_en
    [ -f "${set}/src_text" ] || ./run.sh --src_lang "${source}" --stage 1 --stop_stage 3
    name=encoder_${source}
    encoders+=("${!name}")
    data+=("${set}")
done
python3 -m espnet2_legonn.bin.legonn_stage vote --encoders "${encoders[@]}" --decoder "${decoder}" \
    --data "${data[@]}" --beam_size "${beam_size}" --limit "${limit}" --out "${out}"
