"""What all tests share: one thread, fixed seeds, the list of collected files."""

from __future__ import annotations

import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported

import numpy as np
import pytest
import torch

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


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whichever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
