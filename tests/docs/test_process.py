"""What a process of a benchmark uses is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.process import run


def test_memory_of_the_caller_does_not_count(tmp_path: Path) -> None:
    held = bytearray(b"x" * 400_000_000)
    small = run(["-S", "-c", "print('hello')"], tmp_path)
    large = run(["-S", "-c", "b = b'x' * int('200000000')"], tmp_path)
    assert small.out == "hello\n" and small.mb < 100 < 190 < large.mb < 300 and len(held)
    assert 0 < small.seconds


def test_a_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        run(["-S", "-c", "raise SystemExit('no such thing')"], tmp_path)
