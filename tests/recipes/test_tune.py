"""Weights of the search, tuned: the grid against plain loops, and a choice that travels with experiments and packs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np
import pytest
import sacrebleu
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import each_batch, inputs_of
from espnet2_legonn.model.interface import SearchChoice
from espnet2_legonn.packs.card import read_card
from espnet2_legonn.packs.pack import keep_search
from espnet2_legonn.recipes import stages, tune
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.search.scorers import Scorer
from tests.zoo.toys import build, pair

SOURCES = {"u1": "k l m", "u2": "m n k k", "u3": "n", "u4": "l l n m", "u5": "k m"}
TEXTS = {"u1": "a b b", "u2": "c d", "u3": "b", "u4": "d d a c", "u5": "a"}
CHOICE = SearchChoice(0.7, 1.4, "valid", "wer", 12.5, 4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "valid"
    folder.mkdir()
    for name, rows in (("src_text", SOURCES), ("text", TEXTS)):
        (folder / name).write_text("".join(f"{k} {v}\n" for k, v in rows.items()), encoding="utf-8")
    return folder


def plain(candidates: tune.Candidates, metric: str, weight: float, ngram: float, penalty: float) -> float:
    """The score of one place of the grid, with loops and the libraries' own corpus scores."""
    zero = np.zeros(len(candidates.owner))
    parts = {name: candidates.parts.get(name, zero) for name in ("decoder", "ctc", "ngram")}
    hyps = []
    for utterance in range(len(candidates.references[0])):
        best, text = -np.inf, ""
        for i in np.flatnonzero(candidates.owner == utterance):
            total = (1 - weight) * parts["decoder"][i] + weight * parts["ctc"][i] + ngram * parts["ngram"][i]
            score = total / candidates.lengths[i] ** penalty
            if score > best:
                best, text = score, candidates.texts[i]
        hyps.append(text)
    if metric == "bleu":
        return sacrebleu.corpus_bleu(hyps, [list(candidates.references[0])]).score
    return 100 * jiwer.wer(list(candidates.references[0]), hyps)


@pytest.mark.parametrize("metric", ["wer", "bleu"])
def test_the_grid_equals_plain_loops(data: Path, metric: str) -> None:
    chain = build(pair())
    found = tune.find_candidates(chain, data, metric, BeamOptions(4))
    noise = np.random.default_rng(0).normal(size=len(found.owner))
    for candidates in (found, dataclasses.replace(found, parts={**found.parts, "ngram": 5 * noise})):
        tuned = tune.search_grid(candidates, metric)
        places = list(itertools.product(tune.WEIGHTS, tune.NGRAM_WEIGHTS if "ngram" in candidates.parts else (0.0,)))
        assert len(tuned.scores) == len(places) * len(tune.PENALTIES)
        for weight, ngram in places[::5]:
            for penalty in (0.0, 0.6, 1.4):
                wanted = plain(candidates, metric, weight, ngram, penalty)
                assert tuned.scores[weight, ngram, penalty] == pytest.approx(wanted, abs=1e-6)
        assert len(set(tuned.scores.values())) > 1, "a grid that is all alike proves nothing"
        best = (min if metric == "wer" else max)(tuned.scores.values())
        assert tuned.scores[tuned.best] == best
        assert f"{best:.2f} <- chosen" in tuned.curve()


def test_candidates_carry_all_parts_once(data: Path) -> None:
    found = tune.find_candidates(build(pair()), data, "wer", BeamOptions(4))
    assert set(found.parts) == {"decoder", "ctc"}
    assert len({(o, t) for o, t in zip(found.owner, found.texts)}) == len(found.owner) > len(SOURCES)
    assert set(found.owner) == set(range(len(SOURCES)))
    assert len(tune.find_candidates(build(pair()), data, "wer", BeamOptions(4), limit=2).references[0]) == 2


def trigram(weight: float) -> Callable[..., Scorer]:
    """A language model that is sure of few texts, so that its weight changes what a search finds."""
    sure = torch.full((7, 7), -6.0)
    sure[range(7), [(i + 2) % 7 for i in range(7)]] = -0.1

    class Sure(Scorer):
        def __init__(self, utterances: int, beam: int, device: torch.device) -> None:
            super().__init__("ngram", weight)
            self.last = torch.full((utterances * beam,), 6)

        def score(self, candidates: torch.Tensor) -> torch.Tensor:
            return sure[self.last].view(*candidates.shape[:2], -1).gather(2, candidates)

        def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
            self.last = tokens

    return Sure


