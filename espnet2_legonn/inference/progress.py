"""A decoding that writes as it goes, and goes on where an interrupted one of the same stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import atomic_text, format_row, sorted_items
from espnet2_legonn.inference.decode import FILES, Decoded

FOLDER, STATE = ".partial", "state.json"


class Progress:
    """Answers of a set, in a folder of its own until the set is done.

    After each window the state says how many inputs are done and how long each file was: what was written behind that
    is cut off, and a decoding that goes on writes the same bytes as one that was never interrupted.

    Args:
        out: gets ``<n>best_recog/`` and ``interfaces/<module>/`` at the end.
        about: what decides the answers; what another decoding left there goes.
    """

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self.out, self.folder = out, out / FOLDER
        self.about = json.loads(json.dumps(about))
        self.inputs, self.seconds, self.audio = 0, 0.0, 0.0
        self._sizes: dict[str, int] = {}
        if not self._resumed():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def _resumed(self) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            sizes: dict[str, int] = state["sizes"]
            whole = all((self.folder / name).stat().st_size >= size for name, size in sizes.items())
            if state["about"] == self.about and whole:
                for path in [path for path in self.folder.rglob("*") if path.is_file() and path.name != STATE]:
                    os.truncate(path, sizes.get(str(path.relative_to(self.folder)), 0))
                self._sizes, self.inputs = sizes, state["inputs"]
                self.seconds, self.audio = state["seconds"], state["audio"]
                return True
        return False

    def add(self, window: Decoded) -> None:
        """Write the answers of the next inputs."""
        for where, tables in window.places():
            (self.folder / where).mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if not (table := getattr(tables, name)):
                    continue
                with open(self.folder / where / name, "a", encoding="utf-8", newline="\n") as stream:
                    stream.writelines(format_row(*row) for row in sorted_items(table))
                    stream.flush()
                    self._sizes[f"{where}/{name}"] = stream.tell()
        self.inputs += len(window.nbest[0].text)
        self.seconds += window.seconds
        self.audio += window.audio
        state = {"about": self.about, "inputs": self.inputs, "seconds": self.seconds, "audio": self.audio}
        with atomic_text(self.folder / STATE) as stream:
            json.dump({**state, "sizes": self._sizes}, stream)

    def finish(self) -> None:
        """All inputs are done: the answers take their places."""
        for name in self._sizes:
            target = self.out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.folder / name, target)
        shutil.rmtree(self.folder)
