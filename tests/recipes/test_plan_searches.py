"""Searches and plugs of a plan's run that is not the first: what is done again, and what is not."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.recipes import runner, tune
from espnet2_legonn.recipes.plan import Experiment, Plan, SearchPlan, asked
from tests.recipes.test_plan import PLAN, changed, load


def test_a_search_is_not_tuned_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one search of an experiment was tuned to filled the gaps of all others when it was decoded again."""
    from espnet2_legonn.inference import decode
    from espnet2_legonn.model.interface import SearchChoice
    from espnet2_legonn.packs.pack import keep_search
    from tests.zoo.toys import build, pair

    data = changed("experiments.2.searches", ["plain"])
    data |= {"searches": {**data["searches"], "plain": {}}, "tables": []}
    found, exp = load(tmp_path, data), build(pair()).save(tmp_path / "exp" / "legonn_plug")
    keep_search(exp, SearchChoice(1.0, 2.0))
    (tmp_path / "x").mkdir()
    (tmp_path / "x/src_text").write_text("u1 k l\n")
    seen: list[Any] = []

    def stop(chain: Any, *_: Any) -> None:
        seen.append(chain.search)
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "decode_table", stop)
    with pytest.raises(KeyboardInterrupt):
        runner._decode_and_score(found, found.by_name["plug"], tmp_path, exp, tmp_path / "exp")
    assert seen == [None]


def test_a_search_is_decoded_again_only_if_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another search, or one that is new, leaves the scores of the others; the choice of the last one is kept."""
    from tests.zoo.toys import build, pair

    exp = build(pair()).save(tmp_path / "exp" / "legonn_plug")
    for name, text in (("src_text", "u1 k l\nu2 m\n"), ("text", "u1 a b\nu2 c\n")):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text(text)
    decoded = list[str]()
    whole = runner._score

    def score(plan: Plan, experiment: Experiment, search: str, *more: Any) -> list[dict[str, Any]]:
        decoded.append(search)
        return whole(plan, experiment, search, *more)

    monkeypatch.setattr(runner, "_score", score)

    def run(**searches: dict[str, Any]) -> list[dict[str, Any]]:
        decoded.clear()
        data = changed("experiments.2.searches", [*searches]) | {"searches": {"decode": {}, **searches}, "tables": []}
        data["experiments"][2] |= {"valid": "x", "tests": ["x"], "metrics": ["wer"]}
        found = load(tmp_path, data)
        return runner._decode_and_score(found, found.by_name["plug"], tmp_path, exp, tmp_path / "exp")

    plain, tuned = {"beam_size": 2, "length_penalty": 1.0}, {"beam_size": 2, "tune": True}
    first = run(plain=plain, tuned=tuned)
    assert decoded == ["plain", "tuned"] and [r["search"] for r in first if not r["module"]] == ["plain", "tuned"]
    choice = (exp / "card.yaml").read_text()
    assert run(plain=plain, tuned=tuned) == first and decoded == []
    again = run(plain={**plain, "beam_size": 3}, other=plain, tuned=tuned)
    assert decoded == ["plain", "other"], "the tuned one is as it was"
    assert [r for r in again if r["search"] == "tuned"] == [r for r in first if r["search"] == "tuned"]
    run(tuned=tuned, second={**tuned, "ctc_weight": 0.0})
    assert (exp / "card.yaml").read_text() != choice
    run(second={**tuned, "ctc_weight": 0.0}, tuned=tuned)
    assert decoded == [] and (exp / "card.yaml").read_text() == choice, "nothing was decoded, the last choice is kept"
    (tmp_path / "x" / "text").write_text("u1 a b\nu2 d\n")
    run(plain=plain, tuned=tuned)
    assert decoded == ["plain", "tuned"], "other references"
    (exp / "plain" / "x" / "text").unlink()
    run(plain=plain, tuned=tuned)
    assert decoded == ["plain"], "answers that are gone"
    monkeypatch.setattr(runner, "_score", stop)
    with pytest.raises(KeyboardInterrupt):
        run(plain={**plain, "beam_size": 3}, tuned=tuned)
    monkeypatch.setattr(runner, "_score", score)
    run(plain=plain, tuned=tuned)
    assert decoded == ["plain"], "it was stopped with answers of another search"


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_other_weights_are_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_plug", lambda *_: [])
    found, exp = load(tmp_path, PLAN), tmp_path / "exp" / "legonn_plug"
    (exp / "joint").mkdir(parents=True)
    (exp / "fingerprint").write_text(found.made(found.by_name["plug"]))
    (exp / "joint" / "scored.json").write_text("{}")
    runner._make(found, found.by_name["plug"], tmp_path, exp, tmp_path / "exp")
    assert not (exp / "joint" / "scored.json").exists()
    assert json.loads((exp / "made.json").read_text())["environment"]["python version"]


def test_only_searches_that_are_tuned_otherwise_now_are_decoded_again() -> None:
    """Their digests changed with the proposals; those of the others stay, so old scores stay."""
    usual = asked(SearchPlan(tune=True, ctc_weight=0.0))
    assert "proposals" not in usual and "proposals" not in asked(SearchPlan(ngram="en")), "or nothing is tuned"
    assert (tune.PROPOSERS, tune.MODEL_PROPOSERS) == ((0.0, 0.4, 1.0), (0.2, 0.5, 1.0)), "another PROPOSALS, please"
    for other in ({"ngram": "en"}, {"temperature": 0.02}, {"lm_file": "lm.pth"}, {"maxlenratio": 0.5}):
        assert asked(SearchPlan(tune=True, **other))["proposals"] == 2


def test_a_plug_that_was_killed_is_put_together_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of its files were moved already: the rest is no pack, and was in the way for ever."""
    from espnet2_legonn.inference import compose
    from espnet2_legonn.packs.files import replacing

    def fake(_: Any, out: Path) -> tuple[None, list[str]]:
        with replacing(out) as new:
            (new / "card.yaml").touch()
        return None, []

    monkeypatch.setattr(compose, "compose", fake)
    (tmp_path / "chain").mkdir()
    (tmp_path / "chain/weights.safetensors").touch()
    runner._plug(load(tmp_path, PLAN).by_name["plug"], tmp_path, tmp_path)
    assert (tmp_path / "card.yaml").is_file() and not (tmp_path / "chain").exists()


