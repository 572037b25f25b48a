"""The paper's tables beside ours: published numbers, results by name, and every mistake in naming them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.recipes import mean_scores, valid_loss
from espnet2_legonn.recipes.paper_tables import PUBLISHED, Score, load_tables, main, read_score
from tests.says import Says

TABLES = load_tables()


def result(folder: Path, metric: str = "wer", value: float = 17.0, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"metric": metric, "value": value, **more}))
    return folder


def test_published_numbers() -> None:
    assert list(TABLES) == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI"]
    values = {f"{n}.{r}.{c}": v for n, t in TABLES.items() for r, row in t.rows.items() for c, v in row.values.items()}
    assert len(values) == 146
    assert values["IV.wemb.test"] == 18.4 and values["V.three.test"] == 19.0 and values["VI.V.tuned"] == 14.8
    assert values["XI.baseline.ch_10"] == 136.6 and values["III.wemb.test"] == 35.0
    # What the paper says in words: 12.5 % and 19.5 % fewer errors, 1.5 BLEU more.
    baseline = values["IV.baseline.test"]
    assert round(100 * (1 - values["VI.IV.tuned"] / baseline), 1) == 12.5
    assert round(100 * (1 - values["VI.V.tuned"] / baseline), 1) == 19.6  # the paper: 19.5
    assert values["VI.III.tuned"] - values["III.baseline.test"] == 1.5


def test_our_results_stand_beside(tmp_path: Path, says: Says) -> None:
    plug = result(tmp_path / "plug", value=18.9, ci_low=18.1, ci_high=19.8)
    tuned = result(tmp_path / "tuned", value=16.0) / "result.json"
    bleu = result(tmp_path / "bleu", "bleu", 35.25)
    found = [f"IV.wemb={plug}", f"VI.IV.plug={plug}", f"VI.IV.tuned={tuned}", f"VI.III.tuned={bleu}"]
    text = says(main, ["IV", "VI", "--found", *found, "--out", str(tmp_path / "tables.md")])
    assert (tmp_path / "tables.md").read_text() == text
    lines = text.splitlines()
    assert "### Table IV: % WER on Europarl: an encoder trained on Europarl, a decoder from De-En" in lines
    assert "|Baseline Europarl Enc-Dec|18.4|not run||22|" in lines
    assert "|+ De-En WEmb decoder|18.4|18.9 (18.1 to 19.8)|+0.5|0|" in lines
    assert "BLEU, higher is better; % WER, lower is better" in lines
    assert "|Europarl encoder + De-En decoder (Table IV), WER|18.4|18.9 (18.1 to 19.8)|+0.5|16.1|16.0|-0.1|" in lines
    assert "|Ro-En encoder + De-En decoder (Table III), BLEU|35.0|not run||35.5|35.2|-0.2|" in lines


def test_a_loss_beside_scores_and_a_note(tmp_path: Path, says: Says) -> None:
    loss, wer = result(tmp_path / "loss", "ctc_loss", 0.618), result(tmp_path / "wer", value=11.04)
    text = says(main, ["IX", "I", "X", "--found", f"IX.asr_wemb.loss={loss}", f"IX.asr_wemb.first={wer}"])
    assert "|speech, WEmb LegoNN, WER|0.60|0.62|+0.02|11.6|11.0|-0.6|24.2|not run||" in text
    assert "% WER, lower is better; CTC loss in nats a token, lower is better" in text
    assert "28.6, 28.8, 18.3, 27.1 and 27.7" in text and "has 28.3 on newstest2014 in Table VIII and 29.2 here" in text
    tests = [f"tok_{year}" for year in (11, 12, 14, 15, 16)]
    means = [round(sum(row.values[c] for c in tests) / 5, 2) for row in TABLES["VIII"].rows.values()]
    assert means == [28.56, 28.78, 18.32, 27.06, 27.68]
    assert "is wer, the paper measured ctc_loss" in says(main, ["IX", "--found", f"IX.asr_wemb.loss={wer}"], 2)


def test_the_loss_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exp = tmp_path / "exp"
    exp.mkdir()
    assert valid_loss.main([str(exp), str(tmp_path / "out")]) == 2
    assert "checkpoint.pth: no such file; stage 11 writes it" in capsys.readouterr().err
    stats = {1: {"valid": {"ctc_encoder": 2.0}}, 2: {"valid": {"ctc_encoder": 0.75, "acc": 0.5}}}
    torch.save({"reporter": {"stats": stats, "epoch": 2}}, exp / "checkpoint.pth")
    assert valid_loss.main([str(exp), str(tmp_path / "out")]) == 0
    assert read_score(tmp_path / "out") == Score("ctc_loss", 0.75)
    assert valid_loss.main([str(exp), str(tmp_path / "out"), "--module", "encodr"]) == 2
    assert "no CTC loss of 'encodr' (did you mean 'encoder'?)" in capsys.readouterr().err


def test_every_mistake_is_told(tmp_path: Path, says: Says) -> None:
    good, bleu = result(tmp_path / "good"), result(tmp_path / "bleu", "bleu")
    (tmp_path / "bad.json").write_text("{}")
    found = [f"XX.a={good}", f"IV.wembb={good}", f"XI.wemb={good}", f"VI.IV.test={good}", f"IV.wemb={bleu}"]
    found += [f"IV.encoder={tmp_path}/none", f"IV.baseline={tmp_path}/bad.json", "IV"]
    told = says(main, ["IV", "--found", *found], 2)
    for part in (
        "no table 'XX'",
        "Table IV has no row 'wembb' (did you mean 'wemb'?)",
        "Table XI has the columns swb_10, ch_10, swb_30, ch_30; name one",
        "Table VI has the columns plug, tuned; name one",
        "is bleu, the paper measured wer",
        "none/result.json: no readable result",
        "bad.json: no readable result",
        "Table IV has no row ''",
    ):
        assert part in told, part
    assert "no table XIX; there are I, II" in says(main, ["IV", "XIX"], 2)


def test_a_damaged_file_of_published_numbers(tmp_path: Path) -> None:
    data = yaml.safe_load(PUBLISHED.read_text())
    data["IV"]["rows"]["wemb"]["tset"] = data["IV"]["rows"]["wemb"].pop("test")
    data["V"]["metric"] = "per"
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(data))
    data["I"]["colums"] = data["I"].pop("columns")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        load_tables(tmp_path / "x.yaml")
    told = str(caught.value)
    for part in (
        "I: unknown key 'colums' (did you mean 'columns'?)",
        "I: key 'columns' is missing",
        "IV.wemb: no value in column 'test'",
        "IV.wemb: unknown key 'tset' (did you mean 'test'?)",
        "'per' is not one of",
    ):
        assert part in told, part
    (tmp_path / "x.yaml").write_text("- IV\n")
    with pytest.raises(ConfigError, match="must be dict"):
        load_tables(tmp_path / "x.yaml")


# ---- means over test sets and seeds


def scored(folder: Path, value: float, signature: str = "s") -> Path:
    return result(folder, "bleu", value, signature=signature)


def test_mean_is_a_result(tmp_path: Path) -> None:
    places = [scored(tmp_path / str(v), v) for v in (20.0, 30.0, 31.0)]
    assert mean_scores.mean(places, tmp_path / "mean") == 27.0
    score = read_score(tmp_path / "mean")
    assert (score.metric, score.value, score.low) == ("bleu", 27.0, None)
    assert json.loads((tmp_path / "mean" / "result.json").read_text())["values"] == [20.0, 30.0, 31.0]
    assert (tmp_path / "mean" / "result.txt").read_text() == "mean of 3 results: 27.00 (20.00 to 31.00)\n"


def test_all_faults_are_named(tmp_path: Path) -> None:
    scored(tmp_path / "a", 1.0)
    scored(tmp_path / "b", 1.0, "other")
    with pytest.raises(DataError) as caught:
        mean_scores.mean([tmp_path / name for name in ("a", "b", "c")], tmp_path / "mean")
    assert "c/result.json: no readable result" in caught.value.faults[0]
    assert "different measures: bleu other, bleu s" in caught.value.faults[1]
    assert not (tmp_path / "mean").exists()


def test_share_of_a_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str], says: Says) -> None:
    own, plug = scored(tmp_path / "own", 29.2), scored(tmp_path / "plug", 28.7)
    assert mean_scores.main([str(tmp_path / "swap"), str(plug), "--reference", str(own)]) == 0
    assert capsys.readouterr().out == "swap: 28.70, mean of 1, 98.3 % of 29.20\n"
    zero = scored(tmp_path / "zero", 0.0)
    assert "no share of 0" in says(mean_scores.main, [str(tmp_path / "swap"), str(plug), "--reference", str(zero)])
    worse, wer = (scored(tmp_path / name, value) for name, value in (("worse", 10.0), ("wer", 8.0)))
    for place in (worse, wer):
        data = json.loads((place / "result.json").read_text())
        (place / "result.json").write_text(json.dumps({**data, "metric": "wer"}))
    assert mean_scores.main([str(tmp_path / "errors"), str(worse), "--reference", str(wer)]) == 0
    assert "80.0 % of 8.00" in capsys.readouterr().out, "of error rates, more is worse"
    assert mean_scores.main([str(tmp_path / "swap"), str(tmp_path / "nowhere")]) == 2
