"""Nothing that a stranger sends takes more than its share: rates, lengths, texts, pictures, time, names of the page."""

from __future__ import annotations

import asyncio
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from espnet2_legonn.bin.legonn import main
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, LegoNNError
from espnet2_legonn.inference import plot
from espnet2_legonn.model import inputs
from espnet2_legonn.model.inputs import adapt_audio
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.model.parts import SpeechConfig, SpeechInput, waves
from espnet2_legonn.model.transformer import BodyConfig
from espnet2_legonn.page import model
from espnet2_legonn.page.hosts import HostCheck, is_ours
from espnet2_legonn.page.shelf import DECODER, ENCODER, open_shelf, public
from espnet2_legonn.page.worker import Worker
from tests.zoo.hostile import reseal
from tests.zoo.sounds import FS, speech_pair, tone, write
from tests.zoo.test_trust import limited
from tests.zoo.toys import build, pair

# -- sound -------------------------------------------------------------------------------------------------------------


def test_an_odd_rate_takes_no_memory(tmp_path: Path) -> None:
    """A filter for each phase of 44101:16000 would take gigabytes."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 8000), 44101)
    code = f"print(len(espnet2_legonn.model.inputs.adapt_audio({str(tmp_path / 'a.wav')!r}, 16000).wave))"
    done = limited("soundfile, soxr, espnet2_legonn.model.inputs, espnet2_legonn.data.audio", code, 200)
    assert done.stdout.strip() in ("2902", "2903"), done.stderr[-500:]


@pytest.mark.parametrize("rate", [1, 999, 768_001, 999_983, 2**31 - 1])
def test_rates_that_no_recorder_has(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), rate)
    with pytest.raises(DataError, match=f"a.wav: sampled at {rate} Hz; 1000 to 768000 Hz are read"):
        adapt_audio(tmp_path / "a.wav", FS)


def test_recordings_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the header says, no more is decoded than is allowed."""
    soundfile.write(tmp_path / "a.flac", np.zeros(8000 * 61), 8000)
    with pytest.raises(DataError, match="a.flac: longer than 60 s; give a part of it"):
        adapt_audio(tmp_path / "a.flac", FS, most_seconds=60)
    assert len(adapt_audio(tmp_path / "a.flac", FS, most_seconds=61).wave) == 61 * FS
    monkeypatch.setattr(inputs, "MAX_SAMPLES", 100_000)
    with pytest.raises(DataError, match="a.flac: more than 100000 samples; split it"):
        adapt_audio(tmp_path / "a.flac", FS)
    soundfile.write(tmp_path / "b.wav", np.zeros(90_000), 8000)
    with pytest.raises(DataError, match="b.wav: 11 s at 16000 Hz are more than 100000 samples"):
        adapt_audio(tmp_path / "b.wav", FS)


def test_a_header_that_promises_days(tmp_path: Path) -> None:
    """What is there is read: no memory is taken for what is told."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(8000), 8000)
    content = bytearray(path.read_bytes())
    head = struct.unpack(">Q", content[18:26])[0]
    content[18:26] = struct.pack(">Q", head | (1 << 36) - 1)  # the number of samples
    path.write_bytes(bytes(content))
    code = (
        f"try: print(len(espnet2_legonn.model.inputs.adapt_audio({str(path)!r}, 8000).wave))\n"
        "except LegoNNError as error: print('refused')"
    )
    done = limited("soundfile, soxr, espnet2_legonn.model.inputs, espnet2_legonn.data.audio", code, 200)
    assert done.stdout.strip() in ("8000", "refused"), done.stderr[-500:]


@pytest.mark.parametrize("error", [RuntimeError("x"), MemoryError(), OSError(5, "Input/output error"), DataError("x")])
def test_one_file_that_fails_loses_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever reading it raises; the others are in the same batch."""
    pack = build(speech_pair()).save(tmp_path / "asr")
    files = [str(write(tmp_path / f"{i}.wav", tone(0.2, i))) for i in range(3)]
    real = inputs.adapt_audio

    def reading(path: str, *rest: Any) -> Any:
        if path == files[1]:
            raise error
        return real(path, *rest)

    monkeypatch.setattr(inputs, "adapt_audio", reading)
    assert main(["transcribe", *files, "--model", str(pack)]) == 1
    out, told = capsys.readouterr()
    assert [line.partition("\t")[0] for line in out.splitlines()] == [files[0], files[2]]
    assert told.count("error: ") == 1 and "Traceback" not in told


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    build(pair()).save(tmp_path / "secret place" / "mt")
    model.load.cache_clear()
    return tmp_path / "secret place"


