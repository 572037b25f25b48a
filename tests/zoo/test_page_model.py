"""What the page offers and shows, without a browser and without gradio."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, InterfaceMismatch
from espnet2_legonn.inference.plot import picture
from espnet2_legonn.inference.vote import Vote
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.packs.check import Verdict
from espnet2_legonn.packs.files import zip_pack
from espnet2_legonn.page import model, render
from espnet2_legonn.page.shelf import DECODER, ENCODER, MIDDLE, Choice, Shelf, open_shelf
from espnet2_legonn.search.options import SearchChoice
from espnet2_legonn.search.words import Word
from tests.zoo.toys import BODY, build, change, pair, vocab

SPEECH = {"type": "speech", "n_mels": 8, "channels": [2, 3]}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A text pair, a speech pair over the same vocabulary, and a decoder of another order."""
    build(change(pair(), "vocabs.src.normalization", "lc.rm")).save(tmp_path / "packs" / "mt")
    asr = change(change(pair(), "modules.0.input", SPEECH), "modules.0.length_control.ratio", 1)
    asr["vocabs"].pop("src")
    build(asr).save(tmp_path / "packs" / "asr")
    build(pair("d c b a")).save(tmp_path / "packs" / "other")
    model.load.cache_clear()
    return open_shelf([tmp_path / "packs"])


def spec(shelf: Shelf, role: str, name: str) -> str:
    return next(c.spec for c in shelf.of(role) if Path(c.source).name == name)


def parts(shelf: Shelf, encoder: str, decoder: str) -> list[Choice]:
    return shelf.find([spec(shelf, ENCODER, encoder), "", spec(shelf, DECODER, decoder)])


def test_roles_follow_from_ports(shelf: Shelf) -> None:
    assert [Path(c.source).name for c in shelf.of(ENCODER)] == ["asr", "mt", "other"]
    assert [Path(c.source).name for c in shelf.of(DECODER)] == ["asr", "mt", "other"]
    assert shelf.of(MIDDLE) == [] and shelf.faults == []
    assert shelf.first_fit() == (spec(shelf, ENCODER, "asr"), spec(shelf, DECODER, "asr"))


def test_a_middle_part_may_stand_between(shelf: Shelf, tmp_path: Path) -> None:
    """A pack of one module is called by its name alone; parts of a pack by their modules."""
    data = pair()
    length = {"ratio": 1, "max_length": 40, "num_blocks": 1}
    middle = {**data["modules"][1], "name": "polish", "body": dict(BODY), "length_control": length}
    build({"vocabs": {"tgt": data["vocabs"]["tgt"]}, "modules": [middle]}).save(tmp_path / "packs" / "polisher")
    again = open_shelf([tmp_path / "packs"])
    assert [c.label for c in again.of(MIDDLE)] == ["polisher: 7 word → 7 word"]
    assert "mt#encoder: text → 7 word" in [c.label for c in again.of(ENCODER)]
    answer = model.run([*parts(again, "mt", "mt")[:1], *again.of(MIDDLE), *parts(again, "mt", "mt")[1:]], "k l")
    assert [(s.module, s.picture is not None) for s in answer.said] == [
        ("encoder", True), ("polish", True), ("decoder", False),
    ]  # fmt: skip
    maps = render.heat_maps(answer.said)
    assert "What encoder hands to polish" in maps and "What polish hands to decoder" in maps


def test_packs_stay_in_memory(shelf: Shelf) -> None:
    first, second = (model.run(parts(shelf, "mt", "asr"), "k") for _ in range(2))
    assert "load and plug" in first.steps and "plug (packs are in memory)" in second.steps
    assert model.load(parts(shelf, "mt", "mt")[0].source) is model.load(parts(shelf, "mt", "mt")[1].source)


