"""Plans without training: what is read, what is refused, what depends on what; tables, and studies over seeds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.bin.legonn_plan import main
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes import runner, study
from espnet2_legonn.recipes.plan import Plan, load_plan
from espnet2_legonn.recipes.report import draw_interface, learned, render_table, write_report
from espnet2_legonn.recipes.study import render_pairs, render_study, write_study
from tests.train.toys import DECODER, ENCODER, VOCABS, control
from tests.zoo.toys import change

DEMO = Path(__file__).resolve().parents[2] / "egs2/mini_legonn/legonn1/conf/plan.yaml"
SIZES = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 8}
MODULE = {"name": "encoder", "input": {"type": "tokens", "vocab": "v"}, "body": SIZES, "output": {"vocab": "v"}}
READER = {"name": "decoder", "input": {"type": "wemb", "vocab": "v"}, "body": {"type": "transformer_decoder", **SIZES}}
PLAN: dict[str, Any] = {
    "vocabs": {"v": {"tokens": "tokens.txt", "unit": "word"}},
    "modules": {"enc": MODULE, "dec": {**READER, "output": {"vocab": "v"}}},
    "training": {"seed": 1},
    "searches": {"decode": {"ctc_weight": 0.0}, "joint": {"tune": True}},
    "experiments": [
        {"name": "donor", "modules": ["enc", "dec"], "train": "t", "valid": "v", "tests": ["x"]},
        {"name": "poor", "modules": ["enc"], "train": "t", "valid": "v", "tests": ["x"]},
        {"name": "plug", "plug": ["poor", "donor#decoder"], "valid": "v", "tests": ["x"],
         "searches": ["decode", "joint"]},
    ],
    "tables": [
        {"title": "First", "columns": [{"title": "BLEU", "metric": "bleu", "set": "x"}],
         "rows": [{"label": "base", "baseline": True, "cells": [{"exp": "poor"}]},
                  {"label": "joint", "cells": [{"exp": "plug", "search": "joint"}]}]},
        {"title": "Second", "more": True, "metric": "bleu", "set": "x", "rows": [{"label": "d", "exp": "donor"}]},
    ],
}  # fmt: skip


def load(tmp_path: Path, data: dict[str, Any], **options: Any) -> Plan:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return load_plan(tmp_path / "plan.yaml", **options)


def changed(place: str, value: Any) -> dict[str, Any]:
    return change(PLAN, place, value)


def test_only_what_the_tables_need(tmp_path: Path) -> None:
    assert [e.name for e in load(tmp_path, PLAN).experiments] == ["donor", "poor", "plug"]
    data = changed("tables.0.rows", [{"label": "base", "cells": [{"exp": "poor"}]}])
    assert [e.name for e in load(tmp_path, data).experiments] == ["poor"]
    everything = load(tmp_path, data, tables="all")
    assert len(everything.experiments) == 3 and [t.title for t in everything.tables] == ["First", "Second"]
    assert [e.name for e in load(tmp_path, data, only=["plug"]).experiments] == ["donor", "poor", "plug"]
    assert load(tmp_path, data, seed=7).training["seed"] == 7


def test_short_forms_mean_the_same(tmp_path: Path) -> None:
    """One column with rows that are cells, and ``search`` of older plans."""
    data = changed("search", {"beam_size": 3})
    del data["searches"]["decode"]
    plan = load(tmp_path, data, tables="all")
    (column,) = plan.tables[1].columns
    assert (column.title, column.metric, column.set) == ("BLEU (higher is better)", "bleu", "x")
    assert [(row.label, cell.exp, cell.search) for row, _, cell in plan.tables[1].cells()] == [("d", "donor", "decode")]
    assert plan.searches["decode"].beam_size == 3 and plan.searches["decode"].ctc_weight == 0.0


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("experiments.0.modules", ["enc", "decc"], r"experiment donor: no module 'decc' \(did you mean 'dec'\?\)"),
        ("experiments.0.train", "", "experiment donor: training needs train and valid"),
        ("experiments.2.plug", ["poor", "doner#decoder"], r"no experiment 'doner' \(did you mean 'donor'\?\)"),
        ("experiments.2.modules", ["enc"], r"experiment plug: give modules \(to train\) or plug"),
        ("experiments.2.valid", "", "experiment plug: search joint is tuned, so it needs valid"),
        ("experiments.2.searches", ["decode", "jiont"], r"no search 'jiont' \(did you mean 'joint'\?\)"),
        ("experiments.1.name", "donor", "two have the same name"),
        ("experiments.1.init", {"decoder": "donor"}, "experiment poor: init: no module 'decoder'"),
        ("experiments.1.init", {"encoder": {"from": "donor", "except": ["inptu"]}}, "no part 'inptu'.*'input'"),
        ("searches.joint.beam_sise", 4, "unknown key 'beam_sise'.*did you mean 'beam_size'"),
        ("searches.joint.ngram", "en", "searches.joint: no n-gram model 'en'"),
        ("ngrams", {"en": {"vocab": "w", "sets": ["t"]}}, "ngrams.en: no vocabulary 'w'"),
        ("tables.0.rows.1.cells", [], "row 'joint' has 0 cells for 1 columns"),
        ("tables.0.rows.1.cells.0.exp", "plgu", "no experiment 'plgu'"),
        ("tables.0.rows.0.cells.0.search", "joint", "experiment poor is not decoded by search 'joint'"),
        ("tables.0.columns.0.set", "y", "experiment plug is not tested on y"),
        ("tables.0.columns.0.metric", "wer", r"experiment plug is not scored by wer; its metrics are \['bleu'\]"),
        ("experiments.0.init", {"encoder": "plug"}, "experiments: .*(donor -> plug|plug -> donor).* so none can begin"),
        ("experiments.2.plug", ["#encoder", "donor#decoder"], "experiment plug: plug: each part is EXPERIMENT"),
        ("tabels", [], r"unknown key 'tabels' \(did you mean 'tables'\?\)"),
    ],
)
def test_faults_are_named(tmp_path: Path, place: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"plan.yaml.*{message}"):
        load(tmp_path, changed(place, value), tables="all")


def test_all_faults_at_once(tmp_path: Path) -> None:
    data = changed("experiments.0.train", "")
    data["experiments"][2]["valid"] = ""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, data)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("searches", ["decode"], r"searches: must be .*, found \['decode'\]"),
        ("tables", 3, "tables: must be list.*, found 3"),
        ("tables.1.rows", "donor", "found 'donor'"),
        ("search", 5, "unknown key 'search'"),
        ("vocabs", {"v": {"tokens": "t", "unti": "word"}}, r"vocabs.v: unknown key 'unti' \(did you mean 'unit'\?\)"),
    ],
)
def test_what_is_no_plan_at_all_is_named(tmp_path: Path, place: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"plan.yaml.*{message}"):
        load(tmp_path, changed(place, value), tables="all")


def test_modules_are_read_by_the_schema_of_training(tmp_path: Path) -> None:
    """A plan with a mistyped module ran for hours until that module's turn, or ended in a KeyError."""
    data = copy.deepcopy(PLAN)
    first, *_ = data["modules"]
    data["modules"] = {first: {"nam": "x"}, "broken": 3}
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, data)
    told = str(caught.value)
    assert f"modules.{first}: unknown key 'nam' (did you mean 'name'?)" in told, told
    assert f"modules.{first}: key 'name' is missing" in told and "modules.broken: must be a mapping, found 3" in told


