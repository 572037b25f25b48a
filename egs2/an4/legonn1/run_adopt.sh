#!/usr/bin/env bash
# A stock ASR model of ESPnet, trained by ESPnet's own commands, becomes an encoder module, and the recipe's decoder, which
# has never heard it, finishes it. No update of either. Its own decoder is adopted besides. Needs what ./run.sh made.
#   AN4=DIR ./run_adopt.sh
set -euo pipefail

config=conf/espnet/transformer.yaml
stage=1              # 1 statistics, 2 training, 3 ESPnet's own decoding and score, 4 adopt and plug, 5 decode and score,
                     # 6 back: ESPnet decodes the recipe's plug, 7 ADOPT.md
stop_stage=10000
expdir=exp
help_message="Usage: AN4=DIR $0 [--stage N] [--stop_stage N] [--config FILE]"
. ./path.sh
# shellcheck source=../../TEMPLATE/legonn1/parse_options.sh
. parse_options.sh

tag=asr_$(basename "${config}" .yaml)
exp=${expdir}/${tag} stats=${expdir}/stats_${tag}
bpe=data/en_token_list/bpe_unigram60
active() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
train() { # WHERE, the shapes that are read or written, more options
    local where=$1 shapes=$2 set option=() name
    shift 2
    for set in train valid; do
        local data=dump/raw/${set/train/train_sp}
        option+=("--${set}_data_path_and_name_and_type" "${data}/wav.scp,speech,sound"
            "--${set}_data_path_and_name_and_type" "${data}/text,text,text")
        for name in ${shapes}; do option+=("--${set}_shape_file" "${name/SET/${set}}"); done
    done
    python3 -m espnet2.bin.asr_train --config "${config}" --token_type bpe --bpemodel "${bpe}/bpe.model" \
        --token_list "${bpe}/tokens.txt" --ngpu 0 --output_dir "${where}" "${option[@]}" "$@"
}

decode() { # by ESPnet's own command, without a package that it asks for and does not use here
    local out=$1/decode/test
    python3 -m espnet2_legonn.bin.asr_inference --asr_train_config "$1/config.yaml" --asr_model_file "$1/valid.acc.ave.pth" \
        --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound --output_dir "${out}" --beam_size 5 \
        --ctc_weight 0.4 --ngpu 0
    python3 -m espnet2_legonn.bin.legonn_score score --metric wer --ref dump/raw/test/text \
        --hyp "${out}/1best_recog/text" --outdir "${out}/score_wer"
}

if active 1; then
    for set in train valid; do cut -d ' ' -f 1 "dump/raw/${set/train/train_sp}/text" | sed 's/$/ 1/' > "data/local/${set}.keys"; done
    train "${stats}" "data/local/SET.keys" --collect_stats true
fi
if active 2; then
    train "${exp}" "${stats}/SET/speech_shape ${stats}/SET/text_shape" --resume true
fi
if active 3; then
    decode "${exp}"
fi
if active 4; then
    python3 -m espnet2_legonn.bin.legonn adopt "${exp}" -o "${expdir}/adopted" --data dump/raw/valid --language en
    python3 -m espnet2_legonn.bin.legonn adopt "${exp}" -o "${expdir}/adopted_whole" --decoder --language en
    python3 -m espnet2_legonn.bin.legonn compose "${expdir}/adopted" "${expdir}/legonn_text#decoder" \
        -o "${expdir}/adopted_plugged"
fi
if active 5; then
    for place in adopted adopted_plugged adopted_whole; do ./run.sh --legonn_exp "${expdir}/${place}" --stage 12 --stop_stage 13; done
    # ESPnet's weights of the search, so that the two searches can be compared
    ./run.sh --legonn_exp "${expdir}/adopted_whole" --stage 12 --stop_stage 13 \
        --inference_args "--ctc_weight 0.4 --length_penalty 0 --beam_size 5"
fi
if active 6; then
    rm -rf "${expdir}/asr_from_legonn"
    python3 -m espnet2_legonn.bin.legonn export "${expdir}/legonn_plugged" -o "${expdir}/asr_from_legonn" --format espnet
    decode "${expdir}/asr_from_legonn"
    ./run.sh --legonn_exp "${expdir}/legonn_plugged" --stage 12 --stop_stage 13 \
        --inference_args "--ctc_weight 0.4 --length_penalty 0 --beam_size 5"
fi
if active 7; then
    python3 -m espnet2_legonn.bin.legonn_score results "${exp}" "${expdir}"/adopted{,_plugged,_whole} \
        "${expdir}"/{legonn_plugged,asr_from_legonn} --out ADOPT.md
fi
