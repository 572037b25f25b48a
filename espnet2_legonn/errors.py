"""Errors that list every fault at once and say what to do about each."""

from __future__ import annotations

from collections.abc import Iterable

# Faults, and characters of each, that are printed; some quote what a stranger wrote.
SHOWN, LONGEST = 20, 2000


class LegoNNError(ValueError):
    """Base of all errors a user can cause and cure.

    Args:
        faults: one message, or one per fault; each names the place (file, line, utterance, module) and the remedy.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: list[str] = [faults] if isinstance(faults, str) else list(faults)
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


class CheckpointError(LegoNNError):
    """Weights do not belong to this model, or the file is damaged."""
