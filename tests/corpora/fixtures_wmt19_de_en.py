"""A small WMT19 De-En: tsv.gz with document boundaries, aligned files, a zip, SGML test sets."""

from __future__ import annotations

from pathlib import Path

from tests.corpora.fixtures_parallel import sentences, side, write_lines, write_sgm, write_zip

LINES = 60


def write(folder: Path) -> Path:
    """Five corpora of 60 lines each, and newstest2018 and 2019 of 8 segments."""
    for seed, (stem, empty) in enumerate(
        (("europarl-v9.de-en", "\t"), ("news-commentary-v14.de-en", "\t"), ("wikititles-v1.de-en", None))
    ):
        rows = sentences(LINES, 190 + seed)
        lines = [f"{de}\t{en}" for de, en in zip(side(rows, "de"), side(rows, "en"))]
        if empty is not None:
            lines[9] = empty
            lines[19] = "(Beifall)\t"  # the English side was not transcribed
        write_lines(folder / f"{stem}.tsv.gz", lines)
    rows = sentences(LINES, 195)
    rows[4] = ("Too long to be aligned with so short a side, " * 3, "Zu lang.", "")
    for k in ("de", "en"):
        write_lines(folder / f"commoncrawl.de-en.{k}", side(rows, k))
    rows = sentences(LINES, 196)
    write_zip(folder / "rapid2019.de-en.zip", {f"rapid2019.de-en.{k}": side(rows, k) for k in ("de", "en")})
    for year in (2018, 2019):
        rows, name = sentences(8, year), f"newstest{year}"
        write_sgm(folder / f"{name}-deen-src.de.sgm", side(rows, "de"), "src", name, ("de", "en"))
        write_sgm(folder / f"{name}-deen-ref.en.sgm", side(rows, "en"), "ref", name, ("de", "en"))
    return folder
