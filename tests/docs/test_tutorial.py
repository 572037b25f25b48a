"""docs/tutorial.md shows what its commands print; the notebooks of examples/ run."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read

SHOWN = re.compile(r"^```(bash|python)\n(.*?)^```\n\n```text\n(.*?)^```$", re.M | re.S)
HOME = "/home/you/espnet2_legonn"
ALIKE = 0.9  # another CPU rounds in another way, and a word or a last digit may differ


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the demo's synthesiser: `make setup` installs the extra demo")
    (tmp_path / "egs2").symlink_to(ROOT / "egs2")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "legonn").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m espnet2_legonn.bin.legonn "$@"\n')
    (tmp_path / "bin" / "legonn").chmod(0o755)
    places = [str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = os.environ | {"PATH": ":".join(places), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    blocks = SHOWN.findall(read("docs/tutorial.md"))
    assert len(blocks) >= 10
    for language, code, promised in blocks:
        command = ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        said = (done.stdout + done.stderr).replace(str(ROOT), HOME)
        assert difflib.SequenceMatcher(None, promised, said, autojunk=False).ratio() > ALIKE, f"{code}\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="`make setup` installs the extra docs")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples" / name, 4)
    where = {"metadata": {"path": str(ROOT / "examples")}}
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=where).execute()
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert CLAIMS[name](said), said


def _plugged(said: str) -> bool:
    return "i want to visit munich" in said and "reads tokens" in said


def _learned(said: str) -> bool:
    """A plug is better than its encoder alone, a warm start better than none."""
    rows = [line.split() for line in said.splitlines() if line.startswith(("from random weights", "warm start"))]
    (cold, _, cold_joint), (warm, _, warm_joint) = ([float(value) for value in row[-3:]] for row in rows)
    return cold_joint > cold and warm_joint > warm > cold


def _reads_images(said: str) -> bool:
    """The encoder reads, and the decoder behind it is no worse than it by more than a word in a hundred."""
    alone, plugged = (float(value) for value in re.findall(r"(?:alone|plugged): ([\d.]+) % WER", said))
    return alone < 30 and plugged < alone + 1 and "8 rows of pixels" in said


CLAIMS = {"plug_packs.ipynb": _plugged, "train_and_plug.ipynb": _learned, "add_a_part.ipynb": _reads_images}


def test_every_notebook_has_a_claim_and_its_output() -> None:
    """Outputs are committed, so that they can be read where nothing runs."""
    import json

    names = {p.name for p in (ROOT / "examples").glob("*.ipynb")}
    assert names == set(CLAIMS)
    for name in names:
        cells = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))["cells"]
        said = "".join("".join(o.get("text", "")) for c in cells for o in c.get("outputs", []))
        assert CLAIMS[name](said) and not re.search(r"/home/|/tmp/", said), name
