"""What a user hands over: file names, arrays, lists, tensors, texts, Marginals; every fault named, all together."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from espnet2_legonn import DataError, LegoNN, Marginals
from espnet2_legonn.inference.espnet import Speech2Text, Text2Text

RATE = 16000


# Untrained decoders like to end at once; so short a text would prove nothing.
LONG = {"minlenratio": 0.5}


def tone(seconds: float = 0.3, seed: int = 0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.4 * np.sin(2 * np.pi * (300 + 100 * seed) * time) + 0.01 * noise).astype(np.float32)


@pytest.fixture
def asr(data: dict[str, Any], parts: Any) -> LegoNN:
    vocabs = {"mid": data["vocabs"]["mid"]}
    return parts.build({"vocabs": vocabs, "modules": [parts.speech(), parts.decoder("decoder", "mid")]})


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="FLOAT")
    return tmp_path / "a.wav"


# -- speech ------------------------------------------------------------------------------------------------------------


def test_file_array_tensor_and_int16_say_the_same(asr: LegoNN, wav: Path, tmp_path: Path) -> None:
    text = asr(wav, **LONG)
    assert isinstance(text, str) and text
    assert (
        asr(str(wav), **LONG)
        == asr(tone(), **LONG)
        == asr(torch.from_numpy(tone()), **LONG)
        == asr(tone().astype(np.float64), **LONG)
        == text
    )
    assert asr(tone()[:800].tolist(), **LONG) == asr(tone()[:800], **LONG), (
        "a list of numbers is one waveform"
    )
    soundfile.write(tmp_path / "b.flac", tone(), RATE)
    samples, _ = soundfile.read(tmp_path / "b.flac", dtype="int16")
    read, given = asr.batch(tmp_path / "b.flac"), asr.batch(samples)
    assert torch.equal(read[0], given[0]) and torch.equal(read[1], given[1])


def test_lists_are_batches_and_each_item_is_as_if_alone(asr: LegoNN, wav: Path) -> None:
    """To the last digits of float64; float32 is as near as its kernels make it (they differ from CPU to CPU)."""
    items = [wav, tone(0.5, 1), torch.from_numpy(tone(0.12, 2))]
    each_item_is_as_if_alone(asr, items, 1e-3)
    asr.double()
    each_item_is_as_if_alone(asr, items, 1e-9)
    texts = asr(items, **LONG)
    assert isinstance(texts, list) and texts == [asr(item, **LONG) for item in items]
    assert asr((wav,), **LONG) == [asr(wav, **LONG)]
    two = [tone(0.2, 1), tone(0.2, 2)]
    assert asr(list(np.stack(two)), **LONG) == [asr(item, **LONG) for item in two]


@pytest.mark.parametrize("shape", [(1000, 2), (2, 1000), (1, 1000), (1, 2, 1000)])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_an_array_is_one_input_whatever_its_shape(asr: LegoNN, shape: tuple[int, ...], kind: Any) -> None:
    """As a sound file with two channels is read: no answer for each sample. The same in LegoNN and Speech2Text."""
    given = kind(np.zeros(shape, np.float32))
    for ask in (asr, asr.marginals, asr.generate, Speech2Text(asr), Speech2Text(asr).interfaces):
        with pytest.raises(DataError, match=r"input 0: shape \(.*\), one channel is needed.* as a list of waveforms"):
            ask(given)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_integers_have_the_full_scale_of_their_type(asr: LegoNN, dtype: Any) -> None:
    info = np.iinfo(dtype)
    half = (float(info.max) + 1 - info.min) / 2
    scaled = np.round(tone() * half) / half
    samples = (scaled * half + (half if info.min == 0 else 0)).astype(dtype)
    for given in (samples, torch.from_numpy(samples)):
        torch.testing.assert_close(asr.batch(given)[0][0], torch.from_numpy(scaled).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, bool, complex, object, str])
def test_samples_without_a_known_scale_are_refused(asr: LegoNN, dtype: Any) -> None:
    """An int64 may be anything; of complex numbers the half would be lost."""
    with pytest.raises(DataError, match="input 0: samples of type .* have no known full scale; give floats in -1"):
        asr(np.ones(1000).astype(dtype))


def test_half_precision_is_read(asr: LegoNN) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        rounded = torch.from_numpy(tone()).to(dtype)
        assert torch.equal(asr.batch(rounded)[0], asr.batch(rounded.float())[0])


def test_numbers_of_16_bits_that_were_never_scaled_warn(asr: LegoNN) -> None:
    with pytest.warns(UserWarning, match="input 0: samples of up to [0-9]+, a waveform is in -1 ... 1; divide 16-bit"):
        asr.batch(tone() * 32768)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asr.batch(tone() * 4)  # resampling overshoots


def each_item_is_as_if_alone(asr: LegoNN, items: list[Any], tolerance: float) -> None:
    together = asr.marginals(items)
    for i, item in enumerate(items):
        torch.testing.assert_close(together[i].log_probs, asr.marginals(item).log_probs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("samples", [1, 10, 399, 400, 401])
def test_shortest_audio_is_still_read(asr: LegoNN, samples: int) -> None:
    marginals = asr.marginals(tone()[:samples])
    assert len(marginals) == 1 and int(marginals.lengths[0]) >= 1
    assert torch.isfinite(marginals.log_probs).all()
    assert isinstance(asr(tone()[:samples]), str)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: np.zeros(0, np.float32), "input 0: no samples"),
        (lambda d: [], "no inputs: the list is empty"),
        (lambda d: [[]], "input 0: no samples"),
        (
            lambda d: np.where(np.arange(1000) < 7, np.nan, 0.1),
            "input 0: 7 of 1000 samples are NaN or infinite",
        ),
        (lambda d: torch.full((1000,), torch.inf), "input 0: 1000 of 1000 samples are NaN or infinite"),
        (
            lambda d: [np.zeros((1000, 2))],
            r"input 0: shape \(1000, 2\), one channel is needed; mix or choose a channel",
        ),
        (lambda d: torch.tensor(0.1), r"input 0: shape \(\), one channel is needed"),
        (lambda d: d / "none.wav", "none.wav: cannot be read as audio"),
        (lambda d: d, "cannot be read as audio"),
        (lambda d: d / "text.wav", "text.wav: cannot be read as audio"),
        (
            lambda d: d / "8k.wav",
            "8k.wav: sampled at 8000 Hz, this model was trained at 16000 Hz; resample it first",
        ),
        (lambda d: d / "stereo.wav", r"stereo.wav: shape \(4800, 2\), one channel is needed"),
        (lambda d: d / "empty.wav", "empty.wav: no samples"),
        (lambda d: d / "nan.wav", "nan.wav: 4800 of 4800 samples are NaN or infinite"),
    ],
)
def test_bad_audio(asr: LegoNN, tmp_path: Path, make: Any, message: str) -> None:
    (tmp_path / "text.wav").write_text("no audio", encoding="utf-8")
    soundfile.write(tmp_path / "8k.wav", tone(), 8000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone(), tone()], 1), RATE)
    soundfile.write(tmp_path / "empty.wav", tone()[:0], RATE)
    soundfile.write(tmp_path / "nan.wav", tone() * np.nan, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=message):
        asr(make(tmp_path))


def test_all_bad_audio_is_reported_at_once(asr: LegoNN, wav: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "8k.wav", tone(), 8000)
    with pytest.raises(DataError) as error:
        asr([wav, tmp_path / "none.wav", np.zeros(0), tone(), tmp_path / "8k.wav", tone() * np.nan])
    places = [fault.split(": ")[0] for fault in error.value.faults]
    assert places == [str(tmp_path / "none.wav"), "input 2", str(tmp_path / "8k.wav"), "input 5"]


# -- text --------------------------------------------------------------------------------------------------------------


def test_text_and_ids_say_the_same(chain: LegoNN) -> None:
    """a b c are ids 2 3 4."""
    chain.double()  # batches against single texts
    text = chain("a b c", **LONG)
    assert (
        chain([2, 3, 4], **LONG)
        == chain((2, 3, 4), **LONG)
        == chain(torch.tensor([2, 3, 4]), **LONG)
        == chain(np.array([2, 3, 4]), **LONG)
        == text
    )
    assert chain(["a b c", "d"], **LONG) == [text, chain("d", **LONG)]
    assert chain([[2, 3, 4], torch.tensor([5])], **LONG) == [text, chain("d", **LONG)]


def test_an_array_of_ids_is_one_text(chain: LegoNN) -> None:
    """As for sound: only a list is several inputs, in LegoNN and in Text2Text."""
    for given in (torch.tensor([[2, 3, 4], [5, 5, 5]]), np.array([[2, 3]])):
        for ask in (chain, Text2Text(chain)):
            with pytest.raises(DataError, match=r"input 0: shape .* is no list of ids; give several texts as a list"):
                ask(given)
    assert chain(list(np.array([[2, 3, 4], [5, 5, 5]])), **LONG) == [chain("a b c", **LONG), chain("d d d", **LONG)]


def test_a_list_of_numpy_ids_is_one_text(chain: LegoNN) -> None:
    assert chain(list(np.array([2, 3, 4])), **LONG) == chain("a b c", **LONG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "input 0: empty text"),
        ("  \t", "input 0: empty text"),
        ([], "no inputs: the list is empty"),
        ([[]], "input 0: empty text"),
        ([2, 7], "input 0: id 7 is outside the vocabulary of 7 tokens"),
        (torch.tensor([-1, 2]), "input 0: id -1 is outside the vocabulary of 7 tokens"),
    ],
)
def test_bad_text(chain: LegoNN, text: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        chain(text)


@pytest.mark.parametrize("what", [None, 3.5, [["a", "b"]], torch.tensor(3), torch.tensor([2.5, 3.5])])
def test_what_is_no_text(chain: LegoNN, what: Any) -> None:
    """``str(None)`` is no sentence, and 2.5 no id."""
    with pytest.raises(DataError, match="input 0"):
        chain(what)


def test_all_bad_texts_are_reported_at_once(chain: LegoNN) -> None:
    with pytest.raises(DataError) as error:
        chain(["a", "", [99], "b", " "])
    assert error.value.faults == [
        "input 1: empty text",
        "input 2: id 99 is outside the vocabulary of 7 tokens",
        "input 4: empty text",
    ]


def test_unknown_tokens_warn(chain: LegoNN) -> None:
    with pytest.warns(
        UserWarning, match="input 1: not in the vocabulary, read as <unk>: zebra quagga"
    ) as caught:
        texts = chain(["a b", "a zebra b quagga"], **LONG)
    assert len(caught) == 1
    assert texts[1] == chain([2, 1, 3, 1], **LONG)


# -- marginals ---------------------------------------------------------------------------------------------------------


def test_marginals_go_into_a_chain_that_reads_them(chain: LegoNN) -> None:
    chain.double()
    marginals = chain.marginals(["a b c", "d"])
    assert chain[-1:](marginals, **LONG) == chain(["a b c", "d"], **LONG)
    first = chain.marginals(["a b c", "d"], "first")
    assert chain[1:](first, **LONG) == chain(["a b c", "d"], **LONG)
    assert torch.equal(chain.marginals(["a b c", "d"], 0).log_probs, first.log_probs)
    assert torch.equal(chain.marginals(["a b c", "d"], -1).log_probs, marginals.log_probs)
    torch.testing.assert_close(marginals.probs().sum(-1), torch.ones_like(marginals.log_probs[..., 0]))


def test_an_encoder_alone_answers_by_a_prefix_beam_or_its_best_path(chain: LegoNN) -> None:
    texts, alone = ["a b c", "d"], chain[:-1]
    assert alone("a b c", ctc_weight=0) == chain.marginals("a b c").greedy_text()
    assert alone(texts, ctc_weight=0) == chain.marginals(texts).greedy_texts()
    best, path = alone.generate(texts, beam_size=20), alone.generate(texts, ctc_weight=0)
    # Many alignments of a text together are likelier than any one of them.
    assert all(b[0].log_prob > p[0].log_prob and set(b[0].parts) == {"ctc"} for b, p in zip(best, path))
    assert alone(texts, beam_size=20) == [alone.text(b[0].ids) for b in best]


def test_greedy_text_merges_repeats_and_drops_blanks(chain: LegoNN) -> None:
    interface = chain.marginals("a").interface
    best = torch.tensor([[2, 2, 0, 2, 3, 3, 4], [0, 0, 4, 2, 2, 2, 2]])
    log_probs = torch.nn.functional.one_hot(best, 6).float().add(0.1).log()
    marginals = Marginals(log_probs, torch.tensor([7, 2]), interface)
    assert marginals.greedy_ids() == [[2, 2, 3, 4], []]
    assert marginals.greedy_texts() == ["x x y z", ""]
    assert marginals[0].greedy_text() == "x x y z"
    assert marginals[1].log_probs.shape == (1, 2, 6)
    with pytest.raises(
        DataError, match="greedy_text reads one item, these marginals hold 2; use greedy_texts"
    ):
        marginals.greedy_text()


def test_wrong_inputs_for_a_chain_that_reads_marginals(chain: LegoNN) -> None:
    with pytest.raises(
        DataError, match="decoder reads marginals: give Marginals, or put an encoder module before it"
    ):
        chain[-1:]("a b c")


def test_marginals_do_not_go_into_a_chain_that_reads_tokens_or_speech(chain: LegoNN, asr: LegoNN) -> None:
    marginals = chain.marginals("a b c")
    with pytest.raises(ValueError, match="first reads tokens"):
        chain(marginals)
    with pytest.raises(ValueError, match="recognizer reads speech"):
        asr(marginals)


def test_interfaces_that_are_not_there(chain: LegoNN, parts: Any, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no interface behind 'decoder'; there are first, middle"):
        chain.marginals("a", "decoder")
    with pytest.raises(DataError, match="no interface"):
        chain.marginals("a", 5)
    with pytest.raises(DataError, match=r"no interface in this chain \(decoder\)"):
        chain[-1:].marginals(chain.marginals("a"))
    data["modules"][1]["output"] = {"type": "states"}
    with pytest.raises(DataError, match="middle writes hidden states, no text; add the module that reads them"):
        parts.build({**data, "modules": data["modules"][1:2]}).generate(chain.marginals("a", "first"))


def test_marginals_of_nan_are_refused_or_answered(chain: LegoNN, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverged model: an error that says so, not an endless search and no IndexError."""
    marginals = chain.marginals("a b c")
    decoder, steps = chain.last, []
    step = decoder.step

    def counting(*args: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) > 100:
            pytest.fail("the search never ends")
        return step(*args)

    monkeypatch.setattr(decoder, "step", counting)
    marginals.log_probs = torch.full_like(marginals.log_probs, torch.nan)
    with pytest.raises(ValueError, match="(?i)nan|finite"):
        chain[-1:](marginals, maxlenratio=-3)


