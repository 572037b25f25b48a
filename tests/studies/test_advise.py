"""Advice: scores with weights chosen elsewhere, verdicts, hints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import ConfigError, DataError, InterfaceMismatch
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.recipes.tune import Candidates
from espnet2_legonn.studies import advise as module
from espnet2_legonn.studies.advise import advise, hints, judged, warm_parts
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
    assert judged("given", candidates("decoder"), "wer", None, weight=1.0).segments.value == 100.0
    assert judged("ctc alone", candidates("ctc", decoder=False), "wer", None).segments.value == 0.0


@pytest.mark.parametrize(
    ("alone", "plugged", "verdict"),
    [("decoder", "ctc", "plug, with joint"), ("ctc", "nobody", "leave the encoder alone"), ("ctc", "ctc", "undecided")],
)
def test_verdicts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: str, plugged: str, verdict: str) -> None:
    chains = [build(pair(), seed) for seed in range(2)]

    def found(chain: LegoNN, *args: Any, **options: Any) -> Candidates:
        return candidates(plugged) if len(chain) > 1 else candidates(alone, decoder=False)

    monkeypatch.setattr(module, "find_candidates", found)
    said = advise(*chains, write(tmp_path / "data", 30), "wer")
    assert said.verdict.startswith(verdict) and said.verdict in said.as_text()
    assert [trial.name.split(",")[0] for trial in said.trials] == ["the encoder alone", "plugged", "plugged"]
    if verdict.startswith("plug"):
        assert "gain of the plug over the encoder alone: +100.0" in said.as_text(), "fewer errors are a gain"


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


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packs = [str(build(pair(), seed).save(tmp_path / f"p{seed}")) for seed in range(2)]
    assert main(["advise", *packs, "--data", str(write(tmp_path / "data", 24)), "--limit", "22"]) == 0
    said = capsys.readouterr().out
    assert "on 22 examples" in said and "plugged, joint search: % WER" in said
