"""Exports are made once for all tests of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from espnet2_legonn.export.write import write
from tests.export.chains import chain


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """exported(kind, dtype): the folder of a chain of this kind."""
    made: dict[tuple[str, str], Path] = {}
    room = tmp_path_factory.mktemp("exports")

    def of(kind: str, dtype: str = "float32") -> Path:
        if (kind, dtype) not in made:
            made[kind, dtype] = write(chain(kind), room / f"{kind}_{dtype}", dtype)
        return made[kind, dtype]

    return of


@pytest.fixture(autouse=True)
def needs_onnx(request: pytest.FixtureRequest) -> None:
    """What exports or runs graphs is skipped where the extra is not installed; the search in numpy is not."""
    for name in ("onnx", "onnxruntime") if request.path.stem != "test_search" else ():
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'espnet2_legonn[onnx]'")
