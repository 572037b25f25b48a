"""README.md from a card: what it says, and that nothing in a card breaks it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.packs.card import Card, CardScore, ModuleCard, Parent, PortCard, read_card
from espnet2_legonn.packs.model_card import escape, model_card
from tests.zoo.places import make_pack


@pytest.fixture
def card(tmp_path: Path) -> Card:
    card = read_card(make_pack(tmp_path / "asr", size=10))
    card.metrics = [
        CardScore("WER", 12.5, "dev", sentences=100, interval=[11.0, 14.25], signature="sclite"),
        CardScore("WER", 20.0, "dev", module="encoder"),
        CardScore("BLEU", 30.0, "dev", composition="asr#encoder + mt#decoder"),
    ]
    card.provenance.parents = [Parent("donor", "ab" * 32, ["encoder"])]
    card.provenance.seed = 7
    return card


def split(text: str) -> tuple[dict, str]:
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_header(card: Card) -> None:
    header, _ = split(model_card(card, "org/asr"))
    assert header == {
        "language": ["de", "en"],
        "license": "cc-by-4.0",
        "library_name": "espnet2_legonn",
        "tags": ["espnet", "legonn", "legonn-marginals", "legonn-speech", "legonn-text"],
        "pipeline_tag": "automatic-speech-recognition",
        "metrics": ["bleu", "wer"],
    }
    card.about.license = "MIT AND Apache-2.0"
    card.modules = card.modules[1:]
    header, _ = split(model_card(card, "org/asr"))
    assert (header["license"], header["license_name"]) == ("other", "MIT AND Apache-2.0")
    assert "pipeline_tag" not in header, "a part is no pipeline"


def test_the_hub_reads_the_header(card: Card) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the Hub's own reader needs espnet2_legonn[zoo]")
    data = hub.ModelCard(model_card(card, "org/asr")).data
    assert data.pipeline_tag == "automatic-speech-recognition" and data.language == ["de", "en"]


def test_translation_is_told_by_its_languages(card: Card) -> None:
    card.vocabs["en"] = dataclasses.replace(card.vocabs["bpe_de"], language="en")
    card.modules[0].reads = PortCard("tokens", "en")
    header, body = split(model_card(card, "org/mt"))
    assert header["pipeline_tag"] == "translation" and 'legonn translate "a sentence" --model org/mt' in body
    card.vocabs["en"].language = "de"
    assert "pipeline_tag" not in split(model_card(card, "org/mt"))[0]


def test_body(card: Card) -> None:
    card.about.citation = "@article{x, title={a ``` b}}"
    body = model_card(card, "org/asr@v1")
    sections = re.findall(r"^## (.*)$", body, re.M)
    assert sections == [
        "How to use", "Interface", "Metrics", "Training data", "Environments", "Provenance", "Licence", "Citation",
    ]  # fmt: skip
    assert 'LegoNN.from_pretrained("org/asr@v1")' in body and 'print(chain("speech.wav"))' in body
    assert "legonn transcribe speech.wav --model org/asr@v1" in body
    assert "| encoder | speech 16 kHz | marginals bpe\\_de | transformer | 1,200 |  |" in body
    assert card.vocabs["bpe_de"].sha256 in body and card.content_sha256 in body
    assert "| dev | whole chain | WER | 12.5 \\[11, 14.25\\] | 100 | sclite |" in body
    assert "| dev | encoder | WER | 20 |" in body and "asr#encoder + mt#decoder" in body
    assert f"| parent | donor (encoder; content SHA-256 {'ab' * 32}) |" in body
    assert "- toys 1.0 (CC0)" in body and "| seed | 7 |" in body
    assert "\n./run.sh --skip_train true --stop_stage 13 --download_model org/asr@v1  # in a recipe" in body
    known = {"python": "3.11.7", "espnet": "202511", "package": "0.1", "torch": "2.8", "commit": "ab" * 20}
    card.provenance = dataclasses.replace(card.provenance, **known)
    assert model_card(card, "org/asr").split("## Environments\n\n")[1].split("\n\n")[0].splitlines() == [
        "- python version: 3.11.7", "- espnet version: 202511", "- espnet2_legonn version: 0.1",
        "- pytorch version: 2.8", f"- Git hash: {'ab' * 20}",
    ]  # fmt: skip
    assert "````bibtex\n@article{x, title={a ``` b}}\n````" in body


def test_a_part_says_how_it_is_plugged(card: Card) -> None:
    card.modules = [ModuleCard("mid", PortCard("marginals", "bpe_de"), PortCard("marginals", "bpe_de"), 1, "x")]
    body = model_card(card, "org/mid")
    assert "plugged = encoder + chain" in body and "legonn compose ANOTHER_PACK org/mid -o plugged" in body
    assert "legonn check org/mid#mid ANOTHER_PACK" in body


def test_every_empty_field_is_named(card: Card) -> None:
    card.about.license, card.about.training_data = "", []
    with pytest.raises(ConfigError) as error:
        model_card(card, "org/asr")
    assert error.value.faults == [
        f"asr: card.yaml: about.{field} is empty; fill it before sharing" for field in ("license", "training_data")
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("- a", "\\- a"), ("1. a", "1\\. a"), ("12) a", "12\\) a"), ("# a-b", "\\# a-b"), ("---", "\\---"),
     ("a\n# b", "a # b"), ("a_b|c", "a\\_b\\|c"), ("1.5 (x)", "1.5 (x)"), ("a\\|b", "a\\\\\\|b"), ("&lt;", "\\&lt;")],
)  # fmt: skip
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_nothing_in_a_card_breaks_the_page(card: Card) -> None:
    """No HTML, no extra rows or headings, no second header."""
    evil = "x | y\n---\n# head\n<script>alert(1)</script> [a](javascript:b) `c` *d* ![e](f) $g$"
    about = card.about
    about.description, about.license, about.domain, about.training_data = evil, evil, evil, [evil]
    card.modules[0].body = card.metrics[0].dataset = card.provenance.parents[0].name = evil
    card.name = evil
    header, body = split(model_card(card, "org/asr"))
    assert header["license_name"] == " ".join(evil.split())
    assert not re.search(r"(?<!\\)[<>`*$](?!``|python|sh|bibtex)", re.sub(r"```[\s\S]*?```", "", body))
    assert body.count("\n# ") == 1 and body.count("\n---\n") == 0
    rows = [re.sub(r"\\\|", "", line) for line in body.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {3, 7, 8}
