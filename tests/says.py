"""The type of the fixture ``says`` (tests/conftest.py): what a command printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Says(Protocol):
    """says(main, words, 2): the command ends with this status; what it printed (0: on stdout, else on stderr)."""

    def __call__(self, main: Callable[..., object], words: Sequence[str], status: int = 0) -> str: ...
