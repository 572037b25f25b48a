"""A small WMT16 Ro-En as Lee et al. prepared it: lower-cased tokens in BPE, in folders train, dev and test."""

from __future__ import annotations

import io
from pathlib import Path

from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from legonn_corpora.treatment import moses
from tests.corpora.fixtures_parallel import sentences, side, write_lines

TRAIN = 200


def write(folder: Path) -> Path:
    """200 pairs, of them one of 90 tokens and one of unlike lengths; 8 each for validation and test."""
    sets = {"train/corpus": sentences(TRAIN, 16), "dev/dev": sentences(8, 17), "test/test": sentences(8, 18)}
    texts = {n: {k: [moses(s, k, True).lower() for s in side(r, k)] for k in ("ro", "en")} for n, r in sets.items()}
    for k, word in (("ro", "da"), ("en", "yes")):
        texts["train/corpus"][k][7] = " ".join([word] * 90)
    texts["train/corpus"]["en"][8] = "yes ."
    merges = io.StringIO()
    learn_bpe(iter(line + "\n" for k in ("ro", "en") for line in texts["train/corpus"][k]), merges, 120)
    bpe = BPE(io.StringIO(merges.getvalue()))
    for name, sides in texts.items():
        for k, lines in sides.items():
            write_lines(folder / f"{name}.bpe.{k}", [bpe.process_line(line) for line in lines])
    return folder
