"""ESPnet is found in its layout of release 202511, in the newer one, and missed with a remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = "from espnet2_legonn.foreign import load; print(load({name!r}).WHERE)"


def run(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """``load`` where the installed ESPnet is not to be seen, only what ``folder`` holds."""
    hide = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p and 'dist-packages' not in p]"
    code = f"{hide}; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; {CODE.format(name=name)}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def package(folder: Path, name: str) -> None:
    """A stand-in with a module of the name."""
    path = folder.joinpath(*name.split("."))
    path.parent.mkdir(parents=True)
    for parent in path.relative_to(folder).parents:
        if parent.name:
            (folder / parent / "__init__.py").touch()
    path.with_suffix(".py").write_text(f"print('a notice'); WHERE = {name!r}\n")


@pytest.mark.parametrize("layout", ["espnet.nets.thing", "espnet2.legacy.nets.thing"])
def test_a_module_is_found_in_both_layouts(tmp_path: Path, layout: str) -> None:
    package(tmp_path, layout)
    done = run(tmp_path, "espnet.nets.thing")
    assert (done.returncode, done.stdout) == (0, f"{layout}\n"), done.stderr  # and its notice is not printed


def test_without_espnet_the_remedy_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "espnet.nets.thing")
    assert "ImportError: training needs ESPnet: run `make setup`" in done.stderr


def test_a_module_that_espnet_lacks_is_named(tmp_path: Path) -> None:
    package(tmp_path, "espnet2.legacy.nets.thing")
    assert "No module named 'espnet2.legacy.nets.other'" in run(tmp_path, "espnet.nets.other").stderr
