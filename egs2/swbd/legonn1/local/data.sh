#!/usr/bin/env bash
# Stage 1: data/{train_nodup,train_dev,eval2000} from SWBD=DIR, which holds LDC97S62, LDC2002S09 and LDC2002T43, and the
# vocabularies of 100 and 2,000 units. Options: python3 -m legonn_corpora.swbd --help
set -euo pipefail
. ./path.sh
. ./db.sh
: "${SWBD:?set SWBD=DIR, the folder that holds LDC97S62, LDC2002S09 and LDC2002T43}"
python3 -m legonn_corpora.swbd --corpus "${SWBD}" --out data --eval2000 data/eval2000 "$@"
for units in 100 2000; do
    python3 -m espnet2_legonn.data.cli vocab "data/en_token_list/bpe_unigram${units}" data/train_nodup/text \
        --unit bpe --vocab_size "${units}" --model_type unigram \
        --user_defined_symbols "[laughter]" "[noise]" "[vocalized-noise]" --report_on data/train_dev/text
done
