"""Means of scores over test sets and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espnet2_legonn.errors import DataError
from espnet2_legonn.recipes.mean_scores import main, mean
from espnet2_legonn.recipes.paper_tables import read_score


def result(folder: Path, value: float, signature: str = "s") -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"metric": "bleu", "value": value, "signature": signature}))
    return folder


def test_mean_is_a_result(tmp_path: Path) -> None:
    places = [result(tmp_path / str(v), v) for v in (20.0, 30.0, 31.0)]
    assert mean(places, tmp_path / "mean") == 27.0
    score = read_score(tmp_path / "mean")
    assert (score.metric, score.value, score.low) == ("bleu", 27.0, None)
    assert json.loads((tmp_path / "mean" / "result.json").read_text())["values"] == [20.0, 30.0, 31.0]
    assert (tmp_path / "mean" / "result.txt").read_text() == "mean of 3 results: 27.00 (20.00 to 31.00)\n"


def test_all_faults_are_named(tmp_path: Path) -> None:
    result(tmp_path / "a", 1.0)
    result(tmp_path / "b", 1.0, "other")
    with pytest.raises(DataError) as caught:
        mean([tmp_path / name for name in ("a", "b", "c")], tmp_path / "mean")
    assert "c/result.json: no readable result" in caught.value.faults[0]
    assert "different measures: bleu other, bleu s" in caught.value.faults[1]
    assert not (tmp_path / "mean").exists()


def test_share_of_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, plug = result(tmp_path / "own", 29.2), result(tmp_path / "plug", 28.7)
    assert main([str(tmp_path / "swap"), str(plug), "--reference", str(own)]) == 0
    assert capsys.readouterr().out == "swap: 28.70, mean of 1, 98.3 % of 29.20\n"
    zero = result(tmp_path / "zero", 0.0)
    assert main([str(tmp_path / "swap"), str(plug), "--reference", str(zero)]) == 0
    assert "no share of 0" in capsys.readouterr().out
    worse, wer = (result(tmp_path / name, value) for name, value in (("worse", 10.0), ("wer", 8.0)))
    for place in (worse, wer):
        data = json.loads((place / "result.json").read_text())
        (place / "result.json").write_text(json.dumps({**data, "metric": "wer"}))
    assert main([str(tmp_path / "errors"), str(worse), "--reference", str(wer)]) == 0
    assert "80.0 % of 8.00" in capsys.readouterr().out, "of error rates, more is worse"
    assert main([str(tmp_path / "swap"), str(tmp_path / "nowhere")]) == 2
