"""legonn transcribe and legonn translate: files and texts in, lines out, and no input takes the others down."""

from __future__ import annotations

import io
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn import DataError, LegoNN
from espnet2_legonn.bin.legonn import get_parser
from espnet2_legonn.inference import espnet as inference
from espnet2_legonn.inference.cues import clock
from espnet2_legonn.model.inputs import adapt_audio
from espnet2_legonn.search.options import BeamOptions
from tests.zoo.sounds import FS, speech_pair, tone, write
from tests.zoo.toys import build, change, pair

Run = Callable[..., tuple[int, str, str]]
# Untrained decoders end where they like; the encoder alone says something of every sound.
ENCODER = "recognizer"


@pytest.fixture
def asr(tmp_path: Path) -> Path:
    return build(speech_pair(), 2).save(tmp_path / "asr")


@pytest.fixture
def mt(tmp_path: Path) -> Path:
    return build(pair()).save(tmp_path / "mt")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three recordings in a folder, in the order of their names."""
    return [str(write(tmp_path / "audio" / f"{i}.wav", tone(0.2 + 0.1 * i, i))) for i in range(3)]


def texts(pack: Path, inputs: Any, *modules: str) -> list[str]:
    chain = LegoNN.from_pretrained(pack)
    return (chain[modules[0]] if modules else chain)(inputs)


# -- transcribe: what is read ------------------------------------------------------------------------------------------


def test_one_file_is_its_text(run: Run, asr: Path, files: list[str]) -> None:
    assert run("transcribe", files[1], "--model", asr) == (0, texts(asr, files[1]) + "\n", "")
    status, out, _ = run("transcribe", files[1], "--model", f"{asr}#{ENCODER}")
    assert (status, out) == (0, texts(asr, files[1], ENCODER) + "\n") and out.strip()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_several_files_in_their_order(run: Run, asr: Path, files: list[str], batch_size: int) -> None:
    given = [files[2], files[0], files[1]]
    status, out, err = run("transcribe", *given, "--model", f"{asr}#{ENCODER}", "--batch_size", batch_size)
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{f}\t{t}" for f, t in zip(given, texts(asr, given, ENCODER))]
    assert len(set(texts(asr, given, ENCODER))) > 1


def test_folders_and_patterns(run: Run, asr: Path, files: list[str], tmp_path: Path) -> None:
    deep = write(tmp_path / "audio" / "deep" / "er" / "UP.FLAC", tone())
    (tmp_path / "audio" / "notes.txt").write_text("not audio")
    strange = write(tmp_path / "a[1].wav", tone())

    def named(*what: str | Path) -> list[str]:
        status, out, err = run("transcribe", *what, "--model", asr)
        assert (status, err) == (0, "")
        return [line.split("\t")[0] for line in out.splitlines()]

    assert named(tmp_path / "audio") == [*files, str(deep)]
    assert named(tmp_path / "audio" / "*.wav", files[0]) == files, "each file once"
    assert named(tmp_path / "**" / "*.FLAC") == [str(deep)]
    assert named(strange, files[0]) == [str(strange), files[0]], "a file may be called like a pattern"


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_formats(run: Run, asr: Path, tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(0.5, 1))
    status, out, err = run("transcribe", path, "--model", f"{asr}#{ENCODER}")
    assert (status, err) == (0, "") and out == texts(asr, path, ENCODER) + "\n"


def test_another_rate_is_resampled_and_said_once(run: Run, asr: Path, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.wav", tone(0.5, i, 44100), 44100) for i in range(2)]
    status, out, err = run("transcribe", *paths, "--model", asr)
    assert status == 0 and len(out.splitlines()) == 2
    assert err == f"note: {paths[0]}: resampled from 44100 Hz to the 16000 Hz of the model (said once)\n"


@pytest.mark.parametrize("fs", [8000, 44100, 48000])
def test_a_resampled_sound_is_the_same_sound(tmp_path: Path, fs: int) -> None:
    recording = adapt_audio(write(tmp_path / "a.flac", tone(0.5, 1, fs), fs), FS)
    assert (recording.rate, recording.channels, recording.seconds) == (fs, 1, 0.5)
    assert recording.wave.dtype == np.float32 and len(recording.wave) == FS // 2
    inner = slice(400, -400)  # filters have no past at the ends
    assert np.abs(recording.wave - tone(0.5, 1))[inner].max() < 0.02


def test_channels_are_mixed_or_chosen(run: Run, asr: Path, tmp_path: Path) -> None:
    left, right = tone(0.4, 0), tone(0.4, 3)
    path = write(tmp_path / "stereo.wav", np.stack([left, right], 1))
    np.testing.assert_allclose(adapt_audio(path, FS).wave, (left + right) / 2, atol=1e-4)
    np.testing.assert_allclose(adapt_audio(path, FS, 1).wave, right, atol=1e-4)
    status, _, err = run("transcribe", path, path, "--model", asr)
    assert (status, err) == (0, f"note: {path}: 2 channels, mixed into one; --channel chooses one (said once)\n")
    assert run("transcribe", path, "--model", asr, "--channel", 0)[::2] == (0, "")
    status, out, err = run("transcribe", path, "--model", asr, "--channel", 2)
    assert (status, out, err) == (1, "", f"error: {path}: no channel 2; it has 2, the first is 0\n")


# -- transcribe: what is written ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_json(run: Run, asr: Path, files: list[str]) -> None:
    _, out, _ = run("transcribe", *files, "--model", asr, "--format", "json", "--beam_size", 3)
    chain = LegoNN.from_pretrained(asr)
    for line, path, seconds in zip(out.splitlines(), files, (0.2, 0.3, 0.4)):
        best = chain.generate(path, beam_size=3)[0][0]
        assert json.loads(line) == {
            "file": path,
            "text": chain.text(best.ids),
            "seconds": seconds,
            "score": pytest.approx(best.score, abs=1e-5),
            "scores": pytest.approx(best.parts, abs=1e-5),
            "interfaces": {ENCODER: chain.marginals(path).greedy_text()},
            **timed(chain, path, seconds),
        }


def timed(chain: LegoNN, path: str, seconds: float) -> dict[str, Any]:
    """What JSON says of words: an untrained decoder may say more of them than there are slots."""
    words = chain.answer(path, BeamOptions(beam_size=3), times=True)[0].words
    about = pytest.approx
    told = [
        {"word": w.text, "start": about(w.start, abs=6e-4), "end": about(max(w.start, min(w.end, seconds)), abs=6e-4),
         "confidence": about(w.confidence, abs=6e-5)}
        for w in words
    ]  # fmt: skip
    return {"words": told, "times": "approximate"} if words else {"words": []}


@pytest.mark.usefixtures("float64")
def test_srt(run: Run, asr: Path, tmp_path: Path) -> None:
    paths = [write(tmp_path / "0.wav", tone(0.25)), write(tmp_path / "1.wav", tone(0.0625, 1, FS))]
    _, out, _ = run("transcribe", *paths, "--model", f"{asr}#{ENCODER}", "--format", "srt")
    encoder, cue = LegoNN.from_pretrained(asr)[ENCODER], []
    for path, seconds in zip(paths, (0.25, 0.0625)):
        words = encoder.answer(path, times=True)[0].words
        assert words and " ".join(w.text for w in words) == encoder(path)
        cue.append(f"{clock(words[0].start)} --> {clock(min(words[-1].end, seconds))}\n{encoder(path)}")
    assert out == f"1\n{cue[0]}\n\n2\n{cue[1]}\n\n"


def test_options_of_the_search_arrive(run: Run, asr: Path, files: list[str]) -> None:
    words = ("transcribe", files[0], "--model", asr, "--format", "json")
    options = {"length_penalty": 0.3, "beam_size": 2, "ctc_weight": 0.7, "temperature": 2.0}
    _, out, _ = run(*words, *(w for name, value in options.items() for w in (f"--{name}", value)))
    best = LegoNN.from_pretrained(asr).generate(files[0], **options)[0][0]
    assert json.loads(out)["score"] == pytest.approx(best.score, abs=1e-5)
    assert json.loads(out)["scores"] == pytest.approx(best.parts, abs=1e-5)


def test_nbest_in_json_carries_the_parts(run: Run, asr: Path, files: list[str]) -> None:
    _, out, _ = run("transcribe", files[0], "--model", asr, "--format", "json", "--nbest", 3)
    chain = LegoNN.from_pretrained(asr)
    found, wanted = json.loads(out), chain.generate(files[0], nbest=3)[0]
    assert [n["text"] for n in found["nbest"]] == [chain.text(h.ids) for h in wanted] and len(wanted) == 3
    for one, best in zip(found["nbest"], wanted):
        assert one["score"] == pytest.approx(best.score, abs=1e-5)
        assert one["scores"] == pytest.approx(best.parts, abs=1e-5) and set(best.parts) == {"decoder", "ctc"}
    assert {k: found[k] for k in ("text", "score", "scores")} == found["nbest"][0]


def test_nbest_in_text_is_a_list_as_moses_writes_it(run: Run, mt: Path) -> None:
    _, out, _ = run("translate", "k l m", "", "n", "--model", mt, "--nbest", 2)
    lines = [line.split(" ||| ") for line in out.splitlines()]
    assert [line[0] for line in lines] == ["0", "0", "1", "2", "2"] and all(len(line) == 4 for line in lines)
    chain = LegoNN.from_pretrained(mt)
    for line, best in zip(lines[:2], chain.generate("k l m", nbest=2)[0]):
        assert line[1] == chain.text(best.ids) and float(line[3]) == pytest.approx(best.score, abs=1e-5)
        decoder, ctc = re.fullmatch(r"decoder= (\S+) ctc= (\S+)", line[2]).groups()  # type: ignore[union-attr]
        assert {"decoder": float(decoder), "ctc": float(ctc)} == pytest.approx(best.parts, abs=1e-5)


def test_an_impossible_part_is_null_in_json(run: Run, asr: Path, files: list[str]) -> None:
    """More tokens than CTC has slots for: the decoder says them, CTC finds no way to."""
    words = ("transcribe", files[0], "--model", asr, "--format", "json", "--nbest", 2, "--ctc_weight", 0.0)
    assert "Infinity" not in run(*words)[1]
    from espnet2_legonn.bin.commands.lines import _number

    assert (_number(float("-inf")), _number(-1.23456789)) == (None, -1.234568)


def test_output_file(run: Run, asr: Path, files: list[str], tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.txt"
    assert run("transcribe", files[0], "--model", asr, "--output", target) == (0, "", "")
    assert target.read_text(encoding="utf-8") == texts(asr, files[0]) + "\n"


def test_output_never_replaces_an_input(run: Run, asr: Path, mt: Path, files: list[str], tmp_path: Path) -> None:
    before = Path(files[0]).read_bytes()
    status, _, err = run("transcribe", files[0], "--model", asr, "-o", files[0])
    assert status == 2 and f"{files[0]}: is an input; choose another --output" in err
    assert Path(files[0]).read_bytes() == before
    source = tmp_path / "a.txt"
    source.write_text("k l\n")
    assert run("translate", "-f", source, "--model", mt, "-o", source)[0] == 2 and source.read_text() == "k l\n"
    status, _, err = run("transcribe", files[0], "--model", asr, "-o", tmp_path)
    assert status == 2 and f"{tmp_path}: cannot be written (Is a directory); choose another --output" in err


# -- transcribe: what goes wrong ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_bad_files_are_named_and_the_others_are_done(run: Run, asr: Path, files: list[str], tmp_path: Path) -> None:
    bad = {
        "text.wav": "Format not recognised",
        "empty.wav": "no samples",
        "nan.wav": "samples are NaN or infinite",
        "gone.wav": "cannot be read as audio (no such file); give wav, flac, mp3 or ogg",
        "raw.raw": "cannot be read as audio",
        "none*.wav": "no file is called like that",
        "nothing": "it has no file ending in .wav .flac",
    }
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "raw.raw").write_bytes(bytes(100))
    (tmp_path / "nothing").mkdir()
    write(tmp_path / "empty.wav", tone()[:0])
    import soundfile

    soundfile.write(tmp_path / "nan.wav", tone() * np.nan, FS, subtype="FLOAT")
    mixed = [files[0], *(tmp_path / name for name in bad), files[1]]
    status, out, err = run("transcribe", *mixed, "--model", asr)
    assert status == 1
    assert out.splitlines() == [f"{f}\t{t}" for f, t in zip(files, texts(asr, files[:2]))]
    for name, reason in bad.items():
        assert re.search(rf"^error: {re.escape(str(tmp_path / name))}: .*{re.escape(reason)}", err, re.M), (name, err)
    assert len(err.splitlines()) == len(bad) and "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("[enforce fail] no memory\n at line"), "[enforce fail] no memory; if memory was short, split"),
        (MemoryError(), "MemoryError; if memory was short, split the input or lower --beam_size"),
        (DataError(["probabilities are NaN", "so bad"]), "probabilities are NaN\nerror: {path}: so bad"),
    ],
)
def test_a_batch_that_fails_loses_only_the_bad_one(
    run: Run, asr: Path, files: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    answers, bad = inference.ChainInference.answers, len(tone(0.3))

    def failing(self: Any, inputs: list[Any]) -> Any:
        if bad in map(len, inputs):
            raise error
        return answers(self, inputs)

    monkeypatch.setattr(inference.ChainInference, "answers", failing)
    status, out, err = run("transcribe", *files, "--model", asr)
    assert status == 1 and f"error: {files[1]}: {message.format(path=files[1])}" in err
    assert [line.split("\t")[0] for line in out.splitlines()] == [files[0], files[2]]


def test_longer_than_in_training_is_said_by_how_much(run: Run, tmp_path: Path, files: list[str]) -> None:
    chain = build(speech_pair())
    chain.mods[ENCODER].interface.seen.update(torch.tensor([4]), torch.tensor([2]))
    pack = chain.save(tmp_path / "asr")
    status, _, err = run("transcribe", files[2], "--model", pack)
    assert status == 0
    assert err == (
        f"note: {files[2]}: 5 slots behind recognizer, at most 4 were seen in training (1.2 times); the text is not to "
        "be trusted, split the input\n"
    )
    long = write(tmp_path / "long.wav", tone(4))
    _, _, err = run("transcribe", long, long, files[0], "--model", pack)
    assert err.count(f"note: {long}: 50 slots behind recognizer, at most 4 were seen in training (12.5 times)") == 1
    assert "note: recognizer: 1 of 2 inputs reached the maximum of 40 slots; what lies beyond is lost" in err


# -- models ------------------------------------------------------------------------------------------------------------


def test_parts_are_plugged_and_what_differs_is_a_note(run: Run, tmp_path: Path, files: list[str]) -> None:
    a, b = build(speech_pair(), 1), build(pair(), 2)
    a.mods[ENCODER].interface.seen.update(torch.tensor([300]), torch.tensor([100]))
    b.mods["decoder"].input.seen.update(torch.tensor([200]), torch.tensor([100]))
    with pytest.warns(UserWarning, match="slots per token"):
        text = (a[:1] + b[1:])(files[0])
    packs = a.save(tmp_path / "a"), b.save(tmp_path / "b")
    parts = ("--model", f"{packs[0]}#recognizer", "--model", f"{packs[1]}#decoder")
    status, out, err = run("transcribe", files[0], *parts)
    assert (status, out) == (0, text + "\n")
    assert "note: recognizer -> decoder: slots per token: 3.00 are produced, 2.00 were seen in training" in err


def test_parts_that_do_not_fit(run: Run, asr: Path, tmp_path: Path, files: list[str]) -> None:
    other = build(pair("a b c")).save(tmp_path / "other")
    out = tmp_path / "kept.txt"
    out.write_text("before")
    parts = ("--model", f"{asr}#recognizer", "--model", f"{other}#decoder")
    status, _, err = run("transcribe", files[0], *parts, "-o", out)
    assert status == 2 and "vocabulary size: 7 is produced, 6 is expected" in err
    assert out.read_text() == "before", "nothing is overwritten before there is an answer"


def test_the_other_command_is_named(run: Run, asr: Path, mt: Path, files: list[str]) -> None:
    assert "take Text2Text (legonn translate) for texts" in run("transcribe", files[0], "--model", mt)[2]
    status, _, err = run("translate", "k", "--model", asr)
    assert status == 2 and "take Speech2Text (legonn transcribe) for speech" in err


# -- translate ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_texts_of_the_command_line(run: Run, mt: Path) -> None:
    assert run("translate", "k l m", "n", "--model", mt) == (
        0,
        "".join(t + "\n" for t in texts(mt, ["k l m", "n"])),
        "",
    )


@pytest.mark.usefixtures("float64")
def test_lines_stay_parallel(run: Run, mt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty and blank lines, other line ends, separators that are no line ends, no newline at the end."""
    source = tmp_path / "a.txt"
    source.write_bytes("k l m\n\n \t\r\nn k\r\nl\u2028m\nm".encode())
    status, out, err = run("translate", "--file", source, "--model", f"{mt}#encoder", "--batch_size", 2)
    wanted = texts(mt, ["k l m", "n k", "l m", "m"], "encoder")
    assert (status, err) == (0, "")
    assert out.split("\n") == [wanted[0], "", "", *wanted[1:], ""] and any(wanted)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes()), "utf-8", newline="\n"))
    assert run("translate", "--model", f"{mt}#encoder")[1] == out


