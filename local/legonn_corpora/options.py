"""The command line of a reader: an option that it does not know is refused, with the nearest name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from espnet2_legonn.files.schema import nearest


class Parser(argparse.ArgumentParser):
    """As argparse has it. Its exit 2 names each unknown option with the nearest one that there is."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """All arguments are known, or the command ends."""
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        return known

    def _refuse(self, rest: Sequence[str]) -> NoReturn:
        names = sorted(name for action in self._actions for name in action.option_strings if name.startswith("--"))
        told = [f"{word}{nearest(word.partition('=')[0], names)}" for word in rest if word.startswith("-")]
        self.error(f"unrecognized arguments: {' '.join(told or rest)}; --help lists what there is")
