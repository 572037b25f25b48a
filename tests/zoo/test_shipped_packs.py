"""The packs in packs/ are what their cards say, down to the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from espnet2_legonn import LegoNN
from espnet2_legonn.packs.card import Card, read_card
from espnet2_legonn.packs.files import opened, verify
from espnet2_legonn.packs.inventory import Inventory
from espnet2_legonn.search.beam import BeamOptions
from tests.zoo.shipped import PACKS, pairs_of, speak

pytestmark = pytest.mark.skipif(not (PACKS / "inventory.json").is_file(), reason="no packs/: `make demo packs`")
NAMES = ("asr_encoder", "mt_de_en", "mt_de_en_beam_conv", "mt_de_en_collapsed", "ro_encoder")
MAX_BYTES = 10e6


def archive(name: str) -> Path:
    return PACKS / next(e.archive for e in Inventory.open(str(PACKS)).entries if e.name == name)


def card(name: str) -> Card:
    with opened(archive(name)) as folder:
        verify(folder)
        return read_card(folder)


def test_all_are_there_small_and_complete() -> None:
    assert sorted(e.name for e in Inventory.open(str(PACKS)).entries) == sorted(NAMES)
    assert sum(p.stat().st_size for p in PACKS.iterdir()) < MAX_BYTES
    for name in NAMES:
        assert card(name).missing == [], name


def answers(chain: LegoNN, inputs: list[str]) -> dict[str | None, list[str]]:
    """Final texts (None) and those of each interface; the cards tell figures of the paper's search."""
    options, found = BeamOptions(beam_size=4, length_penalty=0.6, ctc_weight=0.0), {}
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    for begin in range(0, len(order), 50):
        places = order[begin : begin + 50]
        for place, answer in zip(places, chain.answer([inputs[i] for i in places], options)):
            if chain.last.ports[1].kind == "text":
                found.setdefault(None, {})[place] = answer.text
            for module, path in answer.interfaces.items():
                found.setdefault(module, {})[place] = path.text
    return {module: [texts[i] for i in range(len(inputs))] for module, texts in found.items()}


@pytest.mark.parametrize(("name", "language"), [("mt_de_en", "de"), ("mt_de_en_collapsed", "de"), ("ro_encoder", "ro")])
def test_figures_of_translation(name: str, language: str) -> None:
    import sacrebleu

    pairs = pairs_of(language)
    told = {m.module: m.value for m in card(name).metrics if m.metric == "bleu" and m.dataset.startswith("decode/")}
    assert told
    said = answers(LegoNN.from_pretrained(archive(name)), [source for source, _ in pairs])
    for module, value in told.items():
        texts = said.get(module) or said[list(said)[-1]]
        score = sacrebleu.corpus_bleu(texts, [[english for _, english in pairs]]).score
        assert score == pytest.approx(value, abs=0.3), module  # another machine may round another way


@pytest.mark.slow
def test_figures_of_speech(tmp_path: Path) -> None:
    import jiwer

    pytest.importorskip("espeakng_loader")
    files, texts = speak(tmp_path)
    figures = [m for m in card("asr_encoder").metrics if m.metric == "wer" and m.dataset.startswith("decode/")]
    told = next(m.value for m in figures if m.module == "pronunciation")
    said = answers(LegoNN.from_pretrained(archive("asr_encoder")), [str(f) for f in files])
    assert 100 * jiwer.wer(texts, said["pronunciation"]) == pytest.approx(told, abs=1.0)