def test_a_study_repeats_with_another_seed_or_not_at_all(tmp_path: Path) -> None:
    """A seed of an experiment's own made all trainings the same; a plan without a study was run whole."""
    data = changed("experiments.0.options", {"seed": 3})
    assert load(tmp_path, data).by_name["donor"].options == {"seed": 3}
    with pytest.raises(ConfigError, match="experiment donor: options: seed would make all seeds"):
        load(tmp_path, data, seed=5)
    with pytest.raises(ConfigError, match="none says study: true"):
        load(tmp_path, PLAN, tables="study")


def test_epochs_stay_until_their_average_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was killed behind the average found no epochs, or averaged those that were not removed yet."""
    found = load(tmp_path, {**PLAN, "average_window": 2})
    exp = tmp_path / "exp" / "legonn_donor"

    def train(*_: Any) -> None:
        for name in ("1epoch.pth", "2epoch.pth", "valid.decoded.ave.pth"):
            (exp / name).touch()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_train", train)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(runner, "atomic_text", killed)
        runner._make(found, found.by_name["donor"], tmp_path, exp, tmp_path / "exp")
    assert len(list(exp.glob("*epoch.pth"))) == 2
    runner._make(found, found.by_name["donor"], tmp_path, exp, tmp_path / "exp")
    assert (exp / "made.json").is_file() and not list(exp.glob("*epoch.pth"))


def test_what_was_made_outlives_another_search(tmp_path: Path) -> None:
    """Another search decodes again; another donor trains again what stands on it, and nothing else."""
    plans = {
        "as it is": load(tmp_path, PLAN),
        "another search": load(tmp_path, changed("searches.joint.beam_size", 9)),
        "another donor": load(tmp_path, changed("experiments.0.options", {"max_epoch": 3})),
    }
    made = {n: {e.name: p.made(e) for e in p.experiments} for n, p in plans.items()}
    full = {n: {e.name: p.fingerprint(e) for e in p.experiments} for n, p in plans.items()}
    assert made["as it is"] == made["another search"]
    assert {n for n, f in full["another search"].items() if f != full["as it is"][n]} == {"plug"}
    assert {n for n, m in made["another donor"].items() if m != made["as it is"][n]} == {"donor", "plug"}


def test_choosing_among_all_windows_is_another_training(tmp_path: Path) -> None:
    """One window is what older plans had: what they made is still what they ask for."""
    given = {"average_window": 3}
    plain, named, every = (
        load(tmp_path, {**PLAN, **given, **more}) for more in ({}, {"average_candidates": 1}, {"average_candidates": 0})
    )
    donor = plain.by_name["donor"]
    assert plain.made(donor) == named.made(donor) != every.made(donor)


# -- tables ------------------------------------------------------------------------------------------------------------


def write_score(exp_dir: Path, exp: str, search: str, value: float, metric: str = "bleu") -> None:
    folder = exp_dir / f"legonn_{exp}"
    score = folder / search / "x" / f"score_{metric}"
    score.mkdir(parents=True)
    result = {"metric": metric, "value": value, "ci_low": value - 1, "ci_high": value + 1}
    (score / "result.json").write_text(json.dumps(result))
    (folder / "done.json").write_text(json.dumps({"seconds": 12.3, "results": [1], "notes": []}))


def test_a_table(tmp_path: Path) -> None:
    plan = load(tmp_path, PLAN)
    write_score(tmp_path, "poor", "decode", 20.0)
    (tmp_path / "legonn_poor" / "train.yaml").touch()
    assert "|joint|not run||" in render_table(plan.tables[0], tmp_path)
    write_score(tmp_path, "plug", "joint", 30.0)
    assert render_table(plan.tables[0], tmp_path) == (
        "### First\n\n||BLEU|updates, time|\n|---|---|---|\n"
        "|base|20.0 (19.0 to 21.0)|trained, 12 s|\n|joint|30.0 (29.0 to 31.0)|0|\n"
    )


def test_a_score_without_an_interval(tmp_path: Path) -> None:
    """A set of one speaker has none; the report ended in a TypeError when all was trained."""
    write_score(tmp_path, "poor", "decode", 20.0)
    result = tmp_path / "legonn_poor/decode/x/score_bleu/result.json"
    result.write_text(json.dumps({"metric": "bleu", "value": 20.0, "ci_low": None, "ci_high": None}))
    assert "|base|20.0|0|" in render_table(load(tmp_path, PLAN).tables[0], tmp_path)


def test_a_plug_that_is_only_a_donor_is_not_drawn(tmp_path: Path) -> None:
    write_score(tmp_path, "plug", "decode", 20.0)
    data = changed("experiments.2.tests", [])
    data["tables"] = []
    assert draw_interface(load(tmp_path, data), tmp_path, tmp_path) is None


def test_a_cell_that_takes_long_waits_for_all_tables(tmp_path: Path) -> None:
    data = changed("tables.0.rows.0.cells", [{"exp": "poor", "more": True}])
    data["experiments"][2]["plug"] = ["donor"]
    first = load(tmp_path, data)
    assert [e.name for e in first.experiments] == ["donor", "plug"]
    assert [e.name for e in load(tmp_path, data, tables="all").experiments] == ["donor", "poor", "plug"]
    write_score(tmp_path, "plug", "joint", 30.0)
    told = write_report(first, tmp_path, tmp_path / "RESULTS.md")
    assert "|base|with --tables all||" in told and "|joint|30.0 (29.0 to 31.0)|0|" in told
    write_score(tmp_path / "seed1", "plug", "joint", 31.0)
    write_score(tmp_path / "seed2", "plug", "joint", 33.0)
    study = render_study(first.tables[0], tmp_path, [1, 2])
    assert "|base|not run||" in study and "|joint|32.0 ± 1.4" in study
    write_score(tmp_path, "poor", "decode", 20.0)
    assert "|base|20.0 (19.0 to 21.0)|0|" in render_table(first.tables[0], tmp_path)


def test_a_baseline_that_did_not_learn_is_no_baseline(tmp_path: Path) -> None:
    write_score(tmp_path, "poor", "decode", 0.4)
    write_score(tmp_path, "plug", "joint", 30.0)
    with pytest.raises(DataError, match="baseline 'base' did not learn.*unlearned: true"):
        render_table(load(tmp_path, PLAN).tables[0], tmp_path)
    said = render_table(load(tmp_path, changed("tables.0.unlearned", True)).tables[0], tmp_path)
    assert "0.4 (-0.6 to 1.4) (did not learn)" in said
    assert [learned("wer", v) for v in (97.4, 50.6)] == [False, True]


# -- studies -----------------------------------------------------------------------------------------------------------


def test_a_study(tmp_path: Path) -> None:
    plan = load(tmp_path, PLAN)
    scores = {1: (20.0, 31.0), 2: (22.0, 30.0), 3: (21.0, 35.0)}
    for seed, (base, joint) in scores.items():
        write_score(tmp_path / f"seed{seed}", "poor", "decode", base)
        write_score(tmp_path / f"seed{seed}", "plug", "joint", joint)
    said = render_study(plan.tables[0], tmp_path, [1, 2, 3, 4])
    # By hand: t(2) = 4.303; deviation of 20, 22, 21 is 1.0, of the differences 11, 8, 14 it is 3.0.
    assert "|base|21.0 ± 1.0 (18.5 to 23.5)||" in said
    assert "|joint|32.0 ± 2.6 (25.4 to 38.6)|+11.0 (+3.5 to +18.5)|" in said
    write_study(plan, tmp_path, [1, 2, 3, 4], tmp_path / "STUDY.md")
    assert "seeds: `1 2 3`" in (tmp_path / "STUDY.md").read_text()
    assert "|2 joint|+11.0 (+3.5 to +18.5)|" in render_pairs(plan.tables[0], tmp_path, [1, 2, 3, 4])
    with pytest.raises(DataError, match="no seed is done"):
        write_study(plan, tmp_path, [9], tmp_path / "STUDY.md")


def test_a_study_goes_table_by_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All seeds of the first table come before the second, which has one seed; or all of what was asked for by name."""
    data = copy.deepcopy(PLAN)
    for number, table in enumerate(data["tables"]):
        table |= {"study": True, "seeds": number}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    done: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(runner, "run_plan", lambda plan, raw, out, n: done.append((out.name, sorted(plan.by_name))))
    monkeypatch.setattr(study, "write_study", lambda *_: "")
    words = [str(tmp_path / "plan.yaml"), "--tables", "study", "--seeds", "4", "5"]
    main(words)
    first = ["donor", "plug", "poor"]
    assert done == [("seed4", first), ("seed5", first), ("seed4", ["donor"])]
    done.clear()
    main([*words, "--only", "poor"])
    assert done == [("seed4", ["poor"]), ("seed5", ["poor"])]


