#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} from TEDLIUM2=DIR, which is TEDLIUM_release2 or holds it. With --release 3 from
# TEDLIUM3=DIR. Options: see --help. --download gets the release into DIR (35 or 54 GB), --seconds_per_speaker 180 cuts
# speakers as ESPnet does.
set -euo pipefail
. ./path.sh
. ./db.sh
case " $* " in
    *" --release 3 "*) corpus=${TEDLIUM3:?set TEDLIUM3=DIR, the folder TEDLIUM_release-3; with --download it is put there} ;;
    *) corpus=${TEDLIUM2:?set TEDLIUM2=DIR, the folder TEDLIUM_release2; with --download it is put there} ;;
esac
python3 -m legonn_corpora.tedlium --out data --corpus "${corpus}" "$@"