@pytest.mark.parametrize("parts", [1, 2])
def test_what_a_search_near_each_weight_finds_is_a_candidate(data: Path, parts: int) -> None:
    """A 4-gram that proposes with one weight alone hid what larger weights find: 21.4 BLEU were expected, 20.6 came."""
    chain, beam = build(pair())[:parts], BeamOptions(2, 1.0, ctc_weight=1.0)
    found = tune.find_candidates(chain, data, "wer", BeamOptions(2), [trigram(0.3)])
    sets = [{t for o, t in zip(found.owner, found.texts) if o == i} for i in range(len(SOURCES))]
    answers = []
    for weight in tune.MODEL_PROPOSERS:
        encoded = chain.encode(*chain.batch(list(SOURCES.values())))
        best = [nbest[0].ids for nbest in chain.decode_encoded(*encoded, beam, [trigram(weight)])]
        answers.append([chain.text(ids) for ids in best])
        assert all(text in known for text, known in zip(answers[-1], sets)), weight
    assert answers[0] != answers[-1], "or the weight changes nothing"


def test_the_options_of_the_search_are_those_of_its_proposals(data: Path) -> None:
    """The paper's one-hot row was tuned on candidates of the distributions themselves."""
    chain = build(pair())
    options = [BeamOptions(3, ctc_weight=0.0, temperature=t) for t in (1.0, 0.02)]
    plain, sharp = (tune.tune(chain, data, "wer", o)[2] for o in options)
    assert plain != sharp
    found = tune.find_candidates(chain, data, "wer", options[1])
    encoded = chain.encode(*chain.batch(["k l m"]))
    for hypothesis in chain.decode_encoded(*encoded, dataclasses.replace(options[1], length_penalty=1.0, nbest=3))[0]:
        (row,) = [i for i, t in enumerate(found.texts) if found.owner[i] == 0 and t == chain.text(hypothesis.ids)]
        assert found.parts["decoder"][row] == pytest.approx(hypothesis.parts["decoder"], abs=1e-4)


def test_what_is_given_is_held_and_the_rest_is_chosen(data: Path) -> None:
    found = tune.find_candidates(build(pair()), data, "wer", BeamOptions(3), [trigram(0.3)])
    given = BeamOptions(3, 0.6, ctc_weight=0.3, ngram_weight=0.05)
    assert list(tune.search_grid(found, "wer", None, given).scores) == [(0.3, 0.05, 0.6)]
    free = tune.search_grid(found, "wer", None, BeamOptions(3, ngram_weight=0.05)).scores
    assert {n for _, n, _ in free} == {0.05} and len(free) == len(tune.WEIGHTS) * len(tune.PENALTIES)


def test_candidates_are_found_in_the_precision_of_the_search(data: Path) -> None:
    chain = build(pair())
    plain, less = (tune.find_candidates(chain, data, "wer", BeamOptions(3, dtype=d)) for d in ("float32", "bfloat16"))
    assert sorted(plain.parts["ctc"]) != sorted(less.parts["ctc"])


def test_detokenised_bleu_is_tuned_against_raw_references(data: Path) -> None:
    """As stage 13 scores it; ``text`` is tokens."""
    raw = {"u1": "a, b b", "u2": "c - d", "u3": "b.", "u4": "d d a c!", "u5": "a"}
    (data / "text.raw").write_text("".join(f"{k} {v}\n" for k, v in raw.items()), encoding="utf-8")
    found = tune.find_candidates(build(pair()), data, "bleu_detok", BeamOptions(3))
    assert found.references == [list(raw.values())]
    with pytest.raises(DataError, match="metric 'blue' is none of"):
        tune.find_candidates(build(pair()), data, "blue", BeamOptions(3))
    (data / "text.raw").unlink()
    with pytest.raises(DataError, match="text.raw"):
        tune.find_candidates(build(pair()), data, "bleu_detok", BeamOptions(3))


def test_equal_scores_choose_the_place_nearest_to_the_defaults() -> None:
    places = list(itertools.product(tune.WEIGHTS, (0.0,), tune.PENALTIES))
    assert tune.Tuned("wer", -1, dict.fromkeys(places, 10.0), 5, 9).best == (0.4, 0.0, 1.0)


def test_an_encoder_alone_tunes_its_length_penalty(data: Path) -> None:
    tuned = tune.search_grid(tune.find_candidates(build(pair())[:1], data, "wer", BeamOptions(3)), "wer")
    assert {place[0] for place in tuned.scores} == {1.0} and len(tuned.scores) == len(tune.PENALTIES)


def test_a_chain_without_an_interface_has_no_ctc_to_weigh(data: Path) -> None:
    description = pair()
    description["modules"][0]["output"] = {"type": "states"}
    description["modules"][1]["input"] = {"type": "states"}
    tuned = tune.search_grid(tune.find_candidates(build(description), data, "wer", BeamOptions(3)), "wer")
    assert {place[0] for place in tuned.scores} == {0.0}


# -- keeping the choice ------------------------------------------------------------------------------------------------


