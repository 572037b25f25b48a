"""Distillation in a plan: a teacher's answers become the texts of a student, made once; other experiments as before."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.data.datadir import DataDir
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import read_yaml
from espnet2_legonn.recipes.plan import Plan, load_plan
from espnet2_legonn.recipes.runner import is_done, run_experiment
from tests.recipes.test_plan import PLAN, changed, load
from tests.train.toys import DECODER, ENCODER, VOCABS, Corpus, control
from tests.zoo.toys import change

DATA = {"train": "t", "valid": "v", "tests": ["x"]}
STUDENT = {"name": "student", "modules": ["enc"], **DATA, "teacher": {"exp": "plug"}}


def taught(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(PLAN)
    data["experiments"].append({**STUDENT, **changes})
    return data


def test_a_teacher_comes_first_and_its_search_counts(tmp_path: Path) -> None:
    data = taught(teacher={"exp": "plug", "search": "joint"})
    plan = load(tmp_path, data, tables="all")
    student = plan.by_name["student"]
    assert student.needs == {"plug"}
    assert [e.name for e in load(tmp_path, data, only=["student"]).experiments] == ["donor", "poor", "plug", "student"]
    before = {e.name: plan.made(e) for e in plan.experiments}
    matters = {"searches.joint.beam_size": 2, "training.seed": 2, "experiments.1.options": {"accum_grad": 2}}
    for place, value in matters.items():
        other = load(tmp_path, change(data, place, value), tables="all")
        assert other.made(student) != before["student"], place
    plain = load(tmp_path, PLAN, tables="all")
    assert {e.name: plain.made(e) for e in plain.experiments}.items() <= before.items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"exp": "plgu"}}, r"experiment student: no experiment 'plgu' \(did you mean 'plug'\?\)"),
        ({"teacher": {"exp": "poor", "search": "joint"}}, "teacher: experiment poor is not decoded by search 'joint'"),
        ({"teacher": {}}, "teacher: key 'exp' is missing"),
        ({"modules": [], "plug": ["poor", "donor#decoder"]}, "experiment student: teacher: a plug is not trained"),
    ],
)
def test_what_cannot_teach_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, taught(**changes), tables="all")


def test_an_experiment_that_says_nothing_has_none(tmp_path: Path) -> None:
    """Digests of older plans stay, so what was trained is not trained again."""
    silent, said = (load(tmp_path, data) for data in (PLAN, changed("experiments.1.teacher", None)))
    assert [silent.fingerprint(e) for e in silent.experiments] == [said.fingerprint(e) for e in said.experiments]


BETTER = {"intermediate": {"blocks": [1], "self_conditioned": True}, "consistency": 0.2}


def study(tmp_path: Path) -> Plan:
    """A teacher, and its student with everything that makes an interface better."""
    Corpus(tmp_path / "raw").write()
    encoder = {**ENCODER, "length_control": {**control(), "num_blocks": 2}}
    common = {"train": "train", "valid": "valid", "tests": ["valid"]}
    data = {
        "vocabs": {name: VOCABS[name] for name in ("src", "tgt")},
        "modules": {"enc": encoder, "dec": DECODER},
        "training": {"max_epoch": 1, "batch_type": "sorted", "batch_size": 8, "num_workers": 0,
                     "use_tensorboard": False, "use_matplotlib": False, "optim_conf": {"lr": 1.0e-2}},
        "searches": {"decode": {"ctc_weight": 0.0, "beam_size": 2, "tune": True}},
        "experiments": [
            {"name": "teacher", "modules": ["enc", "dec"], **common},
            {"name": "student", "modules": ["enc"], **common, "teacher": {"exp": "teacher"},
             "change": {"encoder": {"output": BETTER}}},
        ],
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_plan(tmp_path / "plan.yaml", tables="all")


@pytest.mark.slow
@pytest.mark.xdist_group("espnet")
def test_a_student_learns_what_its_teacher_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from espnet2_legonn.inference import decode

    plan, raw, exp = study(tmp_path), tmp_path / "raw", tmp_path / "exp"
    said = {f"train{n:02d}": f"t{n % 5} t0" if n else "" for n in range(15)}
    whole = decode.decode_table

    def answers(chain: Any, inputs: dict[str, str], *more: Any) -> decode.Decoded:
        """An untrained teacher says nothing; these texts are told from those of people."""
        found = whole(chain, inputs, *more)
        if inputs.keys() == said.keys():
            found.nbest[0].text = dict(said)
        return found

    run_experiment(plan, plan.by_name["teacher"], raw, exp)
    monkeypatch.setattr(decode, "decode_table", answers)
    run_experiment(plan, plan.by_name["student"], raw, exp)
    assert all(is_done(plan, e, exp) for e in plan.experiments)
    (made,) = exp.glob("legonn_data_train_*")
    assert DataDir(made).table("text") == {uid: text for uid, text in said.items() if text}
    assert DataDir(made).table("src_text").keys() == DataDir(made).table("text").keys()
    assert not DataDir(made).has("text_phn")
    options = read_yaml(exp / "legonn_student" / "config.yaml")
    assert options["train_data_path_and_name_and_type"][0][0].startswith(str(made))
    assert options["valid_data_path_and_name_and_type"][0][0].startswith(str(raw / "valid"))
    output = next(m for m in options["modules"] if m["name"] == "encoder")["output"]
    assert output["intermediate"]["self_conditioned"] is True and output["consistency"] == 0.2
    log = (exp / "legonn_student" / "train.log").read_text()
    assert "intermediate_encoder=" in log and "consistency_encoder=" in log
    monkeypatch.setattr(decode, "decode_table", lambda *_: pytest.fail("it is made once"))
    from espnet2_legonn.recipes.runner import _train_set

    assert _train_set(plan, plan.by_name["student"], raw, exp) == made
    assert json.loads((exp / "legonn_student" / "made.json").read_text())["made"] == plan.made(plan.by_name["student"])
