"""Oracle interfaces and cascades of n-best texts, against listing everything and against plain Python."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.decode import decode_table, inputs_of
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.scoring.bootstrap import confidence_interval
from espnet2_legonn.scoring.metrics import score, value
from espnet2_legonn.scoring.significance import compare
from espnet2_legonn.search.options import BeamOptions
from espnet2_legonn.studies.oracle import (
    as_json,
    best_slots,
    cascades,
    cut,
    ideal,
    laid_out,
    one_hot,
    oracle,
    readings,
    render,
    shuffled,
)
from tests.search.listing import texts_of
from tests.search.test_words import best_path
from tests.studies.test_swap import write
from tests.zoo.toys import BODY, build, pair, vocab

ALONE = BeamOptions(4, 0.0, ctc_weight=0.0)


@pytest.fixture
def chain() -> LegoNN:
    return build(pair("a b"))


@pytest.fixture
def marginals(chain: LegoNN) -> Marginals:
    """Three items of 4, 2 and 5 slots; what lies beyond their ends is garbage that nobody may read."""
    torch.manual_seed(3)
    lengths, size = torch.tensor([4, 2, 5]), len(chain.vocabs["tgt"])
    log_probs = (2 * torch.randn(3, 5, size)).log_softmax(-1)
    for row, length in zip(log_probs, lengths.tolist()):
        row[length:] = 50.0 * torch.randn_like(row[length:])
    return Marginals(log_probs, lengths, Interface(chain.vocabs["tgt"]))


def said(slots: Sequence[int]) -> list[int]:
    """What CTC reads in slots."""
    return [token for token, _ in itertools.groupby(slots) if token]


def in_rows(x: torch.Tensor) -> list[list[float]]:
    """Slots of an item in an order that does not matter."""
    return sorted(x.tolist())


def test_slots_of_a_reference() -> None:
    assert laid_out([5, 6], 2.0, 0) == [5, 0, 6, 0] and laid_out([5, 5, 6], 2.0, 0) == [5, 0, 5, 0, 6, 0]
    assert laid_out([5, 5, 6], 1.0, 0) == [5, 0, 5, 6], "equal tokens would merge"
    assert laid_out([5, 6, 7, 8], 1.5, 0) == [5, 6, 0, 7, 8, 0] and laid_out([], 2.0, 0) == [0]
    rng = np.random.default_rng(0)
    for ratio in (1.0, 1.4, 2.0, 2.63, 5.0):
        for size in range(1, 30):
            ids = rng.integers(1, 4, size).tolist()
            slots = laid_out(ids, ratio, 0)
            assert said(slots) == ids, "CTC reads the tokens back"
            merged = sum(a == b for a, b in itertools.pairwise(ids)) if ratio < 2 else 0
            assert int(size * ratio) <= len(slots) <= int(size * ratio) + merged


def test_an_ideal_interface_is_the_reference(marginals: Marginals) -> None:
    labels = [[2, 2, 3], [3], []]
    found = ideal(marginals, labels, 2.0)
    assert found.greedy_ids() == labels and found.lengths.tolist() == [6, 2, 1]
    probs = found.probs()
    assert probs.max(-1).values.eq(1).all() and probs.sum(-1).eq(1).all()
    assert ideal(marginals, [[2], [2], [2, 3]], None).lengths.tolist() == [4, 2, 5], "as many slots as the encoder made"


def test_one_hot_keeps_the_ranks_of_the_others(marginals: Marginals) -> None:
    x = marginals[2].log_probs
    tokens = torch.tensor([[3, 0, 1, 1, 2]])
    found = one_hot(x, tokens)
    assert torch.equal(found.exp(), torch.nn.functional.one_hot(tokens, x.shape[-1]).float())
    for before, after, token in zip(x[0], found[0], tokens[0].tolist()):
        order = before.argsort(descending=True).tolist()
        assert after.argsort(descending=True).tolist() == [token, *(i for i in order if i != token)]


def test_a_shuffle_permutes_an_items_own_slots(marginals: Marginals) -> None:
    found = shuffled(marginals, ["a", "b", "c"])
    for before, after, size in zip(marginals.log_probs, found.log_probs, marginals.lengths.tolist()):
        assert in_rows(before[:size]) == in_rows(after[:size])
        assert torch.equal(before[size:], after[size:]), "padding stays where it is"
    assert not torch.equal(marginals.log_probs[2], found.log_probs[2])
    assert torch.equal(found.log_probs, shuffled(marginals, ["a", "b", "c"]).log_probs)
    alone = shuffled(marginals[2], ["c"])
    assert torch.equal(alone.log_probs[0], found.log_probs[2]), "whatever else is in the batch"


def test_readings_against_numpy(marginals: Marginals) -> None:
    labels = [[2, 3], [2, 2], [3]]  # two slots cannot say a token twice
    found = readings(marginals, ["a", "b", "c"], labels, 2.0, [0.5, 3.0])
    assert list(found) == [
        "as it is", "the reference (one-hot)", "errors corrected", "the best token of each slot (one-hot)",
        "temperature 0.5", "temperature 3", "shuffled in time",
    ]  # fmt: skip
    assert found["as it is"] is marginals and found["the reference (one-hot)"].greedy_ids() == labels
    assert list(readings(marginals, ["a", "b", "c"], None)).index("shuffled in time") == 4, "nothing of references"
    for i, ids in enumerate(labels):
        own = {name: read[i].log_probs[0].double().numpy() for name, read in found.items()}
        table = own["as it is"]
        best = table.argmax(1)
        said_alone = np.exp(own["the best token of each slot (one-hot)"])
        np.testing.assert_array_equal(said_alone, np.eye(table.shape[1])[best])
        for t in (0.5, 3.0):
            flat = np.exp(table) ** (1 / t)
            np.testing.assert_allclose(np.exp(own[f"temperature {t:g}"]), flat / flat.sum(1, keepdims=True), atol=1e-6)
        path = best if i == 1 else np.array(best_path(table, ids))
        fixed = np.where((path == best)[:, None], np.exp(table), np.eye(table.shape[1])[path])
        np.testing.assert_allclose(np.exp(own["errors corrected"]), fixed, atol=1e-6)
        assert i == 1 or said(own["errors corrected"].argmax(1)) == ids


def test_slots_of_no_text_are_blank(marginals: Marginals) -> None:
    assert best_slots(marginals, [0], [[]]).tolist() == [[0] * 5]


@pytest.mark.parametrize(("n", "power"), [(1, 0.0), (2, 0.0), (3, 0.0), (3, 1.0)])
def test_a_cascade_is_the_best_of_all_that_are_listed(
    chain: LegoNN, marginals: Marginals, n: int, power: float
) -> None:
    """Every text of the interface by its probability, and every answer of one or two tokens to each."""
    rest, size = chain[1:], len(chain.vocabs["tgt"])
    options = BeamOptions(40, power, maxlenratio=-2, minlenratio=-1, ctc_weight=0.0)
    answers = [list(ids) for length in (1, 2) for ids in itertools.product(range(1, size - 1), repeat=length)]
    wanted = []
    for i in range(len(marginals)):
        own, chances = marginals[i], texts_of(marginals[i].log_probs[0])
        listed = []
        for text in sorted((t for t in chances if size - 1 not in t), key=chances.__getitem__, reverse=True)[:n]:
            path = torch.tensor([best_path(own.log_probs[0].double().numpy(), list(text))])
            given = torch.nn.functional.one_hot(path, size).float().log()
            ranked = [(log_prob(rest, given, ids) / (len(ids) + 1) ** power, ids) for ids in answers]
            score, ids = max(ranked)
            listed.append((np.log(chances[text]) / (len(ids) + 1) ** power + score, ids))
        wanted.append(max(listed)[1])
    assert cascades(marginals, rest, [n], options) == [wanted]


def log_prob(rest: LegoNN, given: torch.Tensor, ids: list[int]) -> float:
    """log P(ids | given) of a decoder, a token at a time."""
    decoder = rest.last
    state, total, end = decoder.start(given, torch.tensor([given.shape[1]])), 0.0, decoder.sos_eos
    with torch.inference_mode():
        for before, token in itertools.pairwise([end, *ids, end]):
            total += float(decoder.step(torch.tensor([before]), state)[0, token])
    return total


def test_a_wider_cascade_goes_on_from_the_narrow_one(chain: LegoNN, marginals: Marginals) -> None:
    options = BeamOptions(4, 0.0, minlenratio=-3, ctc_weight=0.0)
    together = cascades(marginals, chain[1:], [1, 4], options)
    assert together[0] == cascades(marginals, chain[1:], [1], options)[0]
    assert together[0] != together[1], "another text of the interface wins somewhere"


def test_scores_are_those_of_the_chain(tmp_path: Path) -> None:
    chain, data = build(pair()), write(tmp_path / "data", 8)
    found = oracle(chain, data, "wer", ALONE, numbers=[1], batch_size=3)
    together = oracle(chain, data, "wer", ALONE, numbers=[1])
    scores = {reading.name: reading.segments.value for reading in found}
    assert scores == {reading.name: reading.segments.value for reading in together}, "the batch does not matter"
    read = {n: dict(line.split(" ", 1) for line in (data / n).read_text().splitlines()) for n in ("src_text", "text")}
    texts = [answer.text for answer in chain.answer(list(read["src_text"].values()), ALONE)]
    assert scores["as it is"] == pytest.approx(value("wer", [list(read["text"].values())], texts))
    page = render(found).splitlines()
    assert page[-1] == "8 utterances were scored. 95 % intervals by bootstrap over 8 utterances."
    assert len(page) == 4 + len(found)
    assert page[2].startswith("|as it is|") and page[2].endswith("||")
    change = compare(found[0].segments, found[1].segments)
    assert f"{change.difference:+.1f} ({change.ci[0]:+.1f} to {change.ci[1]:+.1f})" in page[3]


def test_speakers_are_drawn_where_the_data_have_several(tmp_path: Path) -> None:
    """As ``legonn score`` of the same texts does."""
    chain, data = build(pair()), write(tmp_path / "data", 8)
    (data / "utt2spk").write_text("".join(f"u{i} s{i % 3}\n" for i in range(8)))
    found = oracle(chain, data, "wer", ALONE, numbers=[1])
    decode_table(chain, inputs_of(chain, data), ALONE).nbest[0].write(tmp_path)
    wanted = score("wer", data, tmp_path / "text", utt2spk=data / "utt2spk").segments
    assert np.array_equal(found[0].segments.sums, wanted.sums) and len(wanted.sums) == 3
    assert confidence_interval(found[0].segments) == confidence_interval(wanted)
    assert render(found).endswith("8 utterances were scored. 95 % intervals by bootstrap over 3 speakers.")
    assert {(one["unit"], one["units"]) for one in as_json(found)} == {("speaker", 3)}
    (data / "utt2spk").write_text("".join(f"u{i} s\n" for i in range(8)))
    found = oracle(chain, data, "wer", ALONE, numbers=[1])
    assert render(found).endswith("by bootstrap over 8 utterances, since all are of one speaker.")


def three(inner_language: str | None = None) -> LegoNN:
    """Source tokens -> an inner interface -> another one -> text."""
    data = pair()
    inner = {
        "name": "inner",
        "input": {"type": "wemb", "vocab": "tgt", "num_blocks": 1},
        "body": dict(BODY),
        "output": {"vocab": "out"},
    }
    data["modules"].insert(1, inner)
    data["vocabs"]["tgt"]["language"] = inner_language
    data["vocabs"]["out"] = {**vocab("e f g h i"), "language": "en"}
    data["modules"][2]["input"]["vocab"] = data["modules"][2]["output"]["vocab"] = "out"
    return build(data)


def test_an_inner_interface_and_its_own_references(tmp_path: Path) -> None:
    """``text_<vocabulary>`` is what the interface should say; the chain's answer is scored by ``text``."""
    chain, data = three(), write(tmp_path / "data")
    (data / "text").rename(data / "text_tgt")
    (data / "text").write_text("".join(f"u{i} e f\n" for i in range(6)))
    front, rest = cut(chain, "encoder")
    assert front.names == ["encoder"] and rest.names == ["inner", "decoder"]
    first = oracle(chain, data, "wer", ALONE, "encoder", numbers=[1, 2])
    last = oracle(chain, data, "wer", ALONE, numbers=[1, 2])
    assert [r.name for r in first] == [r.name for r in last] and first[0].segments.value == last[0].segments.value
    words = dict(line.split(" ", 1) for line in (data / "text_tgt").read_text().splitlines())
    labels = [chain.vocabs["tgt"].encode(text) for text in words.values()]
    given = ideal(front.marginals(["k l"] * 6), labels, 2.0)
    assert given.greedy_texts() == list(words.values())