def test_examples_come_from_the_pack(tmp_path: Path) -> None:
    """Those that fit what the encoder part reads; a decoder part has none."""
    (tmp_path / "some.txt").write_text("k l\n\n m n \n", encoding="utf-8")
    wave = np.arange(800, dtype=np.int16)
    soundfile.write(tmp_path / "some.wav", wave, 8000)
    extra = {"examples.txt": tmp_path / "some.txt", "example_1.wav": tmp_path / "some.wav"}
    asr = change(change(pair(), "modules.0.input", SPEECH), "modules.0.length_control.ratio", 1)
    build(pair()).save(tmp_path / "packs" / "mt", extra=extra)
    build(asr).save(tmp_path / "packs" / "asr", extra=extra)
    hears, reads = (found := open_shelf([tmp_path / "packs"])).of(ENCODER)
    assert [e.text for e in reads.examples] == ["k l", "m n"] and [e.text for e in hears.examples] == ["example_1.wav"]
    assert not any(c.examples for c in found.of(DECODER))
    assert model.example_input(reads, reads.examples[1]) == "m n"
    rate, samples = model.example_input(hears, hears.examples[0])
    assert rate == 8000 and np.array_equal(samples, wave)


def test_longer_than_in_training_is_noted(tmp_path: Path) -> None:
    chain = build(pair())
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.train().losses(*chain.batch(["k l"]), dict.fromkeys(chain.names, labels))
    chain.save(tmp_path / "mt")
    found = open_shelf([tmp_path / "mt"])
    assert model.run(found.choices, "k l").notes == []
    assert "14 slots behind encoder, at most 6 were seen" in model.run(found.choices, "k l m n k l").notes[0]


def test_parts_that_are_not_on_the_page(shelf: Shelf, tmp_path: Path) -> None:
    """What a browser sends is no path to open."""
    with pytest.raises(ConfigError, match="not on this page: .*hidden#encoder; reload it"):
        shelf.judge([f"{tmp_path}/hidden#encoder", spec(shelf, DECODER, "mt")])


def test_a_misfit_is_not_run(shelf: Shelf) -> None:
    with pytest.raises(InterfaceMismatch, match="the same tokens in another order"):
        model.run(parts(shelf, "mt", "other"), "k")


def test_every_token_of_the_best_path_has_a_row() -> None:
    """However many there are."""
    words = tuple(f"w{i}" for i in range(30))
    vocab = Vocabulary(("<blank>", "<unk>", *words, "<sos/eos>"), "word")
    log_probs = torch.eye(len(vocab))[None, 2:32].log()
    shorter, longer = (Marginals(log_probs[:, :k], torch.tensor([k]), Interface(vocab)) for k in (20, 30))
    assert picture(longer, "").inches[1] - picture(shorter, "").inches[1] == pytest.approx(10 * 0.22)


def test_verdict_in_words(shelf: Shelf) -> None:
    fits = shelf.judge([spec(shelf, ENCODER, "mt"), None, spec(shelf, DECODER, "asr")])
    assert fits.verdict == Verdict.FITS and "Fits" in render.verdict(fits)
    misfit = render.verdict(shelf.judge([spec(shelf, ENCODER, "mt"), None, spec(shelf, DECODER, "other")]))
    assert "Will not fit" in misfit and "the same tokens in another order" in misfit


def test_a_text_goes_through(shelf: Shelf) -> None:
    answer = model.run(parts(shelf, "mt", "asr"), "K, l M!")
    chain = model.plug(parts(shelf, "mt", "asr"))
    assert answer.text == chain("k l m")
    assert [s.module for s in answer.said] == ["encoder", "decoder"] and answer.said[1].text == answer.text
    assert answer.said[0].text == chain.marginals("k l m").greedy_text()
    picture = answer.said[0].picture
    assert picture is not None and picture.png.startswith(b"\x89PNG") and answer.said[1].picture is None
    best = chain.generate("k l m")[0][0]
    assert answer.parts == pytest.approx(best.parts) and set(best.parts) == {"decoder", "ctc"}
    said = f"decoder {best.parts['decoder']:.2f} · ctc {best.parts['ctc']:.2f} (weight of CTC 0.4)"
    assert said in render.modules(answer)
    assert "read as “k l m”" in answer.notes[0]
    assert {"read the input", "draw the interfaces"} <= answer.steps.keys()


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_the_weight_of_ctc_is_chosen(shelf: Shelf, weight: float) -> None:
    chosen = parts(shelf, "mt", "asr")
    answer, chain = model.run(chosen, "k l m", weight), model.plug(chosen)
    assert answer.text == chain("k l m", ctc_weight=weight) and answer.ctc_weight == weight
    assert set(answer.parts) == {"decoder", "ctc"}, "what CTC says of it is shown even where it does not count"
    assert f"(weight of CTC {weight:g})" in render.modules(answer)
    with pytest.raises(ConfigError, match="ctc_weight: 1.5 is not between 0 and 1"):
        model.run(chosen, "k l m", 1.5)


