"""Times and confidences of words: the best of all alignments, the way of slots back to seconds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.model.module import EncoderModule
from espnet2_legonn.model.timeline import NEAR, Spans, Timeline
from espnet2_legonn.search.chain_search import rescore
from espnet2_legonn.search.options import BeamOptions, Hypothesis
from espnet2_legonn.search.words import PAUSE, TAIL, Word, align, words_of
from tests.zoo.sounds import speech_pair, tone
from tests.zoo.toys import BODY, build, change, vocab

WORDS = Vocabulary(("<blank>", "<unk>", "a", "b", "<sos/eos>"), "word")
STEP = 0.04


def spans(slots: int) -> Spans:
    start = STEP * torch.arange(slots).unsqueeze(0)
    return Spans(start, start + STEP)


def best_path(log_probs: np.ndarray, ids: list[int]) -> tuple[int, ...]:
    """The likeliest of all alignments of a text, by listing them."""
    slots, size = log_probs.shape
    paths = itertools.product(range(size), repeat=slots)
    said = (p for p in paths if [label for label, _ in itertools.groupby(p) if label] == ids)
    return max(said, key=lambda p: sum(log_probs[t, label] for t, label in enumerate(p)))


@pytest.mark.parametrize("ids", [[2], [3, 2], [2, 2], [2, 3, 2]])
@pytest.mark.parametrize("seed", range(3))
def test_words_lie_on_the_best_of_all_alignments(ids: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(1, 6, len(WORDS))).log_softmax(-1)
    words = align(Marginals(log_probs, torch.tensor([6]), Interface(WORDS)), spans(6), ids, WORDS)
    path, table = best_path(log_probs[0].double().numpy(), ids), log_probs[0].double().numpy()
    runs = [[t for t, _ in run] for label, run in itertools.groupby(enumerate(path), lambda p: p[1]) if label]
    assert [word.text for word in words] == [WORDS.tokens[i] for i in ids] and len(runs) == len(ids)
    for number, (word, run) in enumerate(zip(words, runs)):
        after = runs[number + 1][0] if number + 1 < len(runs) else None
        end = STEP * (run[-1] + 1) + TAIL if after is None else STEP * after
        assert (word.start, word.end) == pytest.approx((STEP * run[0], end), abs=1e-6)
        mean = np.mean([table[t, path[t]] for t in run])
        assert word.confidence == pytest.approx(math.exp(mean), abs=1e-5)


def test_a_word_before_a_pause_ends_soon() -> None:
    log_probs = torch.full((1, 40, len(WORDS)), -9.0)
    log_probs[:, :, 0] = -0.01
    log_probs[0, 3], log_probs[0, 5], log_probs[0, 30] = (
        torch.tensor([-9.0, -9, a, b, -9]) for a, b in ((0, -9), (-9, 0), (0, -9))
    )
    found = align(Marginals(log_probs, torch.tensor([40]), Interface(WORDS)), spans(40), [2, 3, 2], WORDS)
    assert 25 * STEP > PAUSE > 2 * STEP
    ends = [word.end for word in found]
    assert ends == pytest.approx([5 * STEP, 6 * STEP + TAIL, 31 * STEP + TAIL], abs=1e-6)
    assert found[1].later(10.0).start == pytest.approx(10 + 5 * STEP)


def test_what_cannot_be_aligned_has_no_times() -> None:
    found = Marginals(torch.randn(1, 2, len(WORDS)).log_softmax(-1), torch.tensor([2]), Interface(WORDS))
    assert align(found, spans(2), [], WORDS) == []
    assert align(found, spans(2), [2, 2], WORDS) == [], "a repeat needs a blank between"
    assert align(found, spans(2), [2, 3], WORDS) != []
    found.log_probs[:, :, 3] = -torch.inf
    assert align(found, spans(2), [2, 3], WORDS) == []
    phonemes = Vocabulary(WORDS.tokens, "phn")
    other = Vocabulary(("<blank>", "<unk>", "c", "<sos/eos>"), "word")
    assert align(Marginals(found.log_probs, found.lengths, Interface(phonemes)), spans(2), [2], other) == []


def test_other_tokens_are_split_anew() -> None:
    letters = Vocabulary(("<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"), "char")
    log_probs = torch.randn(1, 9, len(letters)).log_softmax(-1)
    found = align(Marginals(log_probs, torch.tensor([9]), Interface(letters)), spans(9), [2, 3, 2], WORDS)
    assert [w.text for w in found] == ["a", "b", "a"]
    assert all(a.start < b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("unit", "tokens", "text", "wanted"),
    [
        ("char", "<space> a b c", "ab <space> c", [("ab", [0, 1]), ("c", [3])]),
        ("char", "<space> a b c", "<space> a <space> <space> b", [("a", [1]), ("b", [4])]),
        ("bpe", "\u2581a \u2581 b c", "\u2581a b \u2581 c \u2581a", [("ab", [0, 1]), ("c", [3]), ("a", [4])]),
        ("bpe", "\u2581a \u2581 b c", "b \u2581a", [("b", [0]), ("a", [1])]),
        ("word", "a b", "a b a", [("a", [0]), ("b", [1]), ("a", [2])]),
    ],
)
def test_words_of_tokens(unit: str, tokens: str, text: str, wanted: list[tuple[str, list[int]]]) -> None:
    own = Vocabulary(("<blank>", "<unk>", *tokens.split(), "<sos/eos>"), unit)
    split = [t for word in text.split() for t in ([word] if word in own.ids else word)]
    assert words_of([own.ids[t] for t in split], own) == wanted


# -- from slots to seconds ---------------------------------------------------------------------------------------------

WAVES = [tone(0.9), tone(0.35, 1), tone(0.6, 2)]


def without_control() -> LegoNN:
    return build(change(speech_pair(), "modules.0.length_control", None), 2)


def two_steps() -> LegoNN:
    """Speech to slots of 40 ms, and a reader of their collapsed runs that writes another interface."""
    data = change(speech_pair(), "modules.0.length_control", None)
    reader = {
        "name": "reader",
        "input": {"type": "wemb", "vocab": "tgt", "num_blocks": 1, "collapse": True},
        "body": dict(BODY),
        "output": {"vocab": "last"},
    }
    return build({"vocabs": {**data["vocabs"], "last": vocab("k l m")}, "modules": [data["modules"][0], reader]}, 3)


def told(chain: LegoNN, waves: list[np.ndarray]) -> tuple[Spans, dict[str, Marginals]]:
    batch = chain.batch(waves)
    with Timeline(chain) as timeline:
        found, _, _ = chain.encode(*batch)
    spans = timeline.spans(batch[1], found)
    assert spans is not None and not any(m._forward_pre_hooks for m in chain.modules()), "hooks are gone"
    return spans, found


def test_slots_of_speech_are_40_ms() -> None:
    spans, found = told(without_control(), WAVES)
    assert spans.exact and spans.start.shape == found["recognizer"].log_probs.shape[:2]
    np.testing.assert_allclose(spans.start[0], 0.04 * np.arange(spans.start.shape[1]), atol=1e-4)
    np.testing.assert_allclose(spans.end - spans.start, 0.04, atol=1e-4)


def test_collapsed_slots_lie_where_their_run_lies() -> None:
    chain = two_steps()
    spans, found = told(chain, WAVES)
    first = found["recognizer"]
    assert max(found["reader"].lengths) > 1
    assert spans.exact and spans.start.shape == found["reader"].log_probs.shape[:2]
    for i, length in enumerate(first.lengths.tolist()):
        best = first.log_probs[i, :length].argmax(-1).tolist()
        runs = [[t for t, _ in run] for label, run in itertools.groupby(enumerate(best), lambda p: p[1]) if label]
        runs = runs or [list(range(length))]  # blank alone keeps one run
        wanted = [(0.04 * run[0], 0.04 * (run[-1] + 1)) for run in runs]
        assert len(wanted) == found["reader"].lengths[i]
        given = list(zip(spans.start[i].tolist(), spans.end[i].tolist()))[: len(wanted)]
        np.testing.assert_allclose(given, wanted, atol=1e-4)


def test_behind_a_length_controller_times_are_where_it_reads() -> None:
    """Against attention written out in float64."""
    chain = build(speech_pair(), 2)
    module = chain.first
    assert isinstance(module, EncoderModule) and module.length_control is not None
    spans, _ = told(chain, WAVES[:1])
    x, lengths = chain.batch(WAVES[:1])
    with torch.inference_mode():
        states, steps = module.input(x, lengths)
        states = module.body(states, steps).double()[0].numpy()
        read: list[torch.Tensor] = []
        block = module.length_control.blocks.cross_blocks()[-1]
        handle = block.norm2.register_forward_hook(lambda _, __, out: read.append(out))
        module(x, lengths)
        handle.remove()
    attention, size = block.src_attn, block.src_attn.size // block.src_attn.heads
    q = read[0][0].double().numpy() @ attention.linear_q.weight.detach().double().numpy().T
    q += attention.linear_q.bias.detach().double().numpy()
    k = (
        states @ attention.linear_k.weight.detach().double().numpy().T
        + attention.linear_k.bias.detach().double().numpy()
    )
    weights = []
    for head in range(attention.heads):
        scores = q[:, head * size : (head + 1) * size] @ k[:, head * size : (head + 1) * size].T / math.sqrt(size)
        scores = np.exp(scores - scores.max(1, keepdims=True))
        weights.append(scores / scores.sum(1, keepdims=True))
    steps, slots = len(states), len(q)
    even = (np.arange(slots) + 0.5) * steps / slots
    logs = np.log(np.array(weights) + 1e-6).mean(0) - (np.arange(steps) + 0.5 - even[:, None]) ** 2 / (2 * NEAR**2)
    together = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    place = together @ (0.04 * (np.arange(steps) + 0.5))
    assert not spans.exact
    np.testing.assert_allclose((spans.start + spans.end)[0] / 2, np.maximum.accumulate(place), atol=1e-3)


@pytest.mark.parametrize("make", [without_control, two_steps, lambda: build(speech_pair(), 2)])
@pytest.mark.usefixtures("float64")
def test_times_do_not_depend_on_the_batch(make) -> None:
    chain = make()
    together = chain.answer(WAVES, times=True)
    for wave, answer in zip(WAVES, together):
        alone = chain.answer(wave, times=True)[0]
        assert [w.text for w in alone.words] == [w.text for w in answer.words]
        assert [w[1:] for w in alone.words] == [pytest.approx(w[1:], abs=1e-6) for w in answer.words]
    assert any(answer.words for answer in together)
    assert all(not answer.words for answer in chain.answer(WAVES)), "only where they are asked for"


def test_texts_have_no_times() -> None:
    from tests.zoo.toys import pair

    answer = build(pair()).answer("k l m", times=True)[0]
    assert answer.words == [] and answer.exact
    assert Word("a", 1.0, 2.0, 0.5).later(1.5) == Word("a", 2.5, 3.5, 0.5)


def test_bytes_of_a_blank_are_no_word() -> None:
    """U+3000 in bytes: the first of them looks like a letter that is not whole."""
    tokens = ("<blank>", "<unk>", "\u2581a", *(f"<0x{i:02X}>" for i in range(256)), "<sos/eos>")
    vocab = Vocabulary(tokens, "bpe")
    blank = [vocab.ids[f"<0x{i:02X}>"] for i in "\u3000".encode()]
    assert words_of(blank, vocab) == []
    assert [word for word, _ in words_of([2, *blank, 2], vocab)] == ["a", "a"]


def test_texts_get_the_treatment_of_the_interface() -> None:
    """A decoder that writes capitals behind an interface of small letters."""
    own = Vocabulary(("<blank>", "<unk>", "a", "b", "<sos/eos>"), "word", normalization="lc")
    cased = Vocabulary(("<blank>", "<unk>", "A", "B", "x", "<sos/eos>"), "word", normalization="tc")
    log_probs = torch.tensor([[0.05, 0.05, 0.8, 0.05, 0.05], [0.05, 0.05, 0.05, 0.8, 0.05]]).log()[None]
    found = Marginals(log_probs, torch.tensor([2]), Interface(own))
    assert [(w.text, round(w.confidence, 3)) for w in align(found, spans(2), [2, 3], cased)] == [("A", 0.8), ("B", 0.8)]
    hypothesis = Hypothesis([2, 3], -1.0, -1.0, {"decoder": -1.0})
    (again,) = rescore([[hypothesis]], cased, found, BeamOptions(ctc_weight=0.5, length_penalty=0.0))
    assert again[0].parts["ctc"] == pytest.approx(2 * np.log(0.8), abs=1e-5)
