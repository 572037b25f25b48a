"""Times of words against those that a synthesiser tells: the shipped encoder, and voices it never heard."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from espnet2_legonn import LegoNN
from espnet2_legonn.inference.segments import segments
from espnet2_legonn.model.timeline import Spans, Timeline
from espnet2_legonn.search.words import align

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [
    "the old man gives a red book to the child", "there is a knife on our bridge", "my brother sees the small house",
    "he goes to a kitchen sometimes", "the woman buys bread in the town today", "a tired dog sleeps under the table",
]  # fmt: skip
VOICES = ("m4", "f4", "rob", "linda", "shelby", "edward")  # of the demo's test set alone
WORD = 1
pytestmark = pytest.mark.slow


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int), ("sample", ctypes.c_int), ("user", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def spoken() -> list[tuple[np.ndarray, str, list[float]]]:
    """Each text at 16 kHz, and when each of its words begins, in seconds."""
    pytest.importorskip("espeakng_loader")
    import soxr

    sys.path.insert(0, str(ROOT / "egs2" / "mini_legonn" / "legonn1" / "local"))
    try:
        from mini import speech
    finally:
        sys.path.pop(0)
    begins: dict[int, float] = {}

    class Telling(speech.Espeak):
        def _receive(self, samples, count, events):
            event = ctypes.cast(events, ctypes.POINTER(_Event))
            for i in range(10_000):
                if not event[i].type:
                    break
                if event[i].type == WORD:
                    begins[event[i].text_position] = event[i].audio_position / 1000
            return super()._receive(samples, count, events)

    synthesiser, found = Telling(), []
    for i, (text, voice) in enumerate(zip(TEXTS, VOICES)):
        begins.clear()
        pcm, rate = synthesiser.say(text, f"en-us+{voice}", 165, 50, 50)
        wave = speech.add_noise(soxr.resample(pcm / 32768.0, rate, 16000), 25, i).astype(np.float32)
        places = [sum(len(w) + 1 for w in text.split()[:n]) + 1 for n in range(len(text.split()))]
        found.append((wave, text, [begins.get(place, np.nan) for place in places]))
    return found


@pytest.fixture(scope="module")
def encoder() -> LegoNN:
    return LegoNN.from_pretrained(next((ROOT / "packs").glob("asr_encoder-*.zip")))


def test_words_begin_where_they_were_said(encoder: LegoNN, spoken: list[tuple[np.ndarray, str, list[float]]]) -> None:
    """Median and 90 % of the error, with the text given: docs/speech.md has those of 60 sentences."""
    errors, vocab = [], encoder.require_text()
    for wave, text, begins in spoken:
        batch = encoder.batch(wave)
        with Timeline(encoder) as timeline:
            found, _, _ = encoder.encode(*batch)
        spans = timeline.spans(batch[1], found)
        assert isinstance(spans, Spans) and spans.exact
        words = align(list(found.values())[-1], spans, vocab.encode(text), vocab)
        assert [word.text for word in words] == text.split()
        errors += [abs(word.start - begin) for word, begin in zip(words, begins) if np.isfinite(begin)]
    assert len(errors) > 30
    assert np.median(errors) < 0.06 and np.quantile(errors, 0.9) < 0.3


@pytest.mark.parametrize("detector", ["energy", "silero"])
def test_sentences_are_found_in_a_recording(detector: str, spoken: list[tuple[np.ndarray, str, list[float]]]) -> None:
    if detector == "silero":
        pytest.importorskip("silero_vad")
    pause = 1e-3 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    pieces = [piece for wave, _, _ in spoken for piece in (wave, pause)]
    wave, ends = np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces]) / 16000
    found = segments(wave, 16000, 4.0, detector)
    starts = [0.0, *ends[1:-1:2]]
    assert len(found) == len(starts)
    for (start, end), wanted, last in zip(found, starts, ends[::2]):
        assert start == pytest.approx(wanted, abs=0.25) and end == pytest.approx(last, abs=0.4)
