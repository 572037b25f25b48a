"""Runs of the page in a process of their own: one that takes too long, or dies, ends alone. No web framework."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from espnet2_legonn.errors import LegoNNError
from espnet2_legonn.page import model
from espnet2_legonn.page.shelf import Choice

# Of one run; of a new process, until it has loaded torch.
SECONDS, START = 120.0, 600.0


class Worker:
    """Keeps packs in memory and answers one run after the other.

    Args:
        seconds: of one run; the first one of a pack loads it.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._turn = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._line: Connection | None = None

    def run(
        self,
        choices: Sequence[Choice],
        given: str | Path | None,
        ctc_weight: float | None = None,
        voters: Sequence[model.Voter] = (),
    ) -> model.PageAnswer:
        """As ``model.run``.

        Raises:
            LegoNNError: what is wrong with the input or the parts; the run took too long, or its process died.
        """
        with self._turn:
            try:
                line = self._started()
                line.send((list(choices), given, ctc_weight, list(voters)))
                if not line.poll(self.seconds):
                    raise LegoNNError(f"stopped after {self.seconds:g} s; try a shorter input or a smaller pack")
                found = line.recv()
            except (EOFError, OSError):
                self._stop()
                raise LegoNNError("the run ended without an answer: out of memory? try a shorter input") from None
            except BaseException:
                self._stop()
                raise
        if isinstance(found, model.PageAnswer):
            return found
        raise LegoNNError(found)

    def _started(self) -> Connection:
        if self._line is not None and self._process is not None and self._process.is_alive():
            return self._line
        self._stop()
        # Not a fork: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._line.poll(START):
            raise LegoNNError(f"the process of the runs has not started in {START:g} s; try again")
        self._line.recv()
        return self._line

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._line is not None:
            self._line.close()
        self._process = self._line = None


def _serve(line: Connection) -> None:
    """Answer until the page is gone: an Answer, or faults."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the page, and that ends this
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("500")  # if memory is short, this goes before the page
    with contextlib.suppress(EOFError, OSError):
        line.send("ready")
        while True:
            call = line.recv()
            try:
                line.send(model.run(*call))
            except LegoNNError as error:
                line.send(error.faults)
            except Exception as error:
                reason = next(iter(str(error).splitlines()), "")
                line.send([f"{type(error).__name__}: {reason}; try a shorter input"])