def test_what_was_tuned_holds_for_the_whole_pack_alone(shelf: Shelf) -> None:
    chosen = parts(shelf, "mt", "mt")
    whole = model.load(chosen[0].source)
    whole.search = SearchChoice(0.8, 0.5)
    assert model.plug(chosen).search == whole.search and model.run(chosen, "k").ctc_weight == 0.8
    assert model.plug(parts(shelf, "mt", "asr")).search is None
    assert model.run(parts(shelf, "mt", "asr"), "k").ctc_weight == 0.4


def test_a_recording_goes_through(shelf: Shelf, tmp_path: Path) -> None:
    """Another rate and two channels are noted, not refused."""
    wave = 0.1 * np.random.default_rng(0).standard_normal((8000, 2))
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    answer = model.run(parts(shelf, "asr", "mt"), tmp_path / "a.wav")
    assert answer.notes[:2] == ["2 channels were averaged to one", "resampled from 8 kHz to the encoder's 16 kHz"]


# -- encoders that vote ------------------------------------------------------------------------------------------------


def test_who_may_vote_follows_from_cards(shelf: Shelf, tmp_path: Path) -> None:
    """The tokens that the decoder reads and writes; it may stand behind a middle part."""

    def voters(encoder: str, decoder: str) -> list[str]:
        found = shelf.voters(spec(shelf, ENCODER, encoder), spec(shelf, DECODER, decoder))
        return [Path(choice.source).name for choice in found]

    assert voters("mt", "mt") == ["asr"] and voters("asr", "mt") == voters("asr", "asr") == ["mt"]
    assert voters("other", "mt") == ["asr", "mt"] and voters("other", "other") == []
    writes = pair()
    writes["vocabs"]["words"] = vocab("e f g h")
    writes["modules"][1]["output"]["vocab"] = "words"
    build(writes).save(tmp_path / "packs" / "writes")
    again = open_shelf([tmp_path / "packs"])
    assert again.voters(spec(again, ENCODER, "writes"), spec(again, DECODER, "writes")) == []
    found = again.voters(spec(again, ENCODER, "mt"), spec(again, DECODER, "mt"))
    assert [Path(choice.source).name for choice in found] == ["asr", "writes"]


