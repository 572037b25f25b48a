"""Several encoders in one search: all texts listed, alone as in a batch, the command, the recipe's table."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn import ConfigError, DataError, InterfaceMismatch, LegoNN
from espnet2_legonn.bin.commands.transcribe import several
from espnet2_legonn.bin.legonn import main
from espnet2_legonn.inference.vote import Vote
from espnet2_legonn.recipes import vote as recipe
from tests.search.listing import log, texts_of
from tests.zoo.sounds import speech_pair, tone
from tests.zoo.toys import build, change, pair

ONE, TWO = ["k l", "m", "n k"], ["m m", "k n", "l"]


@pytest.fixture
def chain() -> LegoNN:
    return build(change(pair("a b"), "modules.0.length_control.ratio", "3/2"), 1)


@pytest.fixture
def other() -> LegoNN:
    return build(change(pair("a b"), "modules.0.length_control.ratio", "2"), 4)["encoder"]


def teacher_forced(chain: LegoNN, item: str, text: tuple[int, ...]) -> float:
    found, x, lengths = chain.encode(*chain.batch(item))
    labels = torch.tensor([text], dtype=torch.long).reshape(1, -1)
    with torch.no_grad():
        logits, targets = chain.last(x, lengths, labels, torch.tensor([len(text)]))
    return float(logits.log_softmax(-1).gather(2, targets.unsqueeze(-1)).sum())


def listed(chain: LegoNN, item: str) -> dict[tuple[int, ...], float]:
    end = chain.last.ports[1].vocab.sos_eos_id
    return {t: log(p) for t, p in texts_of(chain.marginals(item).log_probs[0]).items() if end not in t and p > 0}


def test_the_best_of_all_texts_by_decoder_and_both_encoders(chain: LegoNN, other: LegoNN) -> None:
    options: dict[str, Any] = {"beam_size": 90, "length_penalty": 0.0, "nbest": 3, "ctc_weight": 0.3, "maxlenratio": -3}
    found = Vote(chain, [other], [0.5]).generate([ONE, TWO], **options)
    for nbest, first, second in zip(found, ONE, TWO):
        one, two = listed(chain["encoder"], first), listed(other, second)
        texts = (t for n in range(4) for t in itertools.product(range(1, 4), repeat=n) if t in one and t in two)
        scores = {t: 0.7 * teacher_forced(chain, first, t) + 0.3 * one[t] + 0.5 * two[t] for t in texts}
        best = sorted(scores.items(), key=lambda p: -p[1])[:3]
        assert [(tuple(h.ids), h.log_prob) for h in nbest] == [(t, pytest.approx(s, abs=1e-4)) for t, s in best]
        assert nbest[0].parts["ctc_2"] == pytest.approx(two[tuple(nbest[0].ids)], abs=1e-4)


def test_encoders_alone_need_no_decoder(chain: LegoNN, other: LegoNN) -> None:
    vote = Vote(chain["encoder"], [other], [0.8])
    for nbest, first, second in zip(vote.generate([ONE, TWO], beam_size=90, ctc_weight=1.0), ONE, TWO):
        one, two = listed(chain["encoder"], first), listed(other, second)
        best = max((t for t in one if t in two), key=lambda t: one[t] + 0.8 * two[t])
        assert tuple(nbest[0].ids) == best


@pytest.mark.usefixtures("float64")
def test_a_batch_answers_as_each_alone() -> None:
    chain, other = build(pair(), 1), build(pair(), 4)["encoder"]
    vote = Vote(chain, [other, other], [0.4, 0.1])
    together = vote.generate([ONE, TWO, ONE], nbest=3)
    for i in range(3):
        alone = vote.generate([[ONE[i]], [TWO[i]], [ONE[i]]], nbest=3)[0]
        assert [h.ids for h in alone] == [h.ids for h in together[i]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[i]], abs=1e-9)
        assert set(alone[0].parts) == {"decoder", "ctc", "ctc_2", "ctc_3"}


def test_speech_and_text_may_vote_together() -> None:
    speech = build(speech_pair(), 2)["recognizer"]
    vote = Vote(build(pair(), 1), [speech])
    assert len(vote([["k l", "m"], [tone(0.4), tone(0.3, 1)]])) == 2


def test_equal_weights_are_the_default(chain: LegoNN, other: LegoNN) -> None:
    given = Vote(chain, [other], [0.25]).generate([ONE, TWO], ctc_weight=0.25)
    assert Vote(chain, [other]).generate([ONE, TWO], ctc_weight=0.25) == given
    assert Vote(chain, [other], [0.4]).generate([ONE, TWO]) == Vote(chain, [other]).generate([ONE, TWO])
    one, both = Vote(chain, [other, other], [0.7, None]), Vote(chain, [other, other], [0.7, 0.4])
    assert one.generate([ONE, TWO, ONE]) == both.generate([ONE, TWO, ONE])


def test_the_default_without_a_decoder_is_the_weight_of_the_own_ctc(chain: LegoNN, other: LegoNN) -> None:
    one = chain["encoder"]
    assert Vote(one, [other]).generate([ONE, TWO]) == Vote(one, [other], [1.0]).generate([ONE, TWO])
    with pytest.raises(ConfigError, match="ctc_weight: 0 is the best path of CTC alone, without ctc_2"):
        Vote(one, [other]).generate([ONE, TWO], ctc_weight=0.0)


def test_all_encoders_have_the_dtype_that_is_asked_for(chain: LegoNN, other: LegoNN) -> None:
    vote = Vote(chain, [other], [0.5])
    found, whole = vote.heard([ONE, TWO], "int8")[0], vote.heard([ONE, TWO])[0]
    torch.testing.assert_close(found.log_probs, other.converted("int8").marginals(TWO).log_probs)
    assert not torch.equal(found.log_probs, whole.log_probs)
    assert vote.generate([ONE, TWO], dtype="int8") != vote.generate([ONE, TWO])


def test_a_voter_without_ctc_in_training_is_warned_of(chain: LegoNN) -> None:
    free = build(change(pair("a b"), "modules.0.output.ctc_weight", 0.0), 4)["encoder"]
    with pytest.warns(UserWarning, match="vote: encoder 2: the producer was trained without CTC"):
        Vote(chain, [free])


def test_what_cannot_vote(chain: LegoNN, other: LegoNN) -> None:
    with pytest.raises(ConfigError, match="one encoder alone"):
        Vote(chain, [])
    with pytest.raises(ConfigError, match="2 weights for 1 encoders beside the first"):
        Vote(chain, [other], [0.1, 0.2])
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"vote: weight {weight:g} is not 0 or a number above it"):
            Vote(chain, [other, other], [0.5, weight])
    with pytest.raises(InterfaceMismatch, match="vote: encoder 2: vocabulary size"):
        Vote(chain, [build(pair("a b c"))["encoder"]])
    with pytest.raises(ConfigError, match="encoder 2: decoder has no interface whose CTC could vote"):
        Vote(chain, [chain])
    with pytest.raises(DataError, match="lists of 3, 2 inputs; each encoder reads the same items"):
        Vote(chain, [other]).answer([ONE, TWO[:2]])
    with pytest.raises(DataError, match="1 lists of inputs for 2 encoders"):
        Vote(chain, [other]).answer([ONE])


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("a", ["a"]), ("a#x,y", ["a#x,y"]), ("a#x,b#y", ["a#x", "b#y"]), ("a#x,y,b#z", ["a#x,y", "b#z"]),
        ("dir/a,b", ["dir/a,b"]), ("a#x,b#y,z,c#x", ["a#x", "b#y,z", "c#x"]),
    ],
)  # fmt: skip
def test_names_of_several_encoders(spec: str, wanted: list[str]) -> None:
    assert several(spec) == wanted


@pytest.mark.usefixtures("float64")
def test_translate_with_two_encoders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = build(pair(), 1), build(pair(), 4)
    a.save(tmp_path / "a"), b.save(tmp_path / "b")
    model = ["--model", f"{tmp_path}/a#encoder,{tmp_path}/b#encoder", "--model", f"{tmp_path}/a#decoder"]
    lines = [f"{x}\t{y}" for x, y in zip(ONE, TWO)]
    assert main(["translate", *lines, *model, "--votes", "0.7", "--ctc_weight", "0.2"]) == 0
    wanted = Vote(a, [b["encoder"]], [0.7])([ONE, TWO], ctc_weight=0.2, beam_size=5)
    assert capsys.readouterr().out.splitlines() == wanted
    assert main(["translate", "k l", lines[0], *model]) == 1
    out, err = capsys.readouterr()
    assert "text 1: 1 texts for 2 encoders; put a tab between them" in err and len(out.splitlines()) == 2


# -- the recipe --------------------------------------------------------------------------------------------------------


def write_set(folder: Path, sources: list[str], targets: list[str]) -> Path:
    folder.mkdir(parents=True)
    for name, lines in (("src_text", sources), ("text", targets)):
        (folder / name).write_text("".join(f"u{i} {line}\n" for i, line in enumerate(lines)))
    return folder


def test_weights_are_tuned_on_one_half_and_told_of_the_other(tmp_path: Path) -> None:
    chain, other = build(pair(), 1), build(pair(), 4)["encoder"]
    rng = np.random.default_rng(0)
    draw = lambda words: [" ".join(rng.choice(words, rng.integers(2, 6))) for _ in range(12)]  # noqa: E731
    targets = draw(list("abcd"))
    sets = [write_set(tmp_path / name, draw(list("klmn")), targets) for name in ("one", "two")]
    found, table = recipe.vote_on(chain, [other], sets, "wer", 3)
    assert set(found) == {*recipe.systems(["decoder", "ctc", "ctc_2"]), "n-best lists averaged"}
    assert (
        len(re.findall(r"\n\|", table)) == len(found) + 1 and "|search|decoder ctc ctc_2|length_penalty|WER|" in table
    )
    vote, encoded = Vote(chain, [other]), []
    for module in (chain["encoder"].first, other.first):
        module.register_forward_hook(lambda *_: encoded.append(1))
    recipe.judge(vote, sets, "wer", 3, slice(0, 6))
    assert len(encoded) == 2, "each encoder reads a batch once, whatever the number of searches"
    halves = [recipe.judge(vote, sets, "wer", 3, half) for half in (slice(0, 6), slice(6, 12))]
    for judged in halves:
        for text, parts, length in zip(judged.texts, judged.parts, judged.lengths):
            ids = chain.require_text().encode(text)
            assert len(ids) + 1 == length or not text and np.isfinite(parts).all()
    weights, penalty, value = found["decoder + CTC of all"]
    assert sum(weights) == pytest.approx(1)
    total = halves[1].parts @ np.array(weights) / halves[1].lengths ** penalty
    best = [max(np.flatnonzero(halves[1].owner == u), key=lambda i: total[i]) for u in range(6)]
    words = sum(len(t.split()) for t in targets[6:])
    import jiwer

    errors = jiwer.wer(targets[6:], [halves[1].texts[i] or "-" for i in best])
    empty = sum(not halves[1].texts[i] for i in best)
    assert abs(value - 100 * errors) <= 100 * empty / words + 1e-6
    (tmp_path / "two" / "src_text").write_text("u0 k\n")
    with pytest.raises(DataError, match="no u1"):
        recipe.judge(vote, sets, "wer", 3, slice(0, 3))


def test_one_utterance_cannot_be_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "Vote", lambda *_: None)
    monkeypatch.setattr(recipe, "inputs_of", lambda *_: {"u1": "a", "u2": "b"})
    with pytest.raises(DataError, match="x: 1 utterance cannot be cut into two halves"):
        recipe.vote_on(None, [], [Path("x")], "wer", 3, limit=1)  # type: ignore[arg-type]
