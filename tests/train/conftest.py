"""One toy corpus with statistics for all tests that train through ESPnet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.toys import Corpus, Lab, collect_stats


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    root = tmp_path_factory.mktemp("lab")
    corpus = Corpus(root / "data").write()
    kinds = ("tokens", "speech")
    return Lab(corpus, {kind: collect_stats(corpus, root / f"stats_{kind}", kind) for kind in kinds})


@pytest.fixture(scope="session")
def donors(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Experiment folder and log of a two-epoch training of each kind."""
    root = tmp_path_factory.mktemp("exp")
    trained = {}
    for kind in ("tokens", "speech"):
        exp = root / kind
        trained[kind] = (exp, lab.train(exp, kind, "--use_tensorboard", "true"))
    return trained
