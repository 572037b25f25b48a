"""The layout of ESPnet's development version, ``espnet2.legacy``, made of the installed release."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow
# Not espnet2, not a path, not the end of another name.
OLD = re.compile(r"(?<![\w./-])espnet(?=\.[a-z_]+|\s+import\b)")
# Without the package espnet, as there.
HEAD = """
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "espnet":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Gone())
sys.path[:0] = [{newer!r}, {root!r}]
from pathlib import Path
"""
LOADS = """
from espnet2_legonn.foreign import load
for name in {names!r}:
    print(load(name).__name__)
"""
TRAINS = """
import espnet2_legonn
espnet2_legonn.register()
from espnet2_legonn.training import stock
from tests.train.toys import MODULES, Corpus, Lab, collect_stats
corpus = Corpus(Path("data")).write()
stats = collect_stats(corpus, Path("stats"), "tokens")
Lab(corpus, {"tokens": stats}).train(Path("exp"), "tokens", max_epoch=1)
print(espnet2_legonn.LegoNN.from_pretrained("exp")("s1 s2"))
print(sorted({m.__module__ for m in stock.LegoNNDecoder.__mro__ if "legacy" in m.__module__}))
print([m for m in sys.modules if m.partition(".")[0] == "espnet"])
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESPnet's packages with ``espnet`` moved into ``espnet2.legacy``, and every import of it as there."""
    root = tmp_path_factory.mktemp("newer")
    for name, place in (("espnet2", root / "espnet2"), ("espnet", root / "espnet2" / "legacy")):
        found = importlib.util.find_spec(name)
        if found is None or not found.submodule_search_locations:
            pytest.skip(f"{name} is not installed")
        origin = Path(found.submodule_search_locations[0])
        for file in filter(Path.is_file, origin.rglob("*")):
            if file.suffix != ".pyc":
                target = place / file.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                data = file.read_bytes()
                text = OLD.sub("espnet2.legacy", data.decode()).encode() if file.suffix == ".py" else data
                target.write_bytes(text)
    return root


def run(code: str, newer: Path, folder: Path) -> list[str]:
    script = HEAD.format(newer=str(newer), root=str(ROOT)) + code
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_all_that_is_used_of_it_is_found(newer: Path, tmp_path: Path) -> None:
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "espnet2_legonn").rglob("*.py")]
    names = sorted({name for text in sources for name in re.findall(r'"(espnet\.[a-z_.0-9]+)"', text)} - {"espnet."})
    assert len(names) >= 3, names
    found = run(LOADS.format(names=names), newer, tmp_path)
    assert found == [name.replace("espnet.", "espnet2.legacy.", 1) for name in names]


def test_a_chain_is_trained_with_it(newer: Path, tmp_path: Path) -> None:
    """ESPnet's own tasks have our classes, too, and nothing asks for the old package."""
    said = run(TRAINS, newer, tmp_path)
    assert (tmp_path / "exp" / "1epoch.pth").is_file()
    assert "espnet2.legacy.nets.scorer_interface" in said[-2] and said[-1] == "[]"
