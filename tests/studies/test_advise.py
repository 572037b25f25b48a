"""Advice: scores with weights chosen elsewhere, verdicts, hints."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data.arpa import write_arpa
from espnet2_legonn.data.ngram import estimate
from espnet2_legonn.errors import ConfigError, DataError, InterfaceMismatch
from espnet2_legonn.inference.decode import inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.recipes.tune import Candidates
from espnet2_legonn.scoring.metrics import value
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies import advise as module
from espnet2_legonn.studies.advise import advise, by_decoder, hints, judged, warm_parts
from espnet2_legonn.studies.evaluate import Figures
from tests.studies.test_swap import write
from tests.zoo.toys import build, pair, vocab


def candidates(right: str, utterances: int = 40, decoder: bool = True) -> Candidates:
    """Two texts for each utterance, right and wrong; the scorer called ``right`` likes the right one."""
    owner = np.repeat(np.arange(utterances), 2)
    good = np.tile([0.0, -1.0], utterances)
    parts = {"ctc": good if right == "ctc" else -1 - good}
    if decoder:
        parts["decoder"] = good if right == "decoder" else -1 - good
    texts = [word for i in range(utterances) for word in (f"a{i} b", "x y")]
    return Candidates(owner, np.full(len(owner), 3), parts, texts, [[f"a{i} b" for i in range(utterances)]])


def test_weights_are_chosen_on_the_other_half() -> None:
    """Where the two halves want different scorers, each is judged by the wrong one: no score is tuned on itself."""
    found = candidates("decoder")
    for uid in range(1, 40, 2):  # odd ones are right by CTC
        rows = slice(2 * uid, 2 * uid + 2)
        for part in found.parts.values():
            part[rows] = part[rows][::-1]
    assert judged("split", found, "wer", None).segments.value == 100.0
    assert judged("one", candidates("decoder"), "wer", None).segments.value == 0.0
    assert judged("ctc alone", candidates("ctc", decoder=False), "wer", None).segments.value == 0.0


def test_weights_of_a_language_model_are_chosen_too() -> None:
    """Right by the model, wrong by CTC: the largest weight wins."""
    found = candidates("nobody", decoder=False)
    found.parts["ngram"] = 3 * np.tile([0.0, -1.0], 40)
    assert judged("with it", found, "wer", None).segments.value == 0.0 and judged("with it", found, "wer", None).ngram
    del found.parts["ngram"]
    assert judged("without", found, "wer", None).segments.value == 100.0


def test_speakers_are_drawn() -> None:
    found, speakers = candidates("decoder"), [f"s{i % 4}" for i in range(40)]
    segments = judged("by speaker", found, "wer", None, speakers).segments
    assert (segments.unit, len(segments.sums), segments.count) == ("speaker", 4, 40)
    assert judged("by utterance", found, "wer", None).segments.unit == "utterance"


def test_the_papers_search_is_the_decoders_own(tmp_path: Path) -> None:
    """A text that only CTC proposed is none of it, whatever the decoder thinks of it."""
    chain, data = build(pair()), write(tmp_path / "data", 12)
    inputs = inputs_of(chain, data)
    references = [[line.split(" ", 1)[1] for line in (data / "text").read_text().splitlines()]]
    texts = [answer.text for answer in chain.answer(list(inputs.values()), BeamOptions(3, 1.0, ctc_weight=0.0))]
    found = by_decoder(chain, inputs, references, "wer", 3, [f"s{i % 2}" for i in range(12)])
    assert found.segments.value == pytest.approx(value("wer", references, texts)) and len(found.segments.sums) == 2
    assert "the paper's search" in found.name


@pytest.mark.parametrize(
    ("alone", "plugged", "verdict"),
    [("decoder", "ctc", "plug, with joint"), ("ctc", "nobody", "leave the encoder alone"), ("ctc", "ctc", "undecided")],
)
def test_verdicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: str, plugged: str, verdict: str) -> None:
    chains = [build(pair(), seed) for seed in range(2)]

    def found(chain: LegoNN, *args: Any, **options: Any) -> Candidates:
        return candidates(plugged) if len(chain) > 1 else candidates(alone, decoder=False)

    monkeypatch.setattr(module, "find_candidates", found)
    said = advise(*chains, write(tmp_path / "data", 40), "wer")
    assert said.verdict.startswith(verdict) and said.verdict in said.as_text()
    assert [trial.name.split(",")[0] for trial in said.trials] == ["the encoder alone", "plugged", "plugged"]
    if verdict.startswith("plug"):
        assert "gain of the plug over the encoder alone: +100.0" in said.as_text(), "fewer errors are a gain"


@pytest.mark.parametrize(
    ("right", "verdict", "gain"),
    [
        ("plug", "plug, with joint search", "gain of the plug over the encoder alone: +100.0"),
        ("encoder+ngram", "leave the encoder alone, with the n-gram: the plug is worse",
         "gain of the plug over the encoder alone, with the n-gram: -100.0"),
        ("plug encoder+ngram", "undecided: no clear difference",
         "gain of the plug over the encoder alone, with the n-gram: "),
        ("plug+ngram", "plug, with joint search and the n-gram",
         "gain of the plug with the n-gram over the encoder alone: +100.0"),
    ],
)  # fmt: skip
def test_the_plug_must_beat_the_encoder_with_an_ngram_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, right: str, verdict: str, gain: str
) -> None:
    chain = build(pair())
    asked = []

    def found(chain: LegoNN, data: Path, metric: str, options: BeamOptions, more: Any = (), limit: int = 0) -> Any:
        name = ("plug" if len(chain) > 1 else "encoder") + ("+ngram" if more else "")
        asked.append(name)
        proposed = candidates("ctc" if name in right.split() else "nobody", decoder=False)
        proposed.parts.update({"ngram": np.zeros(80)} if more else {})
        return proposed

    monkeypatch.setattr(module, "find_candidates", found)
    data = write(tmp_path / "data", 40)
    said = advise(chain, chain, data, "wer", ngram_file=model(chain, data))
    assert sorted(asked) == ["encoder", "encoder+ngram", "plug", "plug+ngram"] and len(said.trials) == 5
    assert said.verdict.startswith(verdict) and gain in said.as_text()
    assert module.CONTROL not in said.hints, "it was tried"
    assert module.CONTROL in advise(chain, chain, data, "wer").hints


def model(chain: LegoNN, data: Path) -> Path:
    """An n-gram model of the texts of a data directory."""
    path, words = data.parent / "ngram.arpa", chain.require_text()
    texts = [line.split(" ", 1)[1] for line in (data / "text").read_text().splitlines()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few texts
        write_arpa(path, estimate(map(words.encode, texts), len(words), 2), words)
    return path


def seen(port: Any, slots: float) -> None:
    port.contract.totals.copy_(torch.tensor([slots * 100, 100.0]))


def figures(slots: float, right: float) -> Figures:
    return Figures("encoder", "wer", 100, slots_per_token=slots, right=right)


def test_hints() -> None:
    alone, donor = build(pair())[:1], build(pair(), 1)
    assert hints(alone, donor, figures(2.0, 0.95)) == [], "nothing is known of the decoder, the encoder is good"
    seen(donor.last.input, 2.0)
    assert hints(alone, donor, figures(2.1, 0.95)) == []
    (retime,) = hints(alone, donor, figures(3.0, 0.95))
    assert retime.startswith("re-time: the encoder makes 3.00") and "slots_per_token: 2.0" in retime
    (warm,) = hints(alone, donor, figures(2.0, 0.5))
    assert warm.startswith("warm start: 50 %") and "DONOR#encoder" in warm
    collapsed = build(pair(collapse=True))
    seen(collapsed.last.input, 2.0)
    assert "do not matter" in hints(alone, collapsed, figures(3.0, 0.95))[0]


def test_a_warm_start_needs_equal_sizes() -> None:
    donor = build(pair())
    wide = pair()
    wide["modules"][0]["body"]["size"] = 16
    other_input = pair()
    other_input["vocabs"]["src"]["tokens"].insert(3, "p")
    assert warm_parts(build(wide)[:1], donor) is None and warm_parts(build(other_input)[:1], donor) == "encoder"
    assert warm_parts(donor[:1], donor[-1:]) is None, "the donor has no encoder"
    begun = build(other_input)[:1]
    begun.last.config.init = "exp/donor"
    assert warm_parts(begun, donor) is None, "it began warm"


def test_what_cannot_be_advised(tmp_path: Path) -> None:
    one, other = build(pair()), build(pair("a b c d e"))
    with pytest.raises(InterfaceMismatch):
        advise(one, other, write(tmp_path / "data"), "wer")
    with pytest.raises(ConfigError, match="is no decoder"):
        advise(one, one[:1], tmp_path / "data", "wer")
    phonemes = pair()
    phonemes["vocabs"]["phn"] = vocab("AA BB CC", unit="phn")
    phonemes["modules"][0]["output"]["vocab"] = phonemes["modules"][1]["input"]["vocab"] = "phn"
    spoken = build(phonemes)
    with pytest.raises(ConfigError, match="encoder says phn, the plug word: phonemes and words have no score"):
        advise(spoken, spoken, tmp_path / "data", "wer")
    with pytest.raises(DataError, match="6 examples say nothing"):
        advise(one, one, tmp_path / "data", "wer")
    with pytest.raises(DataError, match="none.arpa: no such n-gram model"):  # before the data are read
        advise(one, one, tmp_path / "nothing", "wer", ngram_file=tmp_path / "none.arpa")


def test_an_ngram_model_of_other_tokens_than_the_decoders_searches_with_the_encoder_alone(tmp_path: Path) -> None:
    described = pair()
    described["vocabs"]["out"] = vocab("a b c d e")
    described["modules"][1]["output"]["vocab"] = "out"
    chain, data = build(described), write(tmp_path / "data", 20)
    said = advise(chain, chain, data, "wer", ngram_file=model(chain[:1], data))
    assert [trial.name for trial in said.trials if trial.ngram] == ["the encoder alone, with the n-gram"]
    assert "the plug was not tried with the n-gram: its decoder writes other tokens" in said.as_text()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packs = [str(build(pair(), seed).save(tmp_path / f"p{seed}")) for seed in range(2)]
    assert main(["advise", *packs, "--data", str(write(tmp_path / "data", 24)), "--limit", "22"]) == 0
    said = capsys.readouterr().out
    assert said.endswith("on 22 examples; 95 % intervals by bootstrap over 22 utterances\n")
    assert "plugged, joint search: % WER" in said and "- a control: an n-gram model" in said
    (tmp_path / "data" / "utt2spk").write_text("".join(f"u{i} s{i // 8}\n" for i in range(24)))
    words = ["--data", str(tmp_path / "data"), "--ngram_file", str(model(build(pair()), tmp_path / "data"))]
    assert main(["advise", *packs, *words]) == 0
    said = capsys.readouterr().out
    assert said.endswith(
        "on 24 examples; 95 % intervals by bootstrap over 24 utterances: 3 speakers are too few to draw\n"
    )
    (tmp_path / "data" / "utt2spk").write_text("".join(f"u{i} s{i // 2}\n" for i in range(24)))
    assert main(["advise", *packs, *words[:2]]) == 0
    assert capsys.readouterr().out.endswith("on 24 examples; 95 % intervals by bootstrap over 12 speakers\n")
    for name in ("the encoder alone, with the n-gram", "plugged, joint search, with the n-gram"):
        assert f"{name}: % WER" in said