def test_without_a_transcript_two_readings_are_left_out(tmp_path: Path) -> None:
    """English ``text`` is no transcript of an interface that says German."""
    data, left_out = write(tmp_path / "data"), {"errors corrected", "the reference (one-hot)"}
    for language, wanted in (("de", set()), ("en", left_out), (None, left_out)):
        found = {r.name for r in oracle(three(language), data, "wer", ALONE, "encoder", numbers=[1])}
        assert "as it is" in found and found & left_out == wanted


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, pack = write(tmp_path / "data"), build(pair()).save(tmp_path / "mt")
    words = ["oracle", str(pack), "--data", str(data), "--limit", "4", "--nbest", "2", "--temperature", "3"]
    assert main([*words, "-o", str(tmp_path / "o.json")]) == 0
    told = json.loads((tmp_path / "o.json").read_text())
    assert [t["name"] for t in told][-3:] == ["temperature 3", "shuffled in time", "2-best cascade"]
    assert told[0]["difference"] == 0 and told[0]["units"] == 4
    assert "|2-best cascade|" in capsys.readouterr().out
    assert main([*words, "--nbest", "0"]) == 2 and "--nbest must be at least 1" in capsys.readouterr().err


def test_what_has_no_interface(tmp_path: Path) -> None:
    chain, data = build(pair()), write(tmp_path / "data")
    with pytest.raises(ConfigError, match="no module 'middle'; this chain has encoder, decoder"):
        cut(chain, "middle")
    for one, at in ((chain, "decoder"), (chain[:1], None)):
        with pytest.raises(ConfigError, match="no interface that a module"):
            cut(one, at)
    with pytest.raises(DataError, match="metric 'blue'"):
        oracle(chain, data, "blue")
    with pytest.raises(DataError, match="src_text: a paired difference needs at least 2 utterances, here is 1"):
        oracle(chain, data, "wer", limit=1)
    (data / "text").write_text("u0 a\n")
    with pytest.raises(DataError, match="no reference for u1, u2"):
        oracle(chain, data, "wer")
    (data / "text").unlink()
    with pytest.raises(DataError, match="no references"):
        oracle(chain, data, "wer")