def test_translate_json(run: Run, mt: Path) -> None:
    _, out, _ = run("translate", "k l m", "", "--model", mt, "--format", "json")
    chain = LegoNN.from_pretrained(mt)
    best = chain.generate("k l m")[0][0]
    first, second = map(json.loads, out.splitlines())
    assert first == {
        "source": "k l m",
        "text": chain.text(best.ids),
        "score": pytest.approx(best.score, abs=1e-5),
        "scores": pytest.approx(best.parts, abs=1e-5),
        "interfaces": {"encoder": chain.marginals("k l m").greedy_text()},
    }
    assert second == {"source": "", "text": "", "score": None, "scores": {}, "interfaces": {}}


@pytest.mark.usefixtures("float64")
def test_raw_text_is_normalised_and_unknown_words_are_noted(run: Run, tmp_path: Path) -> None:
    pack = build(change(pair(), "vocabs.src.normalization", "lc.rm")).save(tmp_path / "mt")
    words = ("translate", "K, L: m!", "k zebra", "...", "--model", f"{pack}#encoder")
    status, out, err = run(*words)
    assert status == 0 and out == "".join(t + "\n" for t in [*texts(pack, ["k l m", [2, 1]], "encoder"), ""])
    assert err == "note: text 2: not in the vocabulary, read as <unk>: zebra\n"


