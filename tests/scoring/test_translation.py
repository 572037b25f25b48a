"""BLEU of translations as papers report it: against sacreBLEU, and against the rules worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu

from espnet2_legonn.bin import legonn_score
from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bleu import usable
from espnet2_legonn.scoring.metrics import value
from espnet2_legonn.scoring.translation import (
    change_of,
    detokenize,
    references,
    score_translation,
    split_compounds,
    tokenizer_of,
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
    assert legonn_score.main(["score", "--metric", "bleu_detok", *inputs]) == 2
    assert "names no language" in capsys.readouterr().err


CHINESE = {"u1": "我们今天去北京。", "u2": "他昨天买了三本书。", "u3": "天气很好,大家都很高兴。"}


@pytest.mark.parametrize("language", ["zh", "zh-TW", "zho", "cmn_Hans"])
def test_a_language_without_blanks_has_its_own_tokenizer(tmp_path: Path, language: str) -> None:
    """With 13a a sentence is one word: a reference against itself had 0, and all checkpoints tied."""
    table(tmp_path / "text", CHINESE)
    report = score_translation("bleu", tmp_path, tmp_path / "text", language)
    assert report.value == pytest.approx(100) and "tok:zh" in report.signature
    wrong = table(tmp_path / "hyp", {**CHINESE, "u1": "我们明天去北京。"})
    assert 0 < score_translation("bleu", tmp_path, wrong, language).value < 100
    rest = list(CHINESE.values())[1:]
    near, far = (value("bleu", [[*CHINESE.values()]], [first, *rest], language) for first in ("我们明天去北京。", "书"))
    assert far < near < 100
    assert "tok:13a" in score_translation("bleu", tmp_path, tmp_path / "text", "de").signature


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [("ja", "ja-mecab"), ("ko-KR", "ko-mecab"), ("th", "flores200"), ("en", "13a"), (None, "13a"), ("yue", "zh")],
)
def test_tokenizers_by_language(language: str | None, tokenizer: str) -> None:
    assert tokenizer_of(language) == tokenizer
    assert tokenizer in sacrebleu.BLEU.TOKENIZERS


def test_a_missing_package_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lacking(sacrebleu.BLEU):
        def __init__(self, **options: object) -> None:
            raise RuntimeError("Japanese tokenization requires extra dependencies")

    monkeypatch.setattr("espnet2_legonn.scoring.bleu.BLEU", Lacking)
    with pytest.raises(DataError, match=r"tokenizer 'ja-mecab' .*cannot be used .*pip install 'sacrebleu\[ja\]'"):
        score_translation("bleu", data, data / "hyp", "ja")
    with pytest.raises(RuntimeError), usable("13a"):
        Lacking()


def test_the_command_line_goes_by_the_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = str(table(tmp_path / "text", CHINESE))
    command = ["score", "--metric", "bleu", "--ref", text, "--hyp", text, "--outdir", str(tmp_path / "o")]
    assert legonn_score.main([*command, "--language", "zh"]) == 0
    assert "BLEU = 100.00" in capsys.readouterr().out
    assert legonn_score.main([*command, "--language", "zh", "--tokenize", "char"]) == 0
    assert "tok:char" in json.loads((tmp_path / "o" / "result.json").read_text())["signature"]
