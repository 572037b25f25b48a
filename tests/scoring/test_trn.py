"""ref.trn, hyp.trn and their alignment: counts are those of the score, and SCTK's own tools read and agree."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring import trn
from espnet2_legonn.scoring.wer import count_errors, score_error_rate

SCLITE = next((found for name in trn._SCLITE if (found := shutil.which(name))), None)


def counts_of(pairs: list[tuple[str | None, str | None]]) -> tuple[int, int, int, int]:
    kinds = ["I" if r is None else "D" if h is None else "C" if r == h else "S" for r, h in pairs]
    return tuple(kinds.count(kind) for kind in "CSDI")  # type: ignore[return-value]


def test_an_alignment_has_the_counts_of_the_score() -> None:
    rng = random.Random(1)
    for _ in range(400):
        ref, hyp = ([rng.choice("abcd") for _ in range(rng.randrange(9))] for _ in range(2))
        pairs = trn.align(ref, hyp)
        assert [r for r, _ in pairs if r is not None] == ref and [h for _, h in pairs if h is not None] == hyp
        c = count_errors(ref, hyp)
        assert counts_of(pairs) == (c.corr, c.sub, c.dele, c.ins), (ref, hyp)


def test_an_alignment_as_sclite_prints_it() -> None:
    pairs = trn.align("the old dog runs".split(), "the old cat now runs fast".split())
    assert trn.alignment("s-u", pairs).splitlines() == [
        "id: (s-u)",
        "Scores: (#C #S #D #I) 3 1 0 2",
        "REF:  the old *** DOG runs ****",
        "HYP:  the old CAT NOW runs FAST",
        "Eval:         I   S        I",
    ]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("u1 the old dog runs\nu2 two fish\nu3 red red\n")
    (tmp_path / "hyp").write_text("u1 the cold dog runs\nu2\nu3 red red fish\n")
    (tmp_path / "utt2spk").write_text("u1 ann\nu2 bob\nu3 ann\n")
    return tmp_path


def write(folder: Path, metric: str, **options: object) -> Path:
    trn.write_trn(metric, [folder / "text"], folder / "hyp", folder / metric, folder / "utt2spk", **options)  # type: ignore[arg-type]
    return folder / metric


def test_files_beside_a_score(tables: Path) -> None:
    out = write(tables, "wer")
    assert (out / "ref.trn").read_text() == "the old dog runs (ann-u1)\ntwo fish (bob-u2)\nred red (ann-u3)\n"
    assert (out / "hyp.trn").read_text() == "the cold dog runs (ann-u1)\n(bob-u2)\nred red fish (ann-u3)\n"
    pra = (out / "hyp.trn.pra").read_text()
    assert re.findall(r"#I\) (.*)", pra) == ["3 1 0 0", "0 0 2 0", "2 0 0 1"] and "HYP:  the COLD dog runs" in pra
    out = write(tables, "cer")
    assert "t w o <space> f i s h (bob-u2)\n" in (out / "ref.trn").read_text()
    assert not (out / "hyp.trn.pra").exists()


def test_texts_of_translation_stay_as_they_are(tables: Path) -> None:
    shutil.copy(tables / "text", tables / "text.1")
    (tables / "text").write_text('u1 He (the president) said "yes"\nu2 a\nu3 b\n')
    trn.write_trn("bleu", [tables / "text", tables / "text.1"], tables / "hyp", tables / "out")
    assert (tables / "out/ref.trn").read_text().startswith('He (the president) said "yes" (u1-u1)\n')
    assert (tables / "out/ref.trn.1").read_text().startswith("the old dog runs (u1-u1)\n")


def test_symbols_are_left_out(tables: Path) -> None:
    (tables / "hyp").write_text("u1 the <um> old dog runs <noise>\nu2 <noise>\n")
    out = trn.without_symbols(tables / "hyp", tables / "out", ["<um>", "<noise>"])
    assert out.read_text() == "u1 the old dog runs\nu2\n"


def test_without_sctk(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trn, "_SCLITE", ("no-such-sclite",))
    out = write(tables, "wer")
    assert trn.run_sclite(out) is None and not (out / "sclite.txt").exists()
    with pytest.raises(DataError, match="score_opts: -s: sclite is not on PATH; install SCTK"):
        trn.run_sclite(out, "-s")


@pytest.mark.skipif(SCLITE is None, reason="SCTK is not installed (Debian: sctk)")
@pytest.mark.parametrize("metric", ["wer", "cer"])
def test_sclite_reads_the_files_and_counts_the_same(tables: Path, metric: str) -> None:
    out = write(tables, metric)
    said = trn.run_sclite(out)
    assert said is not None
    total = score_error_rate(tables / "text", tables / "hyp", metric).total
    row = next(line for line in said.read_text().splitlines() if "Sum/Avg" in line)
    figures = re.findall(r"[\d.]+", row.split("|", 2)[2])
    rates = [f"{100 * n / total.ref:.1f}" for n in (total.corr, total.sub, total.dele, total.ins, total.errors)]
    assert figures[:2] == [str(total.sentences), str(total.ref)] and figures[2:7] == rates
    if metric == "wer":
        ours = [line.split(") ")[1] for line in (out / "hyp.trn.pra").read_text().splitlines() if "Scores" in line]
        text = said.read_text()
        theirs = dict(re.findall(r"id: \((.*?)\)\nScores: \(#C #S #D #I\) (.*)\n", text))
        assert {n: theirs[n] for n in ("ann-u1", "bob-u2", "ann-u3")} == dict(zip(("ann-u1", "bob-u2", "ann-u3"), ours))
    with pytest.raises(DataError, match="sclite failed"):
        trn.run_sclite(out, "-no-such-option")
