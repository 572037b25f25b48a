"""Verdicts on claims, from made-up answers and against loops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.recipes.plan import Cell
from espnet2_legonn.scoring.hierarchy import Spread, draw_trainings, student
from espnet2_legonn.studies.claims import (
    judge,
    load_claims,
    mean_by_seed,
    verdict_of_each,
    verdict_of_mean,
    verdict_of_within,
)
from espnet2_legonn.studies.records import Run
from espnet2_legonn.studies.scores import Scores, gains_by_seed
from tests.studies.toy_study import COLUMN, claim, make_study, write_plan


@pytest.fixture
def study(tmp_path: Path) -> Scores:
    return make_study(tmp_path)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"at_least": 20.0}, "holds"),
        ({"at_least": 60.0}, "refuted"),
        ({"each": 20.0}, "holds"),
        ({"each": 60.0}, "refuted"),
        ({"within": 60.0}, "holds"),
        ({"within": 20.0}, "refuted"),
        ({"at_most": 20.0}, "holds"),
        ({"at_most": 5.0}, "refuted"),
        ({"open": True}, "open, nothing was claimed"),
    ],
)
def test_verdicts(study: Scores, tmp_path: Path, about: dict[str, float], words: str) -> None:
    """The plug has about 30 points less WER than the poor encoder, so its gain is +30."""
    plan = write_plan(tmp_path)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim(**about)]}))
    verdict = judge(load_claims(tmp_path / "claims.yaml", plan)[0], study)
    assert verdict.words == words and verdict.told == (words if "open" in about else f"{words} so far (3 of 4 seeds)")
    assert verdict.mean is not None and 25 < verdict.mean.value < 35
    assert verdict.as_json()["pairs"][0]["gain"]["value"] == pytest.approx(verdict.mean.value)


def gain(value: float, low: float, high: float, *t: float) -> Spread:
    """Of one training, or, with the ends of Student's interval, of three."""
    ends = (t[0], t[1]) if t else None
    return Spread(value, (low, high), (low, high), 3 if t else 1, ends, ends)


UP, HOLDS_0, DOWN = (0.1, 2.0), (-0.1, 2.0), (-2.0, -0.1)  # ends of intervals


@pytest.mark.parametrize(
    ("least", "mean", "others", "words"),
    [
        (1.0, gain(1.1, 0.3, 2.0), [gain(1.1, -0.5, 2.0)], "holds"),
        (1.0, gain(1.1, -1.0, 3.0), [gain(1.1, -1.0, 3.0)], "not shown"),
        (1.0, gain(0.9, 0.5, 1.3), [gain(0.9, 0.5, 1.3)], "refuted"),
        (1.0, gain(1.5, 0.5, 2.5), [gain(4.0, 3.0, 5.0), gain(-1.0, -2.0, -0.1)], "refuted"),
        (0.0, gain(0.4, 0.05, 0.7), [gain(-0.1, -0.4, 0.2), gain(0.9, 0.5, 1.4)], "holds"),
        (1.0, gain(1.1, *UP, *UP), [gain(1.1, *HOLDS_0, *HOLDS_0)], "holds"),
        (1.0, gain(1.1, *UP, *HOLDS_0), [gain(1.1, *UP, *UP)], "not shown"),
        (1.0, gain(1.1, *HOLDS_0, *UP), [gain(1.1, *UP, *UP)], "not shown"),
        (1.0, gain(0.9, *UP, *UP), [gain(0.9, *UP, *UP)], "refuted"),
        (1.0, gain(1.5, *UP, *UP), [gain(4.0, *UP, *UP), gain(-1.0, *DOWN, *DOWN)], "refuted"),
        (1.0, gain(1.5, *UP, *UP), [gain(4.0, *UP, *UP), gain(-1.0, *DOWN, *HOLDS_0)], "not shown"),
        (1.0, gain(1.5, *UP, *UP), [gain(4.0, *UP, *UP), gain(-1.0, *HOLDS_0, *DOWN)], "holds"),
        (0.0, gain(-0.5, *DOWN, *DOWN), [gain(-0.5, *HOLDS_0, *HOLDS_0)], "refuted"),
        (0.0, gain(-0.5, *DOWN, *HOLDS_0), [gain(-0.5, *HOLDS_0, *HOLDS_0)], "not shown"),
        (0.0, gain(-0.07, -0.6, 0.5), [gain(-0.07, -0.6, 0.5)], "not shown"),
        (0.0, gain(0.01, -0.5, 0.5), [gain(0.01, -0.5, 0.5)], "not shown"),
        (0.0, gain(-0.5, -0.9, -0.1), [gain(-0.5, -1.0, 0.2)], "refuted"),
    ],
)
def test_the_rule_that_was_named_before(least: float, mean: Spread, others: list[Spread], words: str) -> None:
    """A gain is claimed if its mean reaches what is asked for and both its intervals lie above 0."""
    assert verdict_of_mean(least, others, mean) == words


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([gain(3.1, *UP), gain(3.0, *UP)], "holds"),
        ([gain(3.1, *UP), gain(2.9, *UP)], "refuted"),
        ([gain(3.1, *UP), gain(3.0, *HOLDS_0)], "not shown"),
        ([gain(3.1, *UP, *UP), gain(3.0, *UP, *UP)], "holds"),
        ([gain(3.1, *UP, *UP), gain(3.0, *UP, *HOLDS_0)], "not shown"),
        ([gain(3.1, *UP, *UP), gain(3.0, *HOLDS_0, *UP)], "not shown"),
        ([gain(3.1, *UP, *HOLDS_0), gain(2.9, *UP, *UP)], "refuted"),
    ],
)
def test_the_rule_of_each_pair(gains: list[Spread], words: str) -> None:
    assert verdict_of_each(3.0, gains) == words


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([gain(0.5, -1.4, 1.4), gain(0.5, -1.0, 1.4, -1.4, 1.4)], "holds"),
        ([gain(0.5, -1.4, 1.4), gain(0.5, -1.0, 1.6)], "refuted"),
        ([gain(0.5, -1.4, 1.4), gain(0.5, -1.0, 1.4, -1.6, 1.4)], "not shown"),
        ([gain(0.5, -1.6, 1.4, -1.4, 1.4)], "refuted"),
    ],
)
def test_the_rule_of_no_difference(gains: list[Spread], words: str) -> None:
    assert verdict_of_within(1.5, gains) == words


