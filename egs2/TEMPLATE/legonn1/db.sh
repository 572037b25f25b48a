#!/usr/bin/env bash
# Where the corpora are. Fill in here, or better set them outside, which wins: AN4=/data/an4 ./run.sh
# An empty value makes the recipe's local/data.sh stop with the name to fill in.

export AN4="${AN4:=}"                   # CMU AN4 (an4_clstk/, an4test_clstk/, etc/)
export MULTI30K="${MULTI30K:=}"         # Multi30k captions: train, val and test in de, en, fr, cs
export SWBD="${SWBD:=}"                 # LDC97S62/, LDC2002S09/hub5e_00/, LDC2002T43/
export FISHER="${FISHER:=}"             # LDC2004T19 and LDC2005T19, for language models
export TEDLIUM2="${TEDLIUM2:=}"         # TEDLIUM_release2/
export TEDLIUM3="${TEDLIUM3:=}"         # TEDLIUM_release-3/
export EUROPARL_ST="${EUROPARL_ST:=}"   # v1.1/ of Europarl-ST
export WMT14_EN_DE="${WMT14_EN_DE:=}"   # training and newstest files of WMT14/16 English-German
export WMT19_DE_EN="${WMT19_DE_EN:=}"   # training and newstest files of WMT19 German-English
export WMT16_RO_EN="${WMT16_RO_EN:=}"   # training and newstest files of WMT16 Romanian-English
export CORPUS="${CORPUS:=}"             # your own, in a copy of egs2/TEMPLATE/legonn1 (local/data.sh there)
