"""BLEU against sacreBLEU itself; the faults of ESPnet's MT scoring must not be here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sacrebleu

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.bleu import score_bleu

REFS = {
    "u1": 'He ( the president ) said "yes" (see annex) to the plan .',
    "u2": "A dog [brown] runs over the green field .",
    "u3": "Two men are sitting on a bench in the park .",
    "u4": "The weather is nice today .",
}
HYPS = {
    "u1": 'He ( the president ) said "yes" (see annex) for the plan .',
    "u2": "A dog [brown] runs on a green field .",
    "u3": "Two men sit on a bench in the park .",
    "u4": "the Weather is nice today .",
}


def table(path: Path, rows: dict[str, str], order: list[str] | None = None) -> Path:
    path.write_text("".join(f"{k} {rows[k]}\n" for k in order or rows), encoding="utf-8")
    return path


def test_equals_sacrebleu_whatever_the_order(tmp_path: Path) -> None:
    ref = table(tmp_path / "ref", REFS)
    hyp = table(tmp_path / "hyp", HYPS, ["u3", "u1", "u4", "u2"])
    report = score_bleu([ref], hyp)
    expected = sacrebleu.corpus_bleu(list(HYPS.values()), [list(REFS.values())])
    assert report.value == pytest.approx(expected.score, abs=1e-9)
    assert report.segments.value == pytest.approx(expected.score, abs=1e-9), (
        "bootstrap statistics give the score"
    )
    assert report.chrf == pytest.approx(
        sacrebleu.corpus_chrf(list(HYPS.values()), [list(REFS.values())]).score
    )
    version = sacrebleu.__version__
    assert report.signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert report.verbose.startswith(f"{expected.precisions[0]:.1f}/") and "BP = " in report.verbose


def test_parentheses_and_brackets_survive(tmp_path: Path) -> None:
    ref = table(tmp_path / "ref", REFS)
    without = {k: v.replace("( the president ) ", "").replace(" (see annex)", "") for k, v in REFS.items()}
    assert score_bleu([ref], ref).value == pytest.approx(100)
    assert score_bleu([ref], table(tmp_path / "hyp", without)).value < 90


def test_lowercase_and_tokenizer_are_in_the_signature(tmp_path: Path) -> None:
    ref, hyp = table(tmp_path / "ref", {"u4": REFS["u4"]}), table(tmp_path / "hyp", {"u4": HYPS["u4"]})
    assert score_bleu([ref], hyp).value < 100
    lower = score_bleu([ref], hyp, lowercase=True, tokenize="none")
    assert lower.value == pytest.approx(100) and lower.chrf == pytest.approx(100)
    assert "case:lc" in lower.signature and "tok:none" in lower.signature


def test_several_references(tmp_path: Path) -> None:
    first, hyp = table(tmp_path / "ref.0", REFS), table(tmp_path / "hyp", HYPS)
    second = table(tmp_path / "ref.1", HYPS, ["u4", "u3", "u2", "u1"])
    report = score_bleu([first, second], hyp)
    assert report.value == pytest.approx(100)
    assert "nrefs:2" in report.signature
    short = table(tmp_path / "ref.2", {"u1": "x", "zz": "y"})
    with pytest.raises(DataError, match=r"ref\.2: no reference for u2, which .*ref\.0 has") as caught:
        score_bleu([first, short], hyp)
    assert "ref.0: no reference for zz" in str(caught.value)


def test_files_are_replaced_and_complete(tmp_path: Path) -> None:
    ref, hyp = table(tmp_path / "ref", REFS), table(tmp_path / "hyp", HYPS)
    report = score_bleu([ref], hyp)
    report.write(tmp_path / "out")
    first = (tmp_path / "out" / "result.txt").read_text()
    report.write(tmp_path / "out")
    assert (tmp_path / "out" / "result.txt").read_text() == first
    assert first.startswith(f"BLEU|{report.signature} = {report.value:.2f} ")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["metric"], result["n"], result["signature"]) == ("bleu", 4, report.signature)
    assert result["ci_low"] < result["value"] < result["ci_high"]


def test_empty_and_missing_hypotheses(tmp_path: Path) -> None:
    ref = table(tmp_path / "ref", REFS)
    hyp = table(tmp_path / "hyp", {"u1": HYPS["u1"], "u2": "", "u3": HYPS["u3"]})
    with pytest.raises(DataError, match="no hypothesis for u4"):
        score_bleu([ref], hyp)
    report = score_bleu([ref], hyp, missing="empty")
    expected = sacrebleu.corpus_bleu([HYPS["u1"], "", HYPS["u3"], ""], [list(REFS.values())]).score
    assert report.value == pytest.approx(expected)
    assert report.absent == ("u4",) and "  u4\n" in report.as_text()
    nothing = score_bleu([ref], table(tmp_path / "nothing", dict.fromkeys(REFS, "")))
    assert nothing.value == 0


def test_faults(tmp_path: Path) -> None:
    ref = table(tmp_path / "ref", REFS)
    with pytest.raises(DataError, match="tokenizer 'moses' is none of"):
        score_bleu([ref], ref, tokenize="moses")
    with pytest.raises(DataError, match="every reference is empty"):
        score_bleu([table(tmp_path / "void", dict.fromkeys(REFS, ""))], ref)


def test_interval_agrees_with_sacrebleus_bootstrap(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(50)]
    refs = {f"u{i:03d}": " ".join(rng.choice(words, 12)) for i in range(150)}
    hyps = {
        k: " ".join(w if rng.random() > 0.15 else str(rng.choice(words)) for w in v.split())
        for k, v in refs.items()
    }
    report = score_bleu([table(tmp_path / "ref", refs)], table(tmp_path / "hyp", hyps))
    theirs = sacrebleu.BLEU().corpus_score(list(hyps.values()), [list(refs.values())], n_bootstrap=1000)
    half = (report.interval.high - report.interval.low) / 2
    assert half == pytest.approx(theirs._ci, rel=0.12)
    assert (report.interval.high + report.interval.low) / 2 == pytest.approx(theirs._mean, abs=0.3)
