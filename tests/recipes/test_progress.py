"""An interrupted decoding goes on where it stopped, and a batch that does not fit in memory is split."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn.data.tables import Made, read_table
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference import decode
from espnet2_legonn.inference.decode import chosen, decode_table, decode_windows, out_of_memory
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.progress import FOLDER, STATE, Progress
from espnet2_legonn.search.beam import BeamOptions
from tests.recipes.test_stages import DECODER, FIRST, build

INPUTS = {f"u{i:02d}": " ".join(f"s{1 + (i + j) % 3}" for j in range(i % 5)) for i in range(23)}
OPTIONS = BeamOptions(2, nbest=2, maxlenratio=-4)
ABOUT = {"weights_sha256": "a", "more": [2, None]}


@pytest.fixture(scope="module")
def chain() -> LegoNN:
    return build([FIRST, DECODER])


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "WINDOW", 2)


def run(chain: LegoNN, out: Path, about: dict[str, Any] = ABOUT, stop: int | None = None) -> int:
    """Decode into a folder, interrupted after ``stop`` windows; how many windows were decoded."""
    progress, done = Progress(out, about), 0
    for window in decode_windows(chain, INPUTS.items(), OPTIONS, 2, done=progress.inputs, total=len(INPUTS)):
        if done == stop:
            return done
        progress.add(window)
        done += 1
    progress.finish()
    return done


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_going_on_gives_the_same_bytes(chain: LegoNN, tmp_path: Path) -> None:
    windows = -(-len(INPUTS) // 4)
    assert run(chain, tmp_path / "whole") == windows
    whole = content(tmp_path / "whole")
    assert {"1best_recog/text", "2best_recog/scores", "interfaces/encoder/token_int"} <= set(whole)
    assert list(read_table(tmp_path / "whole/1best_recog/text")) == sorted(INPUTS)
    for stop in (0, 1, windows - 1):
        out = tmp_path / f"stopped{stop}"
        assert run(chain, out, stop=stop) == stop
        assert not (out / "1best_recog").exists(), "half an answer is none"
        for path in (out / FOLDER).rglob("*"):
            if path.is_file() and path.name != STATE:
                path.write_bytes(path.read_bytes() + b"half a li")  # killed while it wrote
        assert run(chain, out) == windows - stop
        assert content(out) == whole


def test_another_decoding_begins_afresh(chain: LegoNN, tmp_path: Path) -> None:
    run(chain, tmp_path, stop=2)
    assert Progress(tmp_path, ABOUT).inputs == 8
    assert Progress(tmp_path, {**ABOUT, "weights_sha256": "b"}).inputs == 0
    run(chain, tmp_path, stop=2)
    (tmp_path / FOLDER / "1best_recog" / "text").write_bytes(b"")  # a disk that lost what was written
    assert Progress(tmp_path, ABOUT).inputs == 0
    (tmp_path / FOLDER / STATE).write_text("{")
    assert Progress(tmp_path, ABOUT).inputs == 0


def test_windows_are_what_all_at_once_is(chain: LegoNN, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = decode_table(chain, INPUTS, OPTIONS, 2)
    monkeypatch.setattr(decode, "WINDOW", 1000)
    once = decode_table(chain, INPUTS, OPTIONS, 2)
    for (_, a), (_, b) in zip(parts.places(), once.places()):
        assert a.text == b.text and a.token_int == b.token_int
        scores = [{uid: float(score) for uid, score in tables.score.items()} for tables in (a, b)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_what_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("b 2\na 1\nc 3\n")
    (tmp_path / "keys").write_text("c c\na a\n")
    assert list(chosen(tmp_path / "t").items()) == [("a", "1"), ("b", "2"), ("c", "3")]
    assert list(chosen(tmp_path / "t", tmp_path / "keys").items()) == [("a", "1"), ("c", "3")]
    (tmp_path / "keys").write_text("a a\nz z\n")
    with pytest.raises(DataError, match="t: no line for z"):
        chosen(tmp_path / "t", tmp_path / "keys")


class Small(LegoNN):
    """A chain on a machine whose memory takes so many inputs together."""

    room, error = 1, torch.OutOfMemoryError("CUDA out of memory")
    sizes: list[int]
    fits: frozenset[str] = frozenset()

    def answer(self, inputs: Any, *args: Any, **options: Any) -> Any:
        self.sizes.append(len(inputs))
        if len(inputs) > self.room and not self.fits.issuperset(map(str, inputs)):
            raise self.error
        return super().answer(inputs, *args, **options)


def narrow(chain: LegoNN, room: int, error: BaseException) -> Small:
    small = Small(list(chain), chain.vocabs, chain.names)
    small.room, small.error, small.sizes = room, error, []
    return small.eval()


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:20])
def test_a_batch_that_does_not_fit_is_split(
    chain: LegoNN, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    assert out_of_memory(error)
    small = narrow(chain, 3, error)
    inputs = {uid: text for uid, text in INPUTS.items() if text}
    with caplog.at_level(logging.WARNING):
        found = decode_table(small, inputs, OPTIONS, 8)
    assert found.nbest[0].text == decode_table(chain, inputs, OPTIONS, 8).nbest[0].text
    assert small.sizes[:4] == [8, 4, 2, 2] and max(s for s in small.sizes if s not in (8, 4)) <= 3
    assert "8 inputs do not fit in memory together; they are split" in caplog.text


def test_an_input_that_never_fits_has_an_empty_answer(chain: LegoNN) -> None:
    small = narrow(chain, 0, ERRORS[0])
    with pytest.raises(DataError, match="u01: does not fit in memory by itself; split it, or lower beam_size"):
        decode_table(small, {"u01": "s1"}, OPTIONS)
    small.fits = {"s1 s2"}
    found = decode_table(small, {"u01": "s1", "u02": "s1 s2"}, OPTIONS).nbest[0].text
    assert found == {"u01": "", "u02": decode_table(chain, {"u02": "s1 s2"}, OPTIONS).nbest[0].text["u02"]}


def test_an_input_that_cannot_be_used_loses_no_other(chain: LegoNN, monkeypatch: pytest.MonkeyPatch) -> None:
    read, texts = chain.first.input.read, {f"u{i}": text for i, text in enumerate(["s1", "s2", "s3 s1", "s2"])}

    def short(item: Any, place: str) -> Any:
        if item == "s2":
            raise DataError(f"{place}: too long")
        return read(item, place)

    wanted = decode_table(chain, texts, OPTIONS).nbest[0].text
    monkeypatch.setattr(chain.first.input, "read", short)
    found = decode_table(chain, texts, OPTIONS).nbest[0].text
    assert found == {**wanted, "u1": "", "u3": ""}
    with pytest.raises(DataError, match="^utterance u1: too long$"):
        decode_table(chain, {"u1": "s2"}, OPTIONS)


@pytest.mark.parametrize("size", [0, -1])
def test_batches_hold_something(chain: LegoNN, size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: {size} is less than 1"):
        decode_table(chain, INPUTS, OPTIONS, size)


def test_other_errors_are_errors(chain: LegoNN) -> None:
    assert not out_of_memory(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        decode_table(narrow(chain, 0, RuntimeError("shapes do not match")), {"u01": "s1"}, OPTIONS)


def test_memory_does_not_grow_with_inputs(chain: LegoNN, tmp_path: Path) -> None:
    def peak(number: int) -> int:
        def inputs() -> Iterator[tuple[str, str]]:
            return ((f"u{i:05d}", "s1 s2 s3") for i in range(number))

        tracemalloc.start()
        progress = Progress(tmp_path / str(number), ABOUT)
        for window in decode_windows(chain, Made(inputs).items(), BeamOptions(1, maxlenratio=-2), 16):
            progress.add(window)
        progress.finish()
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(32)
    little, much = peak(128), peak(512)
    # Answers of the 384 more would take 600 kB; what waits for the garbage collector comes and goes.
    assert much <= 1.2 * little + (1 << 16), (little, much)