def test_a_pack_keeps_its_choice_in_the_card(tmp_path: Path) -> None:
    chain = build(pair())
    chain.save(tmp_path / "a")
    assert LegoNN.from_pretrained(tmp_path / "a").search is None
    assert keep_search(tmp_path / "a", CHOICE) == tmp_path / "a" / "card.yaml"
    loaded = LegoNN.from_pretrained(tmp_path / "a")  # digests still hold
    assert loaded.search == CHOICE and read_card(tmp_path / "a").search == CHOICE
    loaded.save(tmp_path / "b")
    assert LegoNN.from_pretrained(tmp_path / "b").search == CHOICE
    assert loaded[:1].search is None and (loaded[:1] + loaded[1:]).search is None, "another chain has another choice"


def test_an_experiment_keeps_its_choice_beside_its_config(tmp_path: Path, data: Path) -> None:
    build(pair()).save(tmp_path / "exp")
    (tmp_path / "exp" / "card.yaml").unlink()  # an experiment of ESPnet's has none
    said = stages.tune_search(tmp_path / "exp", None, data, "wer", 3)
    choice = LegoNN.from_pretrained(tmp_path / "exp").search
    assert choice is not None and choice.dataset == "valid" and choice.metric == "wer" and choice.beam_size == 3
    assert "<- chosen" in said and str(tmp_path / "exp" / "search.yaml") in said
    grid = yaml.safe_load((tmp_path / "exp" / "tune" / "valid" / "result.json").read_text(encoding="utf-8"))["grid"]
    assert len(grid) == len(tune.WEIGHTS) * len(tune.PENALTIES)


def test_a_choice_holds_for_the_weights_it_was_made_with(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exp = tmp_path / "exp"
    build(pair()).save(exp)
    (exp / "card.yaml").unlink()
    stages.tune_search(exp, None, data, "wer", 3)
    assert LegoNN.from_pretrained(exp).search is not None
    other = build(pair(), seed=1)
    other.save(tmp_path / "other")
    (tmp_path / "other" / "weights.safetensors").replace(exp / "weights.safetensors")  # trained on
    assert LegoNN.from_pretrained(exp).search is None
    assert "search.yaml was tuned for other weights" in caplog.text and "stage 12 tunes anew" in caplog.text
    keep_search(exp, CHOICE)
    assert LegoNN.from_pretrained(exp).search == CHOICE


def test_what_was_tuned_is_not_tuned_again(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(pair()).save(tmp_path / "exp")
    first = stages.tune_search(tmp_path / "exp", None, data, "wer", 3)
    monkeypatch.setattr(tune, "tune", lambda *_, **__: pytest.fail("tuned again"))
    assert stages.tune_search(tmp_path / "exp", None, data, "wer", 3).strip() in first
    with pytest.raises(BaseException, match="tuned again"):
        stages.tune_search(tmp_path / "exp", None, data, "cer", 3)


def test_the_choice_is_what_a_chain_searches_with(tmp_path: Path) -> None:
    chain = build(pair())
    inputs = list(SOURCES.values())
    wanted = chain.generate(inputs, ctc_weight=0.9, length_penalty=0.2, nbest=3)
    assert wanted != chain.generate(inputs, nbest=3)
    chain.search = SearchChoice(0.9, 0.2)
    assert chain.generate(inputs, nbest=3) == wanted
    chain.search = CHOICE
    assert chain.generate(inputs, ctc_weight=0.9, length_penalty=0.2, nbest=3) == wanted, "what is asked for wins"


def test_a_choice_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    build(pair()).save(tmp_path / "exp")
    keep_search(tmp_path / "exp", dataclasses.replace(CHOICE, ctc_weight=1.5))
    with pytest.raises(ConfigError, match=r"search.ctc_weight: 1.5 is not between 0 and 1"):
        LegoNN.from_pretrained(tmp_path / "exp")
    (tmp_path / "exp" / "card.yaml").unlink()
    (tmp_path / "exp" / "search.yaml").write_text("ctc_weight: 0.4\nlenth_penalty: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'length_penalty'"):
        LegoNN.from_pretrained(tmp_path / "exp")


def test_a_choice_made_on_another_set_since_is_not_this_one(tmp_path: Path, data: Path) -> None:
    """Tuned on one set, on another, and on the first again: what was kept stayed that of the other."""
    exp, other = tmp_path / "exp", data.with_name("other")
    build(pair()).save(exp)
    other.mkdir()
    for table in data.iterdir():
        (other / table.name).write_text(table.read_text())
    for folder in (data, other, data):
        stages.tune_search(exp, None, folder, "wer", 3)
        kept = read_card(exp).search
        assert kept is not None and kept.dataset == folder.name


def test_sizes_that_make_no_sense_are_refused(data: Path) -> None:
    """A negative limit left out the last utterances; a batch of none was a ValueError of range()."""
    chain = build(pair())
    with pytest.raises(ConfigError, match="limit: -1 is less than 0"):
        tune.find_candidates(chain, data, "wer", BeamOptions(4), limit=-1)
    with pytest.raises(ConfigError, match="batch_size: 0 is less than 1"):
        list(each_batch(chain, inputs_of(chain, data), 0))
