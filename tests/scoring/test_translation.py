"""BLEU of translations as papers report it: against sacreBLEU, and against the rules worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu

from espnet2_legonn.bin import legonn_score
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.translation import (
    change_of,
    detokenize,
    references,
    score_translation,
    split_compounds,
)

REFS = {
    "u1": "Die Kosten-Nutzen-Rechnung ( siehe Anhang ) ist gut .",
    "u2": "Der Nah@@ verkehr [ neu ] fährt heute &quot; pünktlich &quot; .",
    "u3": "Wir danken dem Ausschuss für die lange Arbeit .",
}
HYPS = {
    "u3": "Wir danken dem Ausschuss für die gute Arbeit .",
    "u1": "Die Kosten-Nutzen-Analyse ( siehe Anhang ) ist gut .",
    "u2": "Der Nahverkehr [ neu ] fährt heute &quot; pünktlich &quot; .",
}
RAW = {
    "u1": "Die Kosten-Nutzen-Rechnung (siehe Anhang) ist gut.",
    "u2": 'Der Nahverkehr [neu] fährt heute "pünktlich".',
    "u3": "Wir danken dem Ausschuss für die lange Arbeit.",
}


def table(path: Path, rows: dict[str, str]) -> Path:
    path.write_text("".join(f"{k} {v}\n" for k, v in rows.items()), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    table(tmp_path / "text", REFS)
    table(tmp_path / "text.raw", RAW)
    table(tmp_path / "hyp", HYPS)
    return tmp_path


def joined(rows: dict[str, str]) -> list[str]:
    return [rows[key].replace("@@ ", "") for key in sorted(rows)]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("a-b", "a ##AT##-##AT## b"),
        ("Kosten-Nutzen-Rechnung", "Kosten ##AT##-##AT## Nutzen ##AT##-##AT## Rechnung"),
        ("a-b-c", "a ##AT##-##AT## b-c"),  # one pass: b is used up
        ("- x -y z- 3 - 4", "- x -y z- 3 - 4"),
        ("Müller-Söhne", "Müller ##AT##-##AT## Söhne"),
    ],
)
def test_the_rule_of_compounds(text: str, split: str) -> None:
    assert split_compounds(text) == split


def test_tokenised_bleu(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = score_translation("bleu_tok", data, data / "hyp")
    expected = sacrebleu.corpus_bleu(joined(HYPS), [joined(REFS)], tokenize="none", force=True)
    assert report.value == pytest.approx(expected.score) and 0 < report.value < 100
    assert report.segments.value == pytest.approx(expected.score)
    assert "tok:none" in report.signature and "compounds" not in report.signature and not caplog.records


def test_compound_split_bleu(data: Path) -> None:
    report = score_translation("bleu_split", data, data / "hyp")
    hyps, refs = ([split_compounds(t) for t in joined(rows)] for rows in (HYPS, REFS))
    assert report.value == pytest.approx(sacrebleu.corpus_bleu(hyps, [refs], tokenize="none", force=True).score)
    assert report.value != score_translation("bleu_tok", data, data / "hyp").value
    assert report.signature.endswith("|compounds:split")


def test_detokenised_bleu(data: Path) -> None:
    report = score_translation("bleu_detok", data, data / "hyp", "de")
    hyps = [RAW["u1"].replace("Rechnung", "Analyse"), RAW["u2"], RAW["u3"].replace("lange", "gute")]
    assert [detokenize(t, "de") for t in joined(HYPS)] == hyps
    assert report.value == pytest.approx(sacrebleu.corpus_bleu(hyps, [list(RAW.values())]).score)
    assert "tok:13a" in report.signature and report.signature.endswith("|detok:moses-de")
    with pytest.raises(DataError, match="the target vocabulary names no language"):
        score_translation("bleu_detok", data, data / "hyp")


def test_further_references(data: Path) -> None:
    table(data / "text.10", HYPS)
    table(data / "text.2", REFS)
    assert [p.name for p in references(data, "bleu_tok")] == ["text", "text.2", "text.10"]
    assert [p.name for p in references(data, "bleu_detok")] == ["text.raw"]
    report = score_translation("bleu_tok", data, data / "hyp")
    assert report.value == pytest.approx(100) and "nrefs:3" in report.signature


def test_unknown_metric() -> None:
    assert change_of("bleu", None) is None
    with pytest.raises(DataError, match="metric 'bleu_x' is none of bleu, bleu_tok"):
        change_of("bleu_x", None)


def test_command(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = ["--ref", str(data / "text.raw"), "--hyp", str(data / "hyp"), "--outdir", str(data / "out")]
    assert legonn_score.main(["score", "--metric", "bleu_detok", "--language", "de", *inputs]) == 0
    signature = json.loads((data / "out" / "result.json").read_text())["signature"]
    assert signature.endswith("|detok:moses-de")
    assert legonn_score.main(["score", "--metric", "bleu_detok", *inputs]) == 1
    assert "names no language" in capsys.readouterr().err
