"""Errors that list every fault at once and say what to do about each."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What moves a terminal's cursor, turns the order of what it shows, or is no text at all; line ends and tabs are none.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Faults, and characters of each, that are printed; some quote what a stranger wrote.
SHOWN, LONGEST = 20, 2000


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