def test_the_demos_plan() -> None:
    """Its first table fits the README's first screen; every baseline is marked as one."""
    first, everything = load_plan(DEMO), load_plan(DEMO, tables="all")
    assert len(first.tables[0].rows) <= 8 and first.tables[0].study
    assert len(everything.experiments) > len(first.experiments)
    assert load_plan(DEMO, tables="study").tables == [table for table in everything.tables if table.study]


def test_metrics_of_experiments_and_tables(tmp_path: Path) -> None:
    data = yaml.safe_load(DEMO.read_text())
    data["experiments"][0]["metrics"] = ["cer", "blue"]
    data["tables"][0]["columns"][0]["metric"] = "wre"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, data)
    first, second = caught.value.faults
    assert f"experiment {data['experiments'][0]['name']}: no metric 'blue'" in first and "bleu" in first
    assert "no metric 'wre'" in second and "wer" in second


# ---- experiments that start from each other's modules, or from parts of them

FIRST = {**ENCODER, "length_control": control(ratio="3/2")}
HYBRID = {**FIRST, "output": {"type": "states", "ctc": {"vocab": "tgt"}}}


def plan(tmp_path: Path, *experiments: dict[str, Any]) -> Plan:
    sets = {"train": "t", "valid": "v", "tests": ["x"]}
    donor = {"name": "donor", "modules": ["enc", "dec"], **sets}
    modules = {"enc": FIRST, "dec": DECODER, "hybrid": HYBRID, "states": {**DECODER, "input": {"type": "states"}}}
    data = {"vocabs": VOCABS, "modules": modules, "experiments": [donor, *({**sets, **e} for e in experiments)]}
    return load(tmp_path, data, tables="all")


