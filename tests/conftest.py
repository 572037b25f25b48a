"""What all tests share: one thread, fixed seeds, the list of collected files."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported

import numpy as np
import pytest
import torch

from tests.says import Says

COLLECTED = pytest.StashKey[set[Path]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tests run two at a time on two cores: a second thread in each only gets in the way."""
    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which files gave tests, before `-m` takes any away (tests/house reads it)."""
    config.stash[COLLECTED] = {item.path.resolve() for item in items}


@pytest.fixture
def collected_files(pytestconfig: pytest.Config) -> set[Path]:
    """Resolved paths of the test files that gave at least one test in this run."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture
def float64() -> Iterator[None]:
    """What the test builds or loads computes in float64.

    For tests that compare two ways to one result, such as an item alone and in a batch. In float32 the two differ by
    what the CPU's kernels round (5e-5 behind a few LayerNorms of width 8), and the near-ties of an untrained model may
    turn that into another text. In float64 the same claim holds to 1e-9 on every CPU.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run a command's ``main``; see tests/says.py."""

    def run(main: Callable[..., object], words: Sequence[str], status: int = 0) -> str:
        assert main(words) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run