def test_a_recording_votes_with_a_text(shelf: Shelf, tmp_path: Path) -> None:
    """The answer is that of Vote, beside what each encoder leads to alone; notes and pictures say whose they are."""
    wave = tmp_path / "a.wav"
    soundfile.write(wave, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    chosen, heard = parts(shelf, "mt", "mt"), parts(shelf, "asr", "mt")
    model.load(chosen[0].source).search = SearchChoice(0.8, 0.5)
    answer = model.run(chosen, "K l m", None, [model.Voter(heard[0], wave)])
    chain, other = model.plug(chosen), model.plug(heard)
    found = Vote(chain, [other[:1]]).answer([["k l m"], [wave]], judge_all=True)[0]
    assert answer.text == found.text and answer.parts == pytest.approx(found.best.parts, abs=1e-4)
    assert set(answer.parts) == {"decoder", "ctc", "ctc_2"}
    names = ["mt#encoder", "asr#encoder"]
    assert answer.sources == [(names[0], 0.8, chain("k l m")), (names[1], 0.8, other(wave))]
    assert [said.module for said in answer.said] == ["encoder", "asr#encoder", "decoder"]
    assert answer.said[1].text == other.marginals(wave).greedy_text() and answer.said[2].text == found.text
    assert answer.notes[0].startswith("mt#encoder: read as “k l m”")
    maps = render.heat_maps(answer.said)
    assert "What encoder hands to decoder<" in maps and "What asr#encoder says<" in maps


def test_the_weight_of_a_vote_is_chosen(tmp_path: Path) -> None:
    """Three encoders; the table tells texts and weights. One of weight 0 changes nothing."""
    for seed, name in enumerate("abc", 1):
        build(pair(), seed).save(tmp_path / "packs" / name)
    found = open_shelf([tmp_path / "packs"])
    chosen, others = parts(found, "a", "a"), [parts(found, name, "a")[0] for name in "bc"]
    chain, texts = model.plug(chosen), ["k l m", "m m n", "l"]

    def run(*weights: float | None) -> model.PageAnswer:
        return model.run(chosen, texts[0], 0.2, [model.Voter(*v) for v in zip(others, texts[1:], weights)])

    encoders = [model.plug([choice, chosen[-1]])[:1] for choice in others]
    wanted = Vote(chain, encoders, [3.0, 0.2])([[text] for text in texts], ctc_weight=0.2)
    assert [run(3.0, None).text] == wanted and run(0.0, 0.0).text == chain(texts[0], ctc_weight=0.2)
    assert wanted != [chain(texts[0], ctc_weight=0.2)], "else the weights change nothing"
    told = run(3.0, None)
    assert [source.weight for source in told.sources] == [0.2, 3.0, 0.2]
    alone = [model.plug([choice, chosen[-1]])(text, ctc_weight=0.2) for choice, text in zip(others, texts[1:])]
    assert [source.text for source in told.sources[1:]] == alone
    table = render.sources(told)
    assert table.count("<tr>") == 4 and "<td>b#encoder</td>" in table and '<td class="time">3</td>' in table
    assert render.sources(model.run(chosen, texts[0])) == ""
    with pytest.raises(ConfigError, match="vote: weight -1 is not 0 or a number above it"):
        run(-1.0, None)


def test_whose_input_is_missing_is_said(shelf: Shelf) -> None:
    chosen, other = parts(shelf, "mt", "mt"), parts(shelf, "asr", "mt")[0]
    with pytest.raises(DataError, match="^asr#encoder: no recording yet"):
        model.run(chosen, "k", None, [model.Voter(other, None)])
    with pytest.raises(DataError, match="^mt#encoder: nothing to read"):
        model.run(chosen, "", None, [model.Voter(other, None)])


@pytest.mark.parametrize(("encoder", "given", "message"), [
    ("mt", "  ", "nothing to read: type a sentence first"),
    ("mt", "?!", "nothing to read: type a sentence first"),
    ("asr", None, "no recording yet"),
])  # fmt: skip
def test_nothing_to_read(shelf: Shelf, encoder: str, given: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.run(parts(shelf, encoder, "mt"), given)


def test_a_recording_that_is_none(shelf: Shelf, tmp_path: Path) -> None:
    """Where the upload lies on this machine is nobody's business."""
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match="cannot be read as audio") as error:
        model.run(parts(shelf, "asr", "mt"), tmp_path / "a.wav")
    assert str(tmp_path) not in str(error.value)


def test_what_comes_from_packs_is_escaped() -> None:
    told = model.PageAnswer(words=[Word("<u>", 0.5, 1.0, 0.75)], exact=False)
    assert "0.50 to 1.00 s, 75%" in render.words(told) and "Times are estimates" in render.words(told)
    assert "<u>" not in render.words(told) and render.words(model.PageAnswer()) == ""
    voted = model.PageAnswer(sources=[model.SourceText("<b>", 0.5, "<i>")])
    assert not any(tag in render.sources(voted) for tag in ("<b>", "<i>"))
    page = render.final("<script>") + render.faults(["<b>"], "<i>") + render.notes(["<u>"])
    assert "&lt;script&gt;" in page and not any(tag in page for tag in ("<script>", "<b>", "<i>", "<u>"))


def test_a_broken_pack_does_not_hide_the_others(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "packs" / "broken.zip").write_bytes(b"PK")
    again = open_shelf([tmp_path / "packs"])
    assert len(again.choices) == len(shelf.choices)
    assert any("broken.zip" in fault for fault in again.faults)


def test_a_folder_and_its_zip_are_one(tmp_path: Path) -> None:
    folder = build(pair()).save(tmp_path / "packs" / "mt")
    zip_pack(folder, tmp_path / "packs" / "mt.zip")
    assert len(open_shelf([tmp_path / "packs"]).choices) == 2


def test_no_packs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEGONN_PACKS", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no such folder of packs; name some: `legonn demo"):
        open_shelf()
    assert main(["demo", str(tmp_path)]) == 2
    assert "no pack in it" in capsys.readouterr().err


def test_without_gradio(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build(pair()).save(tmp_path / "mt")
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "espnet2_legonn.page.app", raising=False)
    assert main(["demo", str(tmp_path / "mt")]) == 2
    assert "pip install 'espnet2_legonn[page]'" in capsys.readouterr().err