@pytest.mark.usefixtures("float64")
def test_a_text_that_fails_leaves_an_empty_line(run: Run, mt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = inference.ChainInference.answers

    def failing(self: Any, inputs: list[Any]) -> Any:
        if [5] in inputs:
            raise RuntimeError("bad")
        return answers(self, inputs)

    monkeypatch.setattr(inference.ChainInference, "answers", failing)
    status, out, err = run("translate", "k l", "n", "m", "--model", f"{mt}#encoder")
    first, last = texts(mt, ["k l", "m"], "encoder")
    assert (status, out) == (1, f"{first}\n\n{last}\n") and err.startswith("error: text 2: bad; if memory was short")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["k", "-f", "a.txt"], "texts were given and --file, too: choose one"),
        (["-f", "gone.txt"], "gone.txt: no such file"),
        (["-f", "latin.txt"], "latin.txt:2: not UTF-8 (byte 3); convert the file with iconv"),
    ],
)
def test_what_cannot_be_translated(
    run: Run, mt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"k\nl m\xfc\n".replace(b" m", b" "))
    status, out, err = run("translate", *words, "--model", mt)
    assert (status, out) == (2, "") and message in err


def test_standard_input_that_is_no_text(run: Run, mt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"k\n\xff\xfe\n"), "utf-8"))
    status, _, err = run("translate", "--model", mt)
    assert status == 2 and "standard input:2: not UTF-8 (byte 1); convert" in err


