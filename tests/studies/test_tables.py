"""Tables over seeds, from made-up answers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from espnet2_legonn.errors import DataError
from espnet2_legonn.packs.card import CARD
from espnet2_legonn.recipes.plan import Cell, Plan, ResultColumn, load_plan
from espnet2_legonn.scoring.metrics import score
from espnet2_legonn.studies.claims import load_claims
from espnet2_legonn.studies.matrix import Matrix, swap_text
from espnet2_legonn.studies.records import Records
from espnet2_legonn.studies.scores import DRAWS, Scores, difference_of, mean_of
from espnet2_legonn.studies.tables import main, notes, table_of
from tests.recipes.test_plan import PLAN
from tests.studies.toy_study import COLUMN, claim, make_study, plan_data, write_plan
from tests.zoo.toys import build, pair

STUDY = Path(__file__).resolve().parents[2] / "egs2/multi30k_study/legonn1/conf"


@pytest.fixture
def study(tmp_path: Path) -> Scores:
    return make_study(tmp_path)


def test_scores_are_those_of_the_result_files(study: Scores) -> None:
    runs = study.of(COLUMN, Cell("plug", "joint"))
    assert list(runs) == [1, 2, 3], "the fourth was not run"
    found = mean_of(runs)
    values = [
        json.loads((study.exp_dir / f"seed{s}/legonn_plug/joint/x/score_wer/result.json").read_text())["value"]
        for s in (1, 2, 3)
    ]
    assert found.value == pytest.approx(np.mean(values)) and found.ci[0] < found.value < found.ci[1]
    gain = difference_of(runs, study.of(COLUMN, Cell("poor")))
    assert gain is not None and gain.value < -20 and gain.ci[1] < -20 and gain.trainings == 3
    spent = [(run.updates, run.hours) for exp in ("poor", "plug") for run in study.of(COLUMN, Cell(exp)).values()]
    assert spent == [(100, 0.5)] * 3 + [(0, 0.0)] * 3
    assert study.of(COLUMN, Cell("donor")) == {} and difference_of(runs, {}) is None


def test_resamples_are_kept_until_the_score_is_another(study: Scores) -> None:
    first = study.of(COLUMN, Cell("poor"))[1]
    place = study.exp_dir / "seed1/legonn_poor/decode/x"
    kept = place / "score_wer" / DRAWS
    np.save(kept, first.draws + 1)
    np.testing.assert_array_equal(study.of(COLUMN, Cell("poor"))[1].draws, first.draws + 1)
    os.utime(kept, (0, 0))
    np.testing.assert_array_equal(study.of(COLUMN, Cell("poor"))[1].draws, first.draws)
    os.utime(kept, (0, 0))
    (place / "text").write_text((study.exp_dir / "seed1/legonn_plug/joint/x/text").read_text())
    with pytest.raises(DataError, match="result.json says"):
        study.of(COLUMN, Cell("poor"))


def test_the_command(study: Scores, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_plan(tmp_path)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim(at_least=20.0)]}))
    words = [str(tmp_path / "plan.yaml"), "--claims", str(tmp_path / "claims.yaml"), "--expdir", str(study.exp_dir)]
    main([*words, "--raw", str(study.raw), "--seeds", "1", "2", "3", "--out", str(tmp_path / "out" / "real")])
    said = capsys.readouterr().out
    assert said == (tmp_path / "out" / "real.md").read_text() + "\n"
    assert (
        "|H|more is better|holds|+" in said
        and "|never|not run|||" in said
        and said.endswith("## Not run yet\n\n- Second\n\n")
    )
    told = json.loads((tmp_path / "out" / "real.json").read_text())
    value, ci, t = (told["claims"][0]["mean"][name] for name in ("value", "ci", "student"))
    both = f"{value:+.1f} ({ci[0]:+.1f} to {ci[1]:+.1f}; t {t[0]:+.1f} to {t[1]:+.1f})"
    assert f"|holds|{both}|plug {both}|" in said and "Student's t over trainings" in said
    assert notes([1, 2, 3], {}) in said
    base, joint, never, empty = (row["cells"][0] for row in told["tables"][0]["rows"])
    assert empty == {} and "|empty||||" in said
    assert (
        never is None
        and base["less_first"] is None
        and joint["less_first"]["value"] < -20
        and list(joint["seeds"]) == ["1", "2", "3"]
    )
    assert (base["updates"], joint["updates"]) == (100, 0) and (base["parameters"], joint["parameters"]) == (
        123000,
        None,
    )
    assert "0.12 M, 100, 0.50" in said and "![" in said and "](real/1.svg)" in said and "real/2.svg" not in said
    drawn = (tmp_path / "out/real/1.svg").read_bytes()
    assert all(row["label"].encode() in drawn for row in told["tables"][0]["rows"]) and b"WER" in drawn
    main([*words, "--raw", str(study.raw), "--seeds", "1", "2", "3", "--out", str(tmp_path / "out" / "real")])
    assert (tmp_path / "out/real/1.svg").read_bytes() == drawn, "the same scores, the same bytes"


def test_a_page_says_how_it_is_read(study: Scores, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Speakers of a set are counted where it lies here; sets of the plan that no table has are not told."""
    write_plan(tmp_path)
    for name in ("x", "y"):
        (study.raw / name).mkdir(exist_ok=True)
        (study.raw / name / "utt2spk").write_text("".join(f"u{i:03d} speaker{i % 3}\n" for i in range(80)))
    words = [str(tmp_path / "plan.yaml"), "--expdir", str(study.exp_dir), "--seeds", "1", "2"]
    main([*words, "--raw", str(study.raw), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "speakers are drawn in place of sentences; x has 3.\n" in said
    (study.raw / "x" / "utt2spk").write_text("".join(f"u{i:03d} u{i:03d}\n" for i in range(80)))
    main([*words, "--raw", str(study.raw), "--out", str(tmp_path / "out")])
    assert "drawn in place of sentences.\n" in capsys.readouterr().out, "texts have a speaker each: that is nobody"
    for told in (
        "asked for: 1 2)",
        "nothing is corrected for the number of comparisons",
        "of the seeds that both rows have",
        "A plug has none; those of its encoder and its donor stand in their own rows",
        "Of one that was resumed they are no measure of its cost",
    ):
        assert told in said
    assert "sentences; a has 20; b has 4.\n" in notes([1], {"b": 4, "a": 20})


def test_swaps_stand_on_the_page_and_beside_it(study: Scores, tmp_path: Path) -> None:
    """Also when their models are gone; without swaps there is no section."""
    write_plan(tmp_path)
    words = [str(tmp_path / "plan.yaml"), "--expdir", str(study.exp_dir), "--raw", str(study.raw), "--seeds", "1"]
    out = ["--out", str(tmp_path / "out/real")]
    main([*words, *out])
    assert "## Swaps" not in (tmp_path / "out/real.md").read_text()
    values = np.array([[40.0, 36.0], [38.0, 41.0]])
    draws = values[:, :, None] + np.random.default_rng(0).normal(0, 0.1, (2, 2, 50))
    told = Matrix(("one", "two"), "bleu", values, draws).as_json(1.5)
    (tmp_path / "swap_a").mkdir()
    (tmp_path / "swap_a/swap.json").write_text(json.dumps(told))
    swaps = ["--swaps", f"Seeds={tmp_path / 'swap_a'}", f"Never={tmp_path / 'swap_b'}"]
    main([*words, *swaps, *out])
    page = (tmp_path / "out/real.md").read_text()
    assert f"## Swaps\n\n### Seeds\n\n{swap_text(told)}" in page and "Never" not in page and "](real/swaps.svg)" in page
    assert b"Seeds" in (tmp_path / "out/real/swaps.svg").read_bytes()
    assert json.loads((tmp_path / "out/real.json").read_text())["swaps"] == {"Seeds": json.loads(json.dumps(told))}
    shutil.rmtree(tmp_path / "swap_a")
    main([*words, *swaps, *out])
    again = (tmp_path / "out/real.md").read_text()
    assert again[again.index("## Swaps") :] == page[page.index("## Swaps") :]


def test_scores_of_another_search_do_not_count(study: Scores, tmp_path: Path) -> None:
    """They got the new description's place on record."""
    plan = write_plan(tmp_path)
    asked = dataclasses.replace(study, seeds=[1], plans={1: plan})
    cell, exp = Cell("plug", "joint"), study.exp_dir / "seed1/legonn_plug"
    done, note = exp / "done.json", exp / "joint" / "scored.json"
    told = json.loads(done.read_text())
    done.write_text(json.dumps({**told, "fingerprint": "of another plan"}))
    assert asked.of(COLUMN, cell) == {} and list(study.of(COLUMN, cell)) == [1, 2, 3]
    done.write_text(json.dumps({**told, "fingerprint": plan.fingerprint(plan.by_name["plug"])}))
    assert list(asked.of(COLUMN, cell)) == [1], "done before searches had a note"
    note.write_text(json.dumps({"digest": "of another search"}))
    assert asked.of(COLUMN, cell) == {}
    note.write_text(json.dumps({"digest": plan.scored(plan.by_name["plug"], "joint")}))
    assert list(asked.of(COLUMN, cell)) == [1]
    assert asked.of(COLUMN, Cell("nobody")) == {}


def test_a_table_of_one_seed_compares_rows_of_this_seed(study: Scores, tmp_path: Path) -> None:
    """A row that has three seeds elsewhere stood with its mean beside rows of one."""
    table = dataclasses.replace(write_plan(tmp_path).tables[0], seeds=1)
    cells = [row["cells"][0] for row in table_of(table, study)["rows"]]
    assert [list(cell["seeds"]) for cell in cells if cell] == [["1"], ["1"]]
    whole = [row["cells"][0] for row in table_of(dataclasses.replace(table, seeds=0), study)["rows"]]
    assert [list(cell["seeds"]) for cell in whole if cell] == [["1", "2", "3"]] * 2


def test_nothing_is_done(tmp_path: Path) -> None:
    write_plan(tmp_path)
    assert main([str(tmp_path / "plan.yaml"), "--expdir", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2


def test_the_study_of_multi30k() -> None:
    """Its plan can be read, its claims are about rows that it has, and a poor task never sees a donor's data."""
    plan = load_plan(STUDY / "plan.yaml", tables="all")
    assert [t for t in plan.tables if not t.study] == []
    claims = load_claims(STUDY / "claims.yaml", plan)
    assert {claim.name for claim in claims if claim.seeds == 1} == {"H4", "H9a", "H9b"}, "all others take three"
    names = {claim.name for claim in claims}
    assert names == {"H1", "H2", "H3", "H4", "H6", "H7", "H8", "H9a", "H9b"}
    assert {e.train for e in plan.experiments if e.train.startswith("train_de")} == {"train_de", "train_de_29000"}
    speech, translation = (load_plan(STUDY / f"plan_{name}.yaml", tables="all") for name in ("speech", "translation"))
    for other in (speech, translation):
        assert other.made(other.by_name["de_en"]) == plan.made(plan.by_name["de_en"]), "the same donor"
        assert [t.seeds for t in other.tables] == [1] * len(other.tables), "descriptions"
    assert {"st", "plug_units"} <= set(translation.by_name) and "st" not in plan.by_name
    heard = {e.train for e in translation.experiments if "speech" in e.train}
    assert heard == {"train_speech_de"}, "no module hears speech and its translation"
    for name, number in (("interface", 7), ("lm", 3), ("repairs", 4)):
        other = load_plan(STUDY / f"plan_{name}.yaml", tables="study")
        again = [e for e in other.experiments if e.name in plan.by_name]
        assert len(again) == number < len(other.experiments)
        assert all(other.fingerprint(e) == plan.fingerprint(plan.by_name[e.name]) for e in again), "not done again"
    assert len(load_plan(STUDY.parents[2] / "an4/legonn1/conf/plan.yaml", tables="study").experiments) == 4
    # Rows of one task differ in nothing but the system.
    for task in ("fr_4500", "fr_1000", "cs_4500", "cs_1000"):
        rows = [e for e in plan.experiments if e.name.endswith(task) and e.modules and "twice" not in e.name]
        assert len(rows) >= 7
        assert len({(e.train, e.valid, tuple(e.tests), json.dumps(e.options, sort_keys=True)) for e in rows}) == 1
        sizes = {plan.modules[key]["body"]["dropout"] for e in rows for key in e.modules if "frozen" not in key}
        assert sizes == {0.3}
    for longer in (e for e in plan.experiments if "twice" in e.name and e.modules):
        row = plan.by_name[longer.name.replace("_twice", "")]
        options = {**row.options, "max_epoch": 2 * row.options["max_epoch"]}
        assert longer == dataclasses.replace(row, name=longer.name, options=options, searches=longer.searches)


def test_languages_are_cut_as_stage_13_cuts_them(study: Scores) -> None:
    """Without the language, a Chinese sentence was one word, and the table ended with `run the plan again`."""
    exp, data = study.exp_dir / "seed1/legonn_zh", study.raw / "zh"
    answers = exp / "decode/zh"
    for folder in (data, answers):
        folder.mkdir(parents=True)
    (data / "text").write_text("u1 \u6211\u4eec\u53bb\u5b66\u6821\u5427\nu2 \u4f60\u597d\u5417\u6211\u5f88\u597d\n")
    (answers / "text").write_text("u1 \u6211\u4eec\u53bb\u5b66\u6821\u4e86\nu2 \u4f60\u597d\u5417\u4ed6\u5f88\u597d\n")
    vocabs = {"v": {"tokens": "tokens.txt", "unit": "word", "language": "zh"}}
    (exp / "config.yaml").write_text(yaml.safe_dump({"vocabs": vocabs, "modules": [PLAN["modules"]["enc"]]}))
    score("bleu", data, answers / "text", "zh").write(answers / "score_bleu")
    (exp / "done.json").write_text(json.dumps({"seconds": 1.0}))
    assert study.of(ResultColumn("BLEU", "bleu", "zh"), Cell("zh"))[1].value > 10


def test_a_killed_command_leaves_no_half_of_its_resamples(study: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(place: Any, _: np.ndarray) -> None:
        with open(place, "wb") if isinstance(place, Path) else place as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(np, "save", killed)
        study.of(COLUMN, Cell("poor"))
    assert len(study.of(COLUMN, Cell("poor"))) == 3


def test_weights_of_a_plug_are_told_by_its_card(study: Scores) -> None:
    chain = build(pair())
    assert study.of(COLUMN, Cell("plug"))[1].parameters is None
    chain.save(study.exp_dir / "seed1" / "card")
    card = study.exp_dir / "seed1" / "card" / CARD
    card.rename(study.exp_dir / "seed1" / "legonn_plug" / CARD)
    assert study.of(COLUMN, Cell("plug"))[1].parameters == sum(p.numel() for p in chain.parameters())


def records(study: Scores, plan: Plan) -> Scores:
    """The same study with records beside it."""
    return dataclasses.replace(study, records=Records(study.raw.parent / "kept", plan))


def write_records(study: Scores, plan: Plan) -> None:
    """Put the poor system on record."""
    here = records(study, plan)
    here.of(COLUMN, Cell("poor"))
    assert here.records is not None
    here.records.write()


def test_a_seed_is_judged_by_its_record_when_its_models_are_gone(study: Scores, tmp_path: Path) -> None:
    plan, cells = write_plan(tmp_path), (Cell("poor"), Cell("plug", "joint"))
    here = records(study, plan)
    before = [here.of(COLUMN, cell) for cell in cells]
    assert here.records is not None
    here.records.write()
    shutil.rmtree(study.exp_dir / "seed2")
    shutil.rmtree(study.exp_dir / "seed3")
    assert list(study.of(COLUMN, cells[0])) == [1]
    again = records(study, plan)
    after = [again.of(COLUMN, cell) for cell in cells]
    for was, now in zip(before, after):
        assert list(now) == [1, 2, 3]
        assert [r.value for r in was.values()] == [r.value for r in now.values()], "values are kept whole"
        assert [(r.updates, r.hours, r.parameters) for r in was.values()] == [
            (r.updates, r.hours, r.parameters) for r in now.values()
        ]
    whole, recorded = difference_of(*reversed(before)), difference_of(*reversed(after))
    assert whole is not None and recorded is not None and recorded.ci == pytest.approx(whole.ci, abs=1e-4)
    # Another machine adds a seed and keeps those that are on record.
    assert again.records is not None
    again.records.write()
    assert list(records(study, plan).of(COLUMN, cells[1])) == [1, 2, 3]


def test_a_page_says_where_its_models_were_trained(
    study: Scores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that are gone: writing the scores of others again does not change where these were trained."""
    write_plan(tmp_path)
    for exp in ("poor", "plug"):
        done = study.exp_dir / f"seed1/legonn_{exp}/done.json"
        told = {"Git hash": "01234567" * 5, "Machine": "7 CPUs (a fast one), GPU: none"}
        done.write_text(json.dumps({**json.loads(done.read_text()), "environment": told}))
    words = [str(tmp_path / "plan.yaml"), "--expdir", str(study.exp_dir), "--raw", str(study.raw)]
    words += ["--seeds", "1", "2", "--out", str(tmp_path / "out")]
    known, unknown = "commit 0123456, 7 CPUs (a fast one), GPU: none", "commit and machine are not on record"
    for whose in ("here", "from the scores on record beside this page"):
        main(words)
        said = capsys.readouterr().out
        assert f"\n- 2 chains {whose}: {known}\n" in said and f"\n- 2 chains here: {unknown}\n" in said
        shutil.rmtree(study.exp_dir / "seed1", ignore_errors=True)


def test_what_is_trained_here_wins_over_its_record(study: Scores, tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    here = records(study, plan)
    first = here.of(COLUMN, Cell("poor"))[1]
    assert here.records is not None
    here.records.keep(1, COLUMN, Cell("poor"), dataclasses.replace(first, value=99.0))
    here.records.write()
    assert records(study, plan).of(COLUMN, Cell("poor"))[1].value == first.value


def test_a_record_of_another_plan_does_not_count(study: Scores, tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    write_records(study, plan)
    shutil.rmtree(study.exp_dir)
    assert len(records(study, plan).of(COLUMN, Cell("poor"))) == 3
    data = plan_data()
    data["training"] = {**data.get("training", {}), "max_epoch": 77}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    assert records(study, load_plan(tmp_path / "plan.yaml", tables="all")).of(COLUMN, Cell("poor")) == {}


def test_records_that_do_not_belong_together(study: Scores, tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    write_records(study, plan)
    shutil.rmtree(study.exp_dir)
    np.savez_compressed(tmp_path / "kept" / "seed1.npz", draws=np.zeros((2, 1000)))
    with pytest.raises(
        DataError, match=r"seed1\.json: 1 cells, seed1\.npz has 2; take both files from the same commit"
    ):
        records(study, plan).of(COLUMN, Cell("poor"))
    (tmp_path / "kept" / "seed1.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"seed1\.npz: cannot be read"):
        records(study, plan).of(COLUMN, Cell("poor"))
