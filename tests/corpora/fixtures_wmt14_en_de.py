"""A small WMT14 En-De: the scaling-NMT preparation (tokens in BPE, merges, list, SGML test sets) or raw corpora."""

from __future__ import annotations

import io
from pathlib import Path

from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from legonn_corpora.treatment import moses
from tests.corpora.fixtures_parallel import sentences, side, write_lines, write_sgm

YEARS = (2011, 2012, 2013, 2014, 2015, 2016)
TRAIN, TEST = 240, 6


def write_given(folder: Path) -> Path:
    """240 pairs, of them one too long, one of unlike lengths, one with an empty side; six test sets of 6 segments."""
    rows = sentences(TRAIN, 14)
    train = {k: [moses(s, k, True) for s in side(rows, k)] for k in ("en", "de")}
    train["en"][10] = " ".join(["the"] * 260)
    train["de"][10] = " ".join(["die"] * 260)
    train["en"][20] += " " + " ".join(["very"] * 40)
    train["de"][30] = ""
    merges = io.StringIO()
    learn_bpe(iter([line + "\n" for lines in train.values() for line in lines]), merges, 150)
    write_lines(folder / "bpe.32000", merges.getvalue().splitlines())
    bpe = BPE(io.StringIO(merges.getvalue()))
    pieces = {k: [bpe.process_line(line) for line in lines] for k, lines in train.items()}
    tests = {}
    for year in YEARS:
        raw = sentences(TEST, year)
        tests[year] = {k: [bpe.process_line(moses(s, k, True)) for s in side(raw, k)] for k in ("en", "de")}
        for k in ("en", "de"):
            write_lines(folder / f"newstest{year}.tok.bpe.32000.{k}", tests[year][k])
    write_sgms(folder / "sgm")
    for k in ("en", "de"):
        write_lines(folder / f"train.tok.clean.bpe.32000.{k}", pieces[k])
    known = {unit for lines in pieces.values() for line in lines for unit in line.split()}
    known |= {unit for test in tests.values() for lines in test.values() for line in lines for unit in line.split()}
    write_lines(folder / "vocab.bpe.32000", sorted(known))
    return folder


def write_sgms(folder: Path) -> None:
    """Test sets under their three kinds of names: no direction to 2013, reversed in 2014, both directions after."""
    for year in YEARS:
        rows, name = sentences(TEST, year), f"newstest{year}"
        if year > 2013:
            direction = "deen" if year == 2014 else "ende"
            source, target = f"{name}-{direction}-src.en.sgm", f"{name}-{direction}-ref.de.sgm"
        else:
            source, target = f"{name}-src.en.sgm", f"{name}-src.de.sgm"
        write_sgm(folder / source, side(rows, "en"), "src", name, ("en", "de"))
        write_sgm(folder / target, side(rows, "de"), "ref" if "ref" in target else "src", name, ("en", "de"))


def write_raw(folder: Path) -> Path:
    """The three raw corpora, with an empty line, a carriage return and a no-break space among them."""
    for seed, stem in enumerate(("europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v12.de-en")):
        rows = sentences(60, 100 + seed)
        english, german = side(rows, "en"), side(rows, "de")
        english[3] = german[3] = ""
        german[5] = german[5] + "\r"
        english[7] = english[7].replace(" ", "\u00a0", 1)
        sub = folder / "training" if stem != "commoncrawl.de-en" else folder
        write_lines(sub / f"{stem}.en", english)
        write_lines(sub / f"{stem}.de", german)
    write_sgms(folder / "dev")
    return folder