def test_gains_against_loops(study: Scores, tmp_path: Path) -> None:
    """Student's t over the gains of seeds, of the mean over the means over pairs; WER is turned: less is better."""
    second = {"of": {"exp": "plug"}, "over": {"exp": "poor"}, "set": "x", "metric": "wer"}
    about = claim(at_least=1.0)
    about["pairs"].append(second)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [about]}))
    found = judge(load_claims(tmp_path / "claims.yaml", write_plan(tmp_path))[0], study)
    poor, plain, joint = (study.of(COLUMN, cell) for cell in (Cell("poor"), Cell("plug"), Cell("plug", "joint")))
    values = np.array([[poor[s].value - other[s].value for s in (1, 2, 3)] for other in (joint, plain)])
    draws = np.array([[poor[s].draws - other[s].draws for s in (1, 2, 3)] for other in (joint, plain)])
    picks = draw_trainings(3, draws.shape[-1])
    drawn = np.array([[pair[seeds, r].mean() for r, seeds in enumerate(picks)] for pair in draws])
    for spread, seeds, sample in zip(
        (*found.gains, found.mean), (*values, values.mean(0)), (*drawn, drawn.mean(0)), strict=True
    ):
        assert spread is not None and spread.student is not None and spread.student_tost is not None
        half = np.std(seeds, ddof=1) / 3**0.5
        assert spread.value == pytest.approx(np.mean(seeds)) and spread.trainings == 3
        np.testing.assert_allclose(spread.student, [np.mean(seeds) - 4.303 * half, np.mean(seeds) + 4.303 * half])
        np.testing.assert_allclose(spread.student_tost, [np.mean(seeds) - 2.92 * half, np.mean(seeds) + 2.92 * half])
        np.testing.assert_allclose(spread.ci, np.percentile(sample, [2.5, 97.5]))
    told = found.as_json()
    assert told["mean"]["student"] == list(student(values.mean(0).tolist()))
    assert [p["gain"]["student"] for p in told["pairs"]] == [list(student(row)) for row in values.tolist()]


