#!/usr/bin/env bash
# Data of conf/plan_translation.yaml: German captions of B and of the test set read aloud, and A with what its German
# side says as the target of the first module. text_bpe_de is what an interface in German units should say.
set -euo pipefail
. ./path.sh
dir() { python3 -m espnet2_legonn.data.cli "$@"; }
aloud() { python3 local/speech.py "$@" --read src_text --language de; }
dir subset data/local/all/train_de_en data/local/b_de --last 9000
aloud data/local/b_de data/train_speech_de --voices train_asr --first 4500
aloud data/valid_de data/valid_speech_de --voices valid_asr --first 200
aloud data/local/all/test2016_de_en data/test_speech_de --voices test_asr --first 500
legonn.sh --input speech --audio_format wav --train_set train_speech_de --valid_set valid_speech_de \
    --test_sets test_speech_de --stage 3 --stop_stage 4
for set in valid test; do # the same sound, to be translated
    dir copy "dump/raw/${set}_speech_de" "dump/raw/${set}_st"
    mv "dump/raw/${set}_st/text" "dump/raw/${set}_st/text_bpe_de"
    mv "dump/raw/${set}_st/text_translation" "dump/raw/${set}_st/text"
done
dir vocab data/de_token_list/char dump/raw/train_de/src_text --unit char
dir copy dump/raw/train_de dump/raw/train_units_de
dir copy dump/raw/valid_de dump/raw/valid_units_de
dir subset dump/raw/test_de dump/raw/test_units_de --first 500 # the sentences of test_speech_de
for set in train valid test; do cp "dump/raw/${set}_units_de/src_text" "dump/raw/${set}_units_de/text_bpe_de"; done