def test_an_encoder_of_nan_is_refused(chain: LegoNN, asr: LegoNN) -> None:
    """NaN is larger than anything, so its best path is blank: every answer would be an empty text."""
    for alone, given in ((chain[:-1], "a b c"), (asr[:-1], tone())):
        torch.nn.init.constant_(alone.last.interface.ctc_lo.bias, torch.nan)
        for ask in (alone, alone.marginals, alone.generate, lambda x, a=alone: a(x, ctc_weight=0)):
            with pytest.raises(DataError, match=f"{alone.names[-1]}: probabilities are NaN.*did training diverge"):
                ask(given)
        with pytest.raises(DataError, match="probabilities are NaN"):
            (Text2Text if isinstance(given, str) else Speech2Text)(alone).interfaces(given)


def test_nan_beyond_the_end_means_nothing(chain: LegoNN) -> None:
    marginals = chain.marginals(["a b c d", "d"])
    marginals.log_probs = marginals.log_probs.clone()
    marginals.log_probs[1, int(marginals.lengths[1]) :] = torch.nan
    marginals.require_numbers("Marginals")
    marginals.log_probs[1, int(marginals.lengths[1]) - 1] = torch.nan
    with pytest.raises(DataError, match="Marginals: probabilities are NaN"):
        marginals.require_numbers("Marginals")
