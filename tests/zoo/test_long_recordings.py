"""Long recordings: where they are cut, their parts in order, subtitles and tables of words."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from espnet2_legonn import ConfigError, LegoNN
from espnet2_legonn.bin.commands.lines import Lines
from espnet2_legonn.inference import segments
from espnet2_legonn.inference.cues import LINE, LONGEST, Spoken, clock, ctm, cues, srt, vtt
from espnet2_legonn.search.words import Word
from tests.zoo.sounds import FS, speech_pair, tone, write
from tests.zoo.toys import build, change

Run = Callable[..., tuple[int, str, str]]
SILERO = importlib.util.find_spec("silero_vad") is not None


def recording(*parts: float) -> np.ndarray:
    """Tones and silences in turn, of so many seconds, in faint noise."""
    sounds = [np.zeros(round(s * FS), np.float32) if i % 2 else tone(s, i) for i, s in enumerate(parts)]
    noise = np.random.default_rng(0).standard_normal(sum(map(len, sounds)))
    return (np.concatenate(sounds) + 1e-3 * noise).astype(np.float32)


# -- where recordings are cut ------------------------------------------------------------------------------------------


def test_short_recordings_stay_whole() -> None:
    wave = recording(1.0, 0.5, 1.0)
    assert segments.segments(wave, FS, 2.5, "energy") == [(0.0, 2.5)]
    assert segments.segments(wave, FS, 1.0, "none") == [(0.0, 2.5)]


def test_sound_is_found_by_its_energy() -> None:
    wave = recording(2.0, 3.0, 2.0, 1.0, 2.0)
    found = segments.segments(wave, FS, 3.0, "energy")
    np.testing.assert_allclose(found, [(0, 2), (5, 7), (8, 10)], atol=segments.MARGIN + 0.06)
    assert all(end - start <= 3.0 for start, end in found)


def test_neighbours_are_one_part_while_it_is_short_enough() -> None:
    spans = [(0.0, 2.0), (2.5, 4.0), (4.2, 6.0), (9.0, 10.0), (10.5, 11.0)]
    assert segments.joined(spans, 4.0) == [(0.0, 4.0), (4.2, 6.0), (9.0, 11.0)], "a long silence parts them"
    assert segments.joined(spans, 7.0) == [(0.0, 6.0), (9.0, 11.0)]
    assert segments.joined([], 4.0) == []


def test_long_speech_is_cut_where_it_is_quietest() -> None:
    wave = tone(10.0)
    wave[round(3.5 * FS) : round(3.6 * FS)] *= 0.3
    wave[round(7.0 * FS) : round(7.1 * FS)] *= 0.3
    found = segments.segments(wave, FS, 5.0, "energy")
    assert [round(start, 1) for start, _ in found] == pytest.approx([0.0, 3.5, 7.0], abs=0.21)
    assert found[-1][1] == pytest.approx(10.0, abs=0.03) and all(end - start <= 5.0 for start, end in found)


@pytest.mark.parametrize("wave", [np.zeros(10 * FS, np.float32), np.full(10 * FS, 0.1, np.float32)])
def test_nothing_but_one_level(wave: np.ndarray) -> None:
    found = segments.segments(wave, FS, 4.0, "energy")
    assert all(0 <= start < end <= 10 and end - start <= 4.0 for start, end in found)


def test_frames_of_no_whole_number_of_samples_do_not_drift() -> None:
    """At 11,025 Hz a frame of 20 ms has 220 samples, and not 220.5: ten minutes are a second and more too long."""
    rate, at = 11025, range(10, 600, 10)
    wave = np.random.default_rng(0).standard_normal(rate * 600) * 1e-4
    for second in at:
        wave[second * rate : (second + 2) * rate] += tone(2.0, 1, rate)
    found = segments.segments(wave.astype(np.float32), rate, 20.0, "energy")
    assert [start for start, _ in found] == pytest.approx([*at], abs=segments.MARGIN + 0.06)


@pytest.mark.parametrize("longest", [0.0, 0.2, -3.0, float("nan")])
def test_parts_have_some_length(longest: float) -> None:
    with pytest.raises(ConfigError, match="longest: .* give at least 0.5 s"):
        segments.segments(tone(5.0), FS, longest, "energy")


def test_a_detector_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'silent' is not one of auto, silero, energy, none"):
        segments.segments(tone(9.0), FS, 4.0, "silent")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'espnet2_legonn\[vad\]', or take energy"):
        segments.segments(tone(9.0), FS, 4.0, "silero")
    assert segments.segments(tone(9.0), FS, 4.0, "auto"), "by energy"


@pytest.mark.skipif(not SILERO, reason="silero-vad is not installed")
@pytest.mark.parametrize("rate", [16000, 8000, 22050])
def test_silero_hears_speech_and_no_tones(rate: int) -> None:
    assert segments.segments(recording(6.0, 2.0, 4.0), FS, 5.0, "silero") == []


def test_the_longest_part_is_what_the_model_heard() -> None:
    chain = build(speech_pair())  # two steps of 40 ms a slot
    assert segments.longest_part(chain) == segments.USUAL
    chain.first.interface.contract.longest.fill_(125)  # type: ignore[union-attr]
    assert segments.longest_part(chain) == pytest.approx(125 * 2 * 0.04, abs=0.01)
    chain.first.interface.contract.longest.fill_(3)  # type: ignore[union-attr]
    assert segments.longest_part(chain) == segments.LEAST


# -- subtitles ---------------------------------------------------------------------------------------------------------


def said(text: str, start: float = 0.0, each: float = 0.5, gap: float = 0.0) -> list[Word]:
    return [Word(w, start + i * (each + gap), start + i * (each + gap) + each, 0.9) for i, w in enumerate(text.split())]


def test_cues_are_short_and_end_with_speech() -> None:
    words = said("one two three", 1.0) + said("after a while", 10.0) + said("word " * 40, 20.0)
    found = cues([Spoken(0.0, 60.0, "unused", words)])
    assert [(c.start, c.end, c.text) for c in found[:2]] == [(1.0, 2.5, "one two three"), (10.0, 11.5, "after a while")]
    for cue in found:
        assert cue.end - cue.start <= LONGEST and all(len(line) <= LINE for line in cue.text.split("\n"))
        assert cue.text.count("\n") <= 1
    assert " ".join(c.text.replace("\n", " ") for c in found).split() == [w.text for w in words]
    assert found == sorted(found) and all(a.end <= b.start for a, b in zip(found, found[1:]))


def test_lines_are_as_equal_as_can_be() -> None:
    (cue,) = cues([Spoken(0, 5, "", said("a rather long sentence that does not fit into one line", each=0.1))])
    assert cue.text == "a rather long sentence that\ndoes not fit into one line"


@pytest.mark.parametrize("sizes", [(30, 25, 27), (41, 2, 2, 39), (10, 10, 60, 10), (8, 7, 6, 5) * 9])
def test_no_line_is_longer_than_can_be_read(sizes: tuple[int, ...]) -> None:
    words = [Word("a" * n, 0.2 * i, 0.2 * i + 0.1, 1.0) for i, n in enumerate(sizes)]
    found = cues([Spoken(0, 9, "", words)])
    lines = [line for cue in found for line in cue.text.split("\n")]
    assert all(len(line) <= LINE or " " not in line for line in lines) and max(c.text.count("\n") for c in found) < 2
    assert " ".join(lines).split() == [w.text for w in words]


def test_parts_without_times_are_one_cue() -> None:
    found = cues([Spoken(1.0, 2.0, "without times"), Spoken(3.0, 4.0, "")])
    assert srt(found, 7) == "7\n00:00:01,000 --> 00:00:02,000\nwithout times\n\n"
    assert cues([]) == [] and vtt([]) == ""


def test_srt_of_hours() -> None:
    assert [clock(s) for s in (0, 59.9996, 3599.9, 36000 + 61.001)] == [
        "00:00:00,000",
        "00:01:00,000",
        "00:59:59,900",
        "10:01:01,001",
    ]


def test_vtt_escapes_its_marks() -> None:
    assert vtt(cues([Spoken(0.0, 3661.5, "a < b & c")])) == "00:00:00.000 --> 01:01:01.500\na &lt; b &amp; c\n\n"


def test_ctm_is_a_table() -> None:
    assert ctm("a/my talk.wav", said("hi you", 1.0)) == "my_talk 1 1.00 0.50 hi 0.900\nmy_talk 1 1.50 0.50 you 0.900\n"
    assert ctm("x.wav", said("hi"), channel=1).split()[1] == "2"


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def asr(tmp_path: Path) -> Path:
    return build(change(speech_pair(), "modules.0.length_control", None), 7)["recognizer"].save(tmp_path / "asr")


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return write(tmp_path / "talk.wav", recording(2.0, 3.0, 2.0, 1.0, 2.0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_parts_are_decoded_and_joined(run: Run, asr: Path, talk: Path, tmp_path: Path, batch_size: int) -> None:
    options = ("--model", asr, "--vad", "energy", "--longest", 3.0, "--batch_size", batch_size)
    wave = recording(2.0, 3.0, 2.0, 1.0, 2.0)
    status, out, err = run("transcribe", talk, write(tmp_path / "b.wav", wave), *options, "--format", "json")
    assert (status, err) == (0, "")
    chain, found = LegoNN.from_pretrained(asr), json.loads(out.splitlines()[0])
    spans = segments.segments(wave, FS, 3.0, "energy")
    assert out.splitlines()[1] == out.splitlines()[0].replace(str(talk), str(tmp_path / "b.wav")) and len(spans) == 3
    texts = [chain(wave[round(a * FS) : round(b * FS)]) for a, b in spans]
    assert [part["text"] for part in found["parts"]] == texts and found["text"] == " ".join(filter(None, texts))
    assert [(part["start"], part["end"]) for part in found["parts"]] == [pytest.approx(s, abs=1e-3) for s in spans]
    assert [w["word"] for w in found["words"]] == found["text"].split() and found["times"] == "exact"
    for (start, end), text in zip(spans, texts):
        inside = [w for w in found["words"] if start - 1e-3 <= w["start"] and w["end"] <= end + 1e-3]
        assert [w["word"] for w in inside] == text.split()


def test_subtitles_have_the_times_of_the_whole(run: Run, asr: Path, talk: Path) -> None:
    options = ("transcribe", talk, "--model", asr, "--vad", "energy", "--longest", 3.0, "--format")
    _, found, _ = run(*options, "vtt")
    assert found.startswith("WEBVTT\n\n00:00:0") and " --> 00:00:0" in found
    _, one, _ = run(*options, "srt")
    starts = [float(s.replace(",", ".")) for s in re.findall(r"00:00:(\S+) -->", one)]
    assert starts == sorted(starts) and {1 for s in starts if s > 7.5} and one.startswith("1\n")
    _, table, _ = run(*options, "ctm")
    rows = [line.split() for line in table.splitlines()]
    assert rows and all(row[:2] == ["talk", "1"] and len(row) == 6 for row in rows)
    begins = [float(row[2]) for row in rows]
    assert begins == sorted(begins) and begins[-1] > 7.5


def test_formats_that_cannot_be(run: Run, asr: Path, talk: Path) -> None:
    for form in ("srt", "vtt", "ctm"):
        status, _, err = run("transcribe", talk, "--model", asr, "--format", form, "--nbest", 2)
        assert status == 2 and f"--format {form} has room for one answer; leave --nbest out" in err
    status, _, err = run("transcribe", talk, "--model", asr, "--format", "ctm", "--backend", "onnx")
    assert status == 2 and "an export says no times of words; take --backend torch" in err


def test_hotwords_arrive(run: Run, asr: Path, talk: Path, tmp_path: Path) -> None:
    word = LegoNN.from_pretrained(asr).require_text().tokens[2]
    plain, told = (
        run("transcribe", talk, "--model", asr, *more)[1] for more in ((), ("--hotwords", word, "--hotword_weight", 9))
    )
    assert told.split().count(word) > plain.split().count(word)
    (tmp_path / "words.txt").write_text(f"{word}\n\n")
    named = run("transcribe", talk, "--model", asr, "--hotwords", tmp_path / "words.txt", "--hotword_weight", 9)
    assert named[1] == told
    status, _, err = run("transcribe", talk, "--model", asr, "--hotwords", "tokyo")
    assert status == 1 and "'tokyo' cannot be spelled" in err


def test_options_of_the_search_from_a_file(run: Run, asr: Path, talk: Path, tmp_path: Path) -> None:
    word, config = LegoNN.from_pretrained(asr).require_text().tokens[2], tmp_path / "decode.yaml"
    config.write_text(f"hotwords: [{word}]\nhotword_weight: 9\npenalty: 0.5\nnbest: 2\n")
    options = ("transcribe", talk, "--model", asr, "--format", "json")
    found = json.loads(run(*options, "--config", config)[1])
    assert len(found["nbest"]) == 2 and set(found["scores"]) == {"ctc", "hotwords", "length_bonus"}
    one = json.loads(run(*options, "--config", config, "--nbest", 1)[1])
    assert "nbest" not in one and one["text"] == found["text"], "what is given wins"
    config.write_text("hotword: x\n")
    status, _, err = run(*options, "--config", config)
    assert status == 2 and "'hotword' is no option of the search (did you mean 'hotwords'?)" in err


def test_a_silent_recording_is_a_file_of_subtitles_too() -> None:
    lines = Lines("vtt", several=True)
    assert [lines.speech("a.wav", 1.0, []), lines.speech("b.wav", 1.0, [])] == ["WEBVTT\n\n", ""]
    assert Lines("srt").speech("a.wav", 1.0, []) == ""