def test_a_browser_is_told_names_and_no_paths(packs: Path, tmp_path: Path) -> None:
    build(pair(), 3).save(tmp_path / "mt")
    (packs / "broken.zip").write_bytes(b"PK")
    shelf = open_shelf([packs, tmp_path / "mt"])
    specs = [c.spec for c in shelf.choices]
    assert [s for s in specs if "," not in s] == ["mt#encoder", "mt#decoder", "mt (2)#encoder", "mt (2)#decoder"]
    assert not any(str(tmp_path) in f"{c.spec}{c.label}" for c in shelf.choices)
    assert str(tmp_path) in "".join(shelf.faults), "who started it sees where"
    assert "/" not in "".join(public(shelf.faults)) and "broken.zip" in "".join(public(shelf.faults))
    chosen = [c for c in shelf.choices if c.spec in ("mt#encoder", "mt (2)#decoder")]
    assert [c.source for c in chosen] == [str(packs / "mt"), str(tmp_path / "mt")]
    assert shelf.judge([c.spec for c in chosen]).verdict == 0
    with pytest.raises(ConfigError, match="not on this page"):
        shelf.find([f"{packs}/mt#encoder"])


def test_paths_in_messages() -> None:
    told = public(["/srv/my packs/x.zip: bad", "a: /tmp/b/c.yaml, '/d/e/f'", "https://h/a/b.zip: 404", "exp/a/b: no"])
    assert told[1:] == ["a: c.yaml, 'f'", "https://h/a/b.zip: 404", "exp/a/b: no"] and told[0] == "x.zip: bad"


