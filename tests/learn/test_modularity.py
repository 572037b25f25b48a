"""Modularity in minutes: a module fits modules that it never met, and only because of CTC.

Scores are percent of 300 unseen sentences that are right as a whole; "kept" is the plugged score as a share of the
score of a pair trained together. Every model is trained until another draw says that it knows the task (conftest.py),
so that only relative scores are asserted here: absolute ones differ from CPU to CPU. Nothing is updated after a plug.
`make test` runs the small language, `make test-all` the larger one too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from espnet2_legonn import LegoNN

KEPT, LOST = 0.95, 0.20


class Bench:
    """Models of one language by name, and their scores.

    Args:
        toy_module, trained: see conftest.py.
        language: what all of them translate.
        common, models: what their recipes share, and what differs.
    """

    def __init__(
        self,
        toy_module: dict[str, Any],
        trained: Callable[[Any], LegoNN],
        language: Any,
        common: dict[str, Any],
        models: dict[str, dict[str, Any]],
    ) -> None:
        self.toy, self.trained = toy_module["Toy"](language), trained
        self.recipes = {n: toy_module["Recipe"](language, **{**common, **about}) for n, about in models.items()}

    def __getitem__(self, name: str) -> LegoNN:
        return self.trained(self.recipes[name])

    def plug(self, encoder: str, decoder: str) -> float:
        """Score of one's encoder module before the other's decoder module; a pair's own where they are the same."""
        if encoder == decoder:
            score = self.toy.score(self[encoder])
        else:
            score = self.toy.score(self[encoder][:1] + self[decoder][1:])
        print(f"{encoder} encoder + {decoder} decoder: {score:.1f}")
        return score

    def keeps(self, encoder: str, decoder: str) -> None:
        """The plug keeps 90 % of the better of the decoder's own pair and, if there is one, the encoder's."""
        own = [self.plug(decoder, decoder)]
        if len(self[encoder]) > 1:
            own.append(self.plug(encoder, encoder))
        assert self.plug(encoder, decoder) >= KEPT * max(own)


@pytest.fixture(scope="module")
def small(toy_module: dict[str, Any], trained: Callable[[Any], LegoNN]) -> Bench:
    """A dozen words, models of one block."""
    models = {
        "A": {"seed": 1, "dropout": 0.1},
        "B": {"seed": 2, "dropout": 0.1},
        "alone": {"seed": 3, "steps": 400, "decodes": False},
        "A without CTC": {"seed": 4, "steps": 900, "ctc_weight": 0.0, "enough": 85.0},
        "B without CTC": {"seed": 5, "steps": 900, "ctc_weight": 0.0, "enough": 85.0},
    }
    language = toy_module["Language"](subjects=4, objects=4, adjectives=3, verbs=4, adverbs=2)
    return Bench(toy_module, trained, language, {"steps": 600, "blocks": 1}, models)


@pytest.mark.parametrize(("encoder", "decoder"), [("A", "B"), ("B", "A")])
def test_seed_swap(small: Bench, encoder: str, decoder: str) -> None:
    """Pairs that differ in seed and data exchange their decoders."""
    small.keeps(encoder, decoder)


@pytest.mark.parametrize("decoder", ["A", "B"])
def test_decoder_plug(small: Bench, decoder: str) -> None:
    """A decoder finishes an encoder that was trained alone, by CTC."""
    small.keeps("alone", decoder)


def test_without_ctc_nothing_fits(small: Bench) -> None:
    """The seed swap between pairs that were trained end to end without CTC: they learn the task, but no interface."""
    a, b = "A without CTC", "B without CTC"
    own = small.plug(a, a), small.plug(b, b)
    with pytest.warns(UserWarning, match="trained without CTC"):
        swapped = small.plug(a, b), small.plug(b, a)
    assert max(swapped) < LOST * min(own)


# -- the larger language -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(toy_module: dict[str, Any], trained: Callable[[Any], LegoNN]) -> Bench:
    """Thirty words, two blocks; every kind of encoder and decoder."""
    models = {
        "A": {"seed": 1},
        "B": {"seed": 2},
        "alone": {"seed": 3, "decodes": False},
        "beam_conv": {"seed": 6, "ingestor": toy_module["BEAM_CONV"], "size": 64, "blocks": 1},
        "collapse": {"seed": 7, "collapse": True},
        "1.4 slots": {"seed": 8, "slots_per_token": 1.4, "decodes": False},
        "3.0 slots": {"seed": 9, "slots_per_token": 3.0, "decodes": False},
    }
    return Bench(toy_module, trained, toy_module["Language"](), {"steps": 800, "dropout": 0.1}, models)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder"), [("A", "B"), ("B", "A"), ("alone", "A"), ("alone", "B")])
def test_seed_swap_and_plug(large: Bench, encoder: str, decoder: str) -> None:
    large.keeps(encoder, decoder)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder"), [("A", "beam_conv"), ("beam_conv", "A"), ("alone", "beam_conv")])
def test_architecture_swap(large: Bench, encoder: str, decoder: str) -> None:
    """WEmb against BeamConv, width 48 against 64, two blocks against one."""
    large.keeps(encoder, decoder)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["1.4 slots", "alone", "A", "B", "3.0 slots"])
def test_collapse_holds_across_slots_per_token(large: Bench, encoder: str) -> None:
    """A reader of collapsed interfaces, trained at 2.0 slots per token, takes encoders of 1.4 to 3.0 in silence."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*slots per token")
        large.keeps(encoder, "collapse")


@pytest.mark.slow
def test_another_number_of_slots_is_told(large: Bench) -> None:
    """A decoder that saw two slots for each token, behind three.

    How much it hurts depends on the task, so nothing is asserted of it. In this language the decoder's loss stays
    (0.681 and 0.678 nats), in mini_legonn it loses a third of its BLEU (RESULTS.md there).
    """
    with pytest.warns(UserWarning, match="slots per token"):
        large["3.0 slots"][:1] + large["A"][1:]
