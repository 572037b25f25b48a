"""Errors that list every fault at once and say what to do about each, and how every command ends on one."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec

# What moves a terminal's cursor, turns the order of what it shows, or is no text at all; line ends and tabs are none.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Faults, and characters of each, that are printed; some quote what a stranger wrote.
SHOWN, LONGEST = 20, 2000
BAD_INPUT = 2  # exit status of every command, for wrong options (argparse) as for wrong files

_P = ParamSpec("_P")


def harmless(text: str) -> str:
    """Text of strangers for a terminal: control characters and overrides of direction become U+FFFD."""
    return _UNSHOWN.sub("\ufffd", text)


class LegoNNError(ValueError):
    """Base of all errors a user can cause and cure.

    Args:
        faults: one message, or one per fault; each names the place (file, line, utterance, module) and the remedy.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        # Many quote a stranger's file: whoever prints them, they are harmless.
        self.faults: list[str] = [harmless(f) for f in ([faults] if isinstance(faults, str) else faults)]
        shown = [fault[:LONGEST] for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            shown.append(f"... and {len(self.faults) - SHOWN} more")
        super().__init__("\n".join(shown))


class ConfigError(LegoNNError):
    """A chain's description cannot be built."""


class DataError(LegoNNError):
    """Input data (audio, text, data directory, token list) is not usable."""


class InterfaceMismatch(LegoNNError):
    """Two modules do not speak the same interface; every reason is listed."""


class BusyError(LegoNNError):
    """Another process does the same in the same folder."""


class CheckpointError(LegoNNError):
    """Weights do not belong to this model, or the file is damaged."""


def hand_over(faults: Iterable[str], bad: list[str] | None) -> None:
    """Faults of single items: they go to ``bad``, for who goes on without these items, or stop where there is none.

    Raises:
        DataError: there are some, and no ``bad``.
    """
    if bad is not None:
        bad += faults
    elif faults := list(faults):
        raise DataError(faults)


def complain(error: BaseException, shown: int = SHOWN) -> int:
    """Print bad input on stderr, as every command does: the kind, then a line or more for each fault.

    Args:
        shown: faults that are printed.

    Returns:
        The exit status of bad input.
    """
    text = str(error)
    if isinstance(error, LegoNNError) and shown > SHOWN:
        text = "\n".join(error.faults[:shown])
    print(f"{type(error).__name__}:\n{harmless(text)}", file=sys.stderr)
    return BAD_INPUT


@contextlib.contextmanager
def _warned_once() -> Iterator[None]:
    """Each warning is shown once; Python's own rule begins anew behind each ``catch_warnings``."""
    shown, show = set[tuple[str, type[Warning]]](), warnings.showwarning

    def once(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if (text := (str(message), category)) not in shown:
            shown.add(text)
            show(message, category, *place, **more)

    with warnings.catch_warnings():  # puts the old way back
        warnings.showwarning = once
        yield


def command(main: Callable[_P, int | None]) -> Callable[_P, int]:
    """Decorator of every ``main``: its exit status, ``BAD_INPUT`` with the faults on stderr when there are some.

    A warning that was printed is not printed again: a command may read the same data several times.
    """

    @functools.wraps(main)
    def run(*args: _P.args, **options: _P.kwargs) -> int:
        try:
            with _warned_once():
                return int(main(*args, **options) or 0)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (LegoNNError, OSError) as error:
            return complain(error)
        except KeyboardInterrupt:
            return 130

    return run