def test_texts_and_recordings_have_an_end(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The box's own limit is the browser's affair."""
    shelf = open_shelf([packs])
    with pytest.raises(DataError, match="2001 characters, at most 2000 are read"):
        model.run(shelf.find(["mt#encoder", "mt#decoder"]), "k" * 2001)
    monkeypatch.setattr(waves, "MAX_SECONDS", 1.0)
    soundfile.write(tmp_path / "a.wav", np.zeros(FS + 1), FS)
    with pytest.raises(DataError, match="^a.wav: longer than 1 s"):
        SpeechInput.make(SpeechConfig(fs=FS), BodyConfig(1, 8, 2, 8), None, "x").accept(tmp_path / "a.wav", [])


def test_examples_that_are_not_what_the_card_says(tmp_path: Path) -> None:
    """A link to a file of this machine is shown to nobody."""
    (tmp_path / "some.txt").write_text("k l\n", encoding="utf-8")
    pack = build(pair()).save(tmp_path / "mt", extra={"examples.txt": tmp_path / "some.txt"})
    assert [e.text for e in open_shelf([pack]).of(ENCODER)[0].examples] == ["k l"]
    (tmp_path / "secret").write_text("hush", encoding="utf-8")
    (pack / "examples.txt").unlink()
    (pack / "examples.txt").symlink_to(tmp_path / "secret")
    assert open_shelf([pack]).of(ENCODER)[0].examples == ()


def test_a_run_that_takes_too_long_ends(packs: Path) -> None:
    """And the next one is answered."""
    choices = open_shelf([packs]).find(["mt#encoder", "mt#decoder"])
    worker = Worker(0.01)
    with pytest.raises(LegoNNError, match="stopped after 0.01 s; try a shorter input"):
        worker.run(choices, "k l")
    worker.seconds = 300
    answer = worker.run(choices, "k l")
    assert answer.text == model.run(choices, "k l").text and answer.said[0].picture is not None
    with pytest.raises(LegoNNError, match="nothing to read: type a sentence first"):
        worker.run(choices, " ")
    assert worker._process is not None
    worker._process.kill()
    worker._process.join()
    assert worker.run(choices, "k l").text == answer.text
    worker._stop()


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("127.0.0.1:7860", True), ("localhost:7860", True), ("LOCALHOST", True), ("[::1]:7860", True),
        ("10.1.2.3", True), ("page.example.org", True), ("evil.example.org:7860", False), ("localhost.evil.org", False),
        ("127.0.0.1.evil.org", False), ("", False), ("2130706433", False), ("[evil]", False),
    ],
)  # fmt: skip
def test_names_that_the_page_answers_to(header: str, ours: bool) -> None:
    assert is_ours(header, ["page.example.org"]) == ours


@pytest.mark.parametrize(("hosts", "passed"), [(["localhost"], True), (["evil.org"], False), ([], False)])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_under_other_names_are_refused(hosts: Sequence[str], passed: bool, kind: str) -> None:
    seen, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(b"host", h.encode()) for h in hosts]}
    asyncio.run(HostCheck(app)(scope, None, send))
    assert bool(seen) == passed and bool(sent) != passed
    assert passed or sent[0].get("status", sent[0].get("code")) in (400, 1008)


# -- pictures ----------------------------------------------------------------------------------------------------------


def marginals(tokens: Sequence[str], slots: int) -> Marginals:
    vocab = Vocabulary(("<blank>", "<unk>", *tokens, "<sos/eos>"), "word")
    ids = torch.arange(slots) % len(tokens) + 2
    probs = torch.nn.functional.one_hot(ids, len(vocab)).float()[None]
    return Marginals((probs + 1e-6).log(), torch.tensor([slots]), Interface(vocab))


@pytest.mark.parametrize("token", ["$\\frac{1$", "$x$", "\\alpha", "$", "a_b^c", "%", "$$$", "\\mathtext{"])
def test_tokens_are_drawn_as_they_are(token: str, tmp_path: Path) -> None:
    """They are no formulas, in whatever place."""
    drawn = marginals([token, "b"], 4)
    figure = plot._draw(drawn, drawn.greedy_text(), 16)
    assert not any(t.get_parse_math() for t in [*figure.axes[0].get_xticklabels(), figure.axes[0].title])
    assert plot.picture(drawn, token).png.startswith(b"\x89PNG")
    assert plot.plot_marginals(drawn, tmp_path / "a.pdf", title=token).is_file()


def test_pictures_of_long_texts_and_long_tokens_have_an_end() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        long = plot.picture(marginals([f"w{i}" for i in range(300)], 3000), "")
        wide = plot.picture(marginals(["x" * 100_000, "y" * 100_000], 4), "")
    assert max(len(long.png), len(wide.png)) < 20 << 20
    assert long.inches[0] == pytest.approx(1.8 + 0.24 * plot.MAX_SLOTS)
    assert wide.inches[0] < 20


def test_a_short_picture_is_as_ever() -> None:
    figure = plot._draw(marginals(["a", "b"], 4), "t", 16)
    assert plot._dpi(figure) == plot.DPI and figure.axes[0].get_xlabel().startswith("slots, each")
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "a", "b"]


def test_a_pack_of_formulas_goes_through_the_page(tmp_path: Path) -> None:
    pack = build(pair()).save(tmp_path / "mt")
    tokens = pack / "tgt.tokens.txt"
    lines = tokens.read_text(encoding="utf-8").split("\n")
    lines[2:-2] = [f"$\\frac{{{i}$" for i in range(len(lines) - 4)]
    tokens.write_text("\n".join(lines), encoding="utf-8")
    import yaml

    from espnet2_legonn.data.vocabulary import Vocabulary as V
    from tests.zoo.hostile import edit

    digest = V(tuple(line for line in lines if line), "word").sha256
    reseal(pack)
    edit(pack / "card.yaml", lambda card: card["vocabs"]["tgt"].update(sha256=digest))
    assert yaml.safe_load((pack / "card.yaml").read_text())["vocabs"]["tgt"]["sha256"] == digest
    shelf = open_shelf([pack])
    answer = model.run([shelf.of(ENCODER)[0], shelf.of(DECODER)[-1]], "k l")
    assert answer.said[0].picture is not None