def warm(init: Any) -> dict[str, Any]:
    return {"name": "warm", "modules": ["enc", "dec"], "init": init}


def test_init_short_and_with_parts(tmp_path: Path) -> None:
    init = {"encoder": {"from": "donor#encoder", "except": ["input"]}, "decoder": "donor"}
    found = plan(tmp_path, warm(init))
    experiment = found.by_name["warm"]
    assert experiment.needs == {"donor"}
    config = parse({k: found.chain(experiment, Path("exp"))[k] for k in ("vocabs", "modules")})
    encoder, decoder = (m.donor for m in config.modules)
    assert (encoder.source, encoder.left) == ("exp/legonn_donor#encoder", ["input"])
    assert decoder.source == "exp/legonn_donor" and config.modules[1].init == "exp/legonn_donor"
    other = plan(tmp_path, warm({**init, "encoder": "donor#encoder"}))
    assert other.fingerprint(other.by_name["warm"]) != found.fingerprint(experiment)


def test_all_faults_of_init_at_once(tmp_path: Path) -> None:
    init = {
        "encoder": {"form": "donor", "except": ["input"]},
        "decodr": "donor",
        "decoder": {"from": "d", "only": ["bdy"]},
    }
    with pytest.raises(ConfigError) as error:
        plan(tmp_path, warm(init))
    where = f"{tmp_path}/plan.yaml: experiment"
    assert error.value.faults == [
        f"{where} warm: encoder.init: unknown key 'form' (did you mean 'from'?); known: from, only, except",
        f"{where} warm: encoder.init: key 'from' is missing",
        f"{where} warm: init: no module 'decodr' (did you mean 'decoder'?)",
        f"{where} warm: decoder.init.only: no part 'bdy' (did you mean 'body'?); there are input, body, embed, output",
        f"{where} warm: no experiment 'd'",
    ]
    with pytest.raises(ConfigError, match=r"experiments\[1\].init: must be dict.*found \[1\]"):
        plan(tmp_path, warm([1]))


def test_the_vocabulary_of_an_auxiliary_ctc_comes_along(tmp_path: Path) -> None:
    found = plan(tmp_path, {"name": "base", "modules": ["hybrid", "states"]})
    assert set(found.chain(found.by_name["base"], Path())["vocabs"]) == {"src", "tgt"}
    alone = plan(tmp_path, {"name": "base", "modules": ["hybrid"]})
    assert set(alone.chain(alone.by_name["base"], Path())["vocabs"]) == {"src", "tgt"}