@pytest.mark.usefixtures("float64")
def test_somebody_at_the_keyboard_has_each_answer_at_once(
    run: Run, mt: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

        def __iter__(self) -> Any:
            for line in ("k l\n", "n\n"):
                heard.append(capsys.readouterr().out)
                yield line

    monkeypatch.setattr(sys, "stdin", Keyboard())
    _, out, _ = run("translate", "--model", f"{mt}#encoder")
    first, second = texts(mt, ["k l", "n"], "encoder")
    assert heard == ["", first + "\n"] and out == second + "\n"


# -- the command itself ------------------------------------------------------------------------------------------------


def test_a_progress_bar_with_the_time_left_for_those_who_look(
    run: Run, asr: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    _, out, _ = run("transcribe", *files, "gone.wav", "--model", asr, "--batch_size", 1)
    bars = [bar for bar in re.split(r"[\r\n]+", screen.getvalue()) if "/4 [" in bar]
    assert any(re.search(r"\| [123]/4 \[\d\d:\d\d<\d\d:\d\d,", bar) for bar in bars), screen.getvalue()
    assert "\nerror: gone.wav" in screen.getvalue().replace("\r", "\n")
    assert [line.split("\t")[0] for line in out.splitlines()] == files


@pytest.mark.parametrize("name", ["transcribe", "translate"])
def test_help_is_short_quick_and_has_an_example(name: str) -> None:
    parser = get_parser(name)
    command = parser._subparsers._group_actions[0].choices[name]  # type: ignore[union-attr]
    search = next(group for group in command._action_groups if group.title == "search")
    options = [a for a in command._actions if a.option_strings and a.dest != "help"]
    assert all(a.help for a in options) and 5 <= len(search._group_actions) <= 13
    options = [a for a in options if a not in search._group_actions]
    assert len(options) <= 13 and all(a.help for a in options)
    code = (
        f"from espnet2_legonn.bin.legonn import get_parser as g; g({name!r}); import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    example = command.epilog.split("example: ")[1]
    words = example[example.index("legonn ") :].split()[1:]
    assert parser.parse_args(words).command == name


def test_as_a_process_of_its_own(mt: Path) -> None:
    """Umlauts through a pipe whatever the locale, and an answer leaves before the next text has come."""
    command = [sys.executable, "-W", "error", "-m", "espnet2_legonn.bin.legonn", "translate", "--batch_size", "1"]
    first, second = (texts(mt, text, "encoder") for text in ("k l m", [5, 1]))
    env = {**os.environ, "LC_ALL": "C", "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [*command, "--model", f"{mt}#encoder"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        process.stdin.write(b"k l m\n")
        process.stdin.flush()
        assert select.select([process.stdout], [], [], 60)[0], "no answer"
        assert process.stdout.readline().decode() == first + "\n"
        out, err = process.communicate("n ü\n".encode(), timeout=60)
    assert (process.returncode, out.decode()) == (0, second + "\n")
    assert "read as <unk>: ü" in err.decode()