def test_the_mean_is_of_trainings_that_all_pairs_have() -> None:
    def runs(**values: float) -> dict[int, Run]:
        return {int(seed[1:]): Run(value, np.array([value, value + 1])) for seed, value in values.items()}

    one = gains_by_seed(runs(s1=10.0, s2=12.0, s3=11.0, s4=9.0), runs(s1=8.0, s2=9.0, s3=7.0), higher=True)
    other = gains_by_seed(runs(s2=5.0, s3=6.0), runs(s1=0.0, s3=8.0, s2=6.0), higher=False)
    assert {s: run.value for s, run in one.items()} == {1: 2, 2: 3, 3: 4}
    assert {s: run.value for s, run in other.items()} == {2: 1, 3: 2}
    assert [run.value for run in mean_by_seed([one, other]).values()] == [2, 3]
    assert [run.draws.tolist() for run in mean_by_seed([one, other]).values()] == [[2, 2], [3, 3]]
    assert mean_by_seed([]) == mean_by_seed([{1: one[1]}, {2: one[2]}]) == {}


@pytest.mark.parametrize(
    ("seeds", "about", "told"),
    [
        ([1], {}, "holds (one seed, intervals over sentences)"),
        ([1, 4], {}, "holds so far (1 of 2 seeds, intervals over sentences)"),
        ([1, 4], {"seeds": 1}, "holds (one seed, intervals over sentences)"),
        ([1, 2, 4], {"seeds": 3}, "holds so far (2 of 3 seeds)"),
        ([1, 2, 4], {"seeds": 2}, "holds"),
        ([1, 2], {"seeds": 1}, "holds"),
        ([1, 2], {"seeds": 3}, "holds"),
    ],
)
def test_a_verdict_says_what_it_rests_on(
    study: Scores, tmp_path: Path, seeds: list[int], about: dict[str, int], told: str
) -> None:
    """The fourth seed was not run. One training has no interval over trainings."""
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim(each=20.0, **about)]}))
    asked = dataclasses.replace(study, seeds=seeds)
    verdict = judge(load_claims(tmp_path / "claims.yaml", write_plan(tmp_path))[0], asked)
    assert verdict.told == told == verdict.as_json()["verdict"] and verdict.words == "holds"
    assert verdict.mean is not None and (verdict.mean.student is None) is (seeds in ([1], [1, 4]))
    assert ("student" in verdict.as_json()["pairs"][0]["gain"]) is (verdict.mean.student is not None)


def test_a_gain_against_the_expectation_refutes(study: Scores, tmp_path: Path) -> None:
    """The mean over pairs may be enough while one pair clearly loses: that is no gain."""
    turned = {"of": {"exp": "plug"}, "over": {"exp": "plug", "search": "joint"}, "set": "x", "metric": "wer"}
    about = claim(at_least=1.0)
    about["pairs"].append(turned)
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [about]}))
    verdict = judge(load_claims(tmp_path / "claims.yaml", write_plan(tmp_path))[0], study)
    assert verdict.mean is not None and verdict.mean.value > 1 and verdict.words == "refuted"


def test_what_is_missing_is_not_known(study: Scores, tmp_path: Path) -> None:
    about = claim(at_least=1.0)
    about["pairs"].append({"of": {"exp": "donor"}, "over": {"exp": "poor"}, "set": "x", "metric": "wer"})
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [about]}))
    assert judge(load_claims(tmp_path / "claims.yaml", write_plan(tmp_path))[0], study).words == "not yet known"


def test_all_faults_of_claims(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    bad = claim(at_least=1.0, each=2.0)
    bad["pairs"][0] |= {"of": {"exp": "plgu"}, "over": {"exp": "poor", "search": "joint"}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [bad]}))
    with pytest.raises(ConfigError) as caught:
        load_claims(tmp_path / "claims.yaml", plan)
    told = str(caught.value)
    assert "give one of at_least" in told and "did you mean 'plug'" in told and "not decoded by search 'joint'" in told


def test_claims_that_nothing_could_ever_answer(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    blind = claim(at_least=1.0)
    blind["pairs"][0]["metric"] = "wre"
    lazy = {**claim(each=1.0, seeds=0), "pairs": []}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [blind, lazy]}))
    with pytest.raises(
        ConfigError,
        match=r"H: no metric 'wre' \(did you mean 'wer'\?\)\n.*H: seeds: must be 1.*\n.*H: pairs: at least one",
    ):
        load_claims(tmp_path / "claims.yaml", plan)