def test_language_models_of_searches_and_plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf:FOLDER` waits for no experiment and goes to compose as it is; older plans keep what they made."""
    from espnet2_legonn.inference import compose
    from espnet2_legonn.packs.files import replacing
    from espnet2_legonn.recipes.plan import SearchPlan, asked

    found = load(tmp_path, changed("experiments.2.plug", ["poor", "hf:exp/lm"]))
    assert found.by_name["plug"].needs == {"poor"}
    given: list[Any] = []

    def fake(parts: list[str], out: Path) -> tuple[None, list[str]]:
        given.extend(parts)
        with replacing(out) as new:
            (new / "card.yaml").touch()
        return None, []

    monkeypatch.setattr(compose, "compose", fake)
    runner._plug(found.by_name["plug"], tmp_path, Path("exp"))
    assert given == ["exp/legonn_poor", "hf:exp/lm"]
    assert not {"lm_file", "lm_weight"} & asked(SearchPlan()).keys() and "lm_file" in asked(SearchPlan(lm_file="a"))
    both = {**PLAN, "searches": {"joint": {"ngram": "en", "lm_file": "a"}, "decode": {}}}
    with pytest.raises(ConfigError, match="searches.joint: ngram and lm_file; give one of them"):
        load(tmp_path, {**both, "ngrams": {"en": {"vocab": "v", "sets": ["t"]}}})


@pytest.mark.parametrize("about", [{"tune": True}, {"tune": True, "ngram_weight": 0.05}, {"ctc_weight": 0.3}])
def test_a_search_with_an_ngram(tmp_path: Path, about: dict[str, Any]) -> None:
    """Its weight is tuned with the others unless it is given, and is that of the model that searches."""
    from tests.zoo.toys import build, pair

    chain = build(pair())
    (tmp_path / "tokens.txt").write_text("".join(f"{token}\n" for token in chain.require_text().tokens))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/text").write_text("".join(f"u{i:02d} {'a b ' * (1 + i % 3)}c\n" for i in range(12)))
    (tmp_path / "set/src_text").write_text("".join(f"u{i:02d} {'k l ' * (1 + i % 3)}m\n" for i in range(12)))
    data = copy.deepcopy(PLAN)
    data |= {"ngrams": {"en": {"vocab": "v", "sets": ["set"], "order": 2}}, "tables": []}
    data["vocabs"]["v"]["tokens"] = str(tmp_path / "tokens.txt")
    data["searches"]["lm"] = {"beam_size": 3, "ngram": "en", **about}
    for experiment in data["experiments"]:
        experiment |= {"searches": ["lm"], "valid": "set", "tests": ["set"]}
    found, exp = load(tmp_path, data), chain.save(tmp_path / "exp" / "legonn_plug")
    runner.make_ngrams(found, tmp_path, tmp_path / "exp")
    plug = found.by_name["plug"]
    options, own = runner._search(found, "lm", plug, chain, tmp_path, exp, tmp_path / "exp")
    assert own is None, "with a language model it is no choice for the chain itself"
    assert options.ngram_file == str(tmp_path / "exp/ngram_en.arpa.gz") and options.lm_weight is None
    if about.get("tune"):
        tuned = json.loads((exp / "tune/lm/result.json").read_text())
        assert options.ngram_weight == about.get("ngram_weight", tuned["ngram_weight"])
        assert (options.ctc_weight, options.length_penalty) == (tuned["ctc_weight"], tuned["length_penalty"])
        weights = {row[1] for row in tuned["grid"]}
        assert weights == {about["ngram_weight"]} if "ngram_weight" in about else weights > {0.0, 1.0}
        assert not (exp / "search.yaml").exists()
        again = runner._search(found, "lm", plug, chain, tmp_path, exp, tmp_path / "exp", tuned=True)
        assert again == (options, None)
    else:
        assert options.ngram_weight is None and options.ctc_weight == 0.3
    best = chain.answer("k l m", options)[0].nbest[0]
    assert set(best.parts) >= {"decoder", "ngram"}


def test_a_log_has_what_nobody_heard_before(tmp_path: Path) -> None:
    """A level that was asked for once is remembered until it is set anew: train.log had no epochs."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)
    try:
        logging.info("before")
        with runner.log_to(tmp_path / "train.log"):
            logging.info("1epoch results")
        logging.info("after")
        assert root.level == logging.WARNING
    finally:
        root.setLevel(level)
    assert (tmp_path / "train.log").read_text().endswith("INFO: 1epoch results\n")
