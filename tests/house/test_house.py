"""The house rules as tests over the whole tree: sizes, one-way imports, a light package, nothing private."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "espnet2_legonn"

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_CONSTRUCTOR_PARAMETERS = 12
MAX_IMPORTED = 120  # modules beyond those of torch, 92 when this was written
FIRST_IMPORT = "from espnet2_legonn import LegoNN"  # the bare package loads no torch

# Rooms in building order: a room imports rooms above its own line only. A new room needs a line here.
ROOMS = (
    "version",
    "_renamed",
    "errors",
    "foreign",
    "files",
    "data",
    "scoring",
    "model",
    "search",
    "packs",
    "export",
    "inference",
    "adopt",
    "page",
    "__init__",
    "training",
    "recipes",
    "studies",
    "bin",
)
ESPNET_ROOMS = {"training", "bin"}
# register() is the one door from the front of the house to ESPnet; it imports inside the function.
LAZY_DOORS = {("__init__", "training")}

# Importing the package must not load these: slow, not needed, or able to open the network.
HEAVY = {
    "espnet", "espnet2", "espnetez", "librosa", "torchaudio",
    "aiohttp", "huggingface_hub", "requests", "urllib3",
}  # fmt: skip

SKIPPED_FOLDERS = {
    ".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__",
    ".docs", "build", "dist", "exp", "dump", "downloads", "site", "tensorboard",
}  # fmt: skip
# In pieces, so that this file passes its own test.
PRIVATE = re.compile(
    r"(?<![\w.$}/-])/(?:wo" + r"rk|ro" + r"ot)(?=[/\s\"'`:)]|$)"  # this project's build machine
    r"|\.\./sha" + r"red\b"
)
REGISTRY = re.compile(
    r"py" + r"pi\.(?:org|python\.org)|python" + r"hosted\.org"
    r"|download\.py" + r"torch\.org|conda\.ana" + r"conda\.org"
)


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Definition(NamedTuple):
    """One class or function with the file it stands in."""

    path: Path
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def place(self) -> str:
        """`file:line: name`, as an editor opens it."""
        return f"{self.path.relative_to(ROOT)}:{self.node.lineno}: {self.node.name}"


def walk_files() -> Iterator[Path]:
    """Every file of the tree that belongs to the project, not to a run of it."""
    for folder, folders, names in os.walk(ROOT):
        here = Path(folder).relative_to(ROOT)
        in_recipe = len(here.parts) == 3 and here.parts[0] == "egs2"
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED_FOLDERS
            and not name.endswith(".egg-info")
            and not (in_recipe and name == "data")
        )
        yield from (Path(folder) / name for name in sorted(names))


FILES = tuple(walk_files())
PYTHON = tuple(path for path in FILES if path.suffix == ".py")
SHELL = tuple(path for path in FILES if path.suffix == ".sh")
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PYTHON}
HOUSE = {path: tree for path, tree in TREES.items() if path.is_relative_to(PACKAGE)}


def definitions(trees: dict[Path, ast.Module]) -> list[Definition]:
    """All classes and functions, nested ones too."""
    nodes = ((path, node) for path, tree in trees.items() for node in ast.walk(tree))
    return [Definition(path, node) for path, node in nodes if isinstance(node, ast.ClassDef | FUNCTIONS)]


def room_of(path: Path) -> str:
    """Top-level room of a file of the package: its folder, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, at any depth; `from a import b` gives `a.b`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def imported_room(name: str) -> str | None:
    """Room that a dotted name of our package lies in; None for other packages."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return None
    room = parts[1] if len(parts) > 1 else "__init__"
    exists = room in ROOMS or (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
    return room if exists else "__init__"


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    """What one file of the package imports against the rules."""
    room, faults = room_of(path), []
    for line, name in imported_modules(path, tree):
        place, target, top = f"{path.relative_to(ROOT)}:{line}: ", imported_room(name), name.split(".")[0]
        if top in ("espnet", "espnet2", "espnetez") and room not in ESPNET_ROOMS:
            faults.append(f"{place}{name}: only {sorted(ESPNET_ROOMS)} may import ESPnet")
        elif top == "legonn_corpora":
            faults.append(f"{place}{name}: recipes of a checkout alone have legonn_corpora")
        elif target in (None, room) or (room, target) in LAZY_DOORS:
            continue
        elif not {room, target} <= set(ROOMS):
            faults.append(f"{place}{room} imports {target}, and one of them has no line in ROOMS")
        elif ROOMS.index(target) > ROOMS.index(room):
            faults.append(f"{place}{room} is built before {target}, so it may not import it")
    return faults


def test_files_are_short() -> None:
    sources = PYTHON + SHELL
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert len(sources) >= 30, "the walk over the tree lost its way"
    assert not long, f"files over {MAX_FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    functions = [d for d in definitions(TREES) if not isinstance(d.node, ast.ClassDef)]
    long = [
        f"{d.place} ({lines} lines)"
        for d in functions
        if (lines := (d.node.end_lineno or 0) - d.node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert len(functions) >= 150
    assert not long, "functions over 60 lines:\n" + "\n".join(long)


def constructor_parameters(node: ast.ClassDef) -> int:
    """Parameters of __init__ less self, or fields of a NamedTuple; a dataclass is what a constructor takes."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            arguments = item.args
            return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs) - 1
    if "NamedTuple" not in {ast.unparse(base).split(".")[-1] for base in node.bases}:
        return 0
    return sum(isinstance(item, ast.AnnAssign) for item in node.body)


def test_constructors_take_few_parameters() -> None:
    classes = [d for d in definitions(HOUSE) if isinstance(d.node, ast.ClassDef)]
    counts = {d.place: constructor_parameters(d.node) for d in classes}  # type: ignore[arg-type]
    assert len(classes) >= 30 and max(counts.values()) >= 3
    assert not (wide := {k: n for k, n in counts.items() if n > MAX_CONSTRUCTOR_PARAMETERS}), wide


@functools.cache
def documented_methods() -> dict[str, set[str]]:
    """Class name -> its methods that have a docstring of their own."""
    found: dict[str, set[str]] = {}
    for node in (d.node for d in definitions(HOUSE) if isinstance(d.node, ast.ClassDef)):
        methods = (item for item in node.body if isinstance(item, FUNCTIONS))
        found[node.name] = {method.name for method in methods if ast.get_docstring(method)}
    return found


def without_docstring(definition: Definition, inherited: set[str]) -> Iterator[Definition]:
    """A public class or function and its public methods, where they say nothing.

    Left alone: properties, which read as attributes and are their class's to explain, and methods that a base
    class of ours has documented (`inherited`).
    """
    node = definition.node
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if node.name.startswith("_") or decorators & {"property", "cached_property"} or node.name in inherited:
        return
    if not ast.get_docstring(node):
        yield definition
    if isinstance(node, ast.ClassDef):
        documented = documented_methods()
        from_bases = set().union(*(documented.get(ast.unparse(base), set()) for base in node.bases))
        for item in node.body:
            if isinstance(item, FUNCTIONS):
                yield from without_docstring(Definition(definition.path, item), from_bases)


def test_public_names_have_docstrings() -> None:
    public = {p: tree for p, tree in HOUSE.items() if p.name == "__init__.py" or not p.name.startswith("_")}
    silent = (path for path, tree in public.items() if tree.body and not ast.get_docstring(tree))
    bare = [f"{path.relative_to(ROOT)}:1" for path in silent]
    nodes = ((path, node) for path, tree in public.items() for node in tree.body)
    tops = [Definition(path, node) for path, node in nodes if isinstance(node, ast.ClassDef | FUNCTIONS)]
    bare += [found.place for top in tops for found in without_docstring(top, set())]
    assert len(public) >= 20 and len(tops) >= 100
    assert not bare, "public names without a docstring:\n" + "\n".join(bare)


def shared_names(trees: dict[Path, ast.Module]) -> dict[str, list[str]]:
    """Names that several public classes have, with the places of the classes."""
    places: dict[str, list[str]] = {}
    for found in definitions(trees):
        if isinstance(found.node, ast.ClassDef) and not found.node.name.startswith("_"):
            places.setdefault(found.node.name, []).append(found.place)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_public_classes_share_a_name() -> None:
    assert not shared_names(HOUSE)


def test_a_shared_name_is_found() -> None:
    texts = {"data/x.py": "class Row: ...\nclass _Own: ...", "model/y.py": "def f():\n class Row: ...\nclass _Own: ..."}
    trees = {PACKAGE / name: ast.parse(text) for name, text in texts.items()}
    assert shared_names({**HOUSE, **trees})["Row"][-2:] == [
        "espnet2_legonn/data/x.py:1: Row", "espnet2_legonn/model/y.py:2: Row"
    ]
    assert set(shared_names(trees)) == {"Row"}


def test_imports_point_one_way() -> None:
    faults = [fault for path, tree in HOUSE.items() for fault in wrong_imports(path, tree)]
    unknown = sorted({room_of(path) for path in HOUSE} - set(ROOMS))
    assert len(HOUSE) >= 20 and sum(1 for p, t in HOUSE.items() for _ in imported_modules(p, t)) >= 100
    assert not unknown, f"give these rooms a line in ROOMS, after all that they import: {unknown}"
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("room", "line", "fault"),
    [
        ("model/x.py", "import espnet2.tasks.asr", "may import ESPnet"),
        ("model/x.py", "from espnet2_legonn.packs.store import write", "model is built before packs"),
        ("data/x.py", "from espnet2_legonn import model", "data is built before model"),
        ("search/x.py", "def f():\n    from ..training import register", "search is built before training"),
        ("model/x.py", "import legonn_corpora.swbd", "recipes of a checkout alone have legonn_corpora"),
    ],
)
def test_a_wrong_import_is_found(room: str, line: str, fault: str) -> None:
    assert fault in "".join(wrong_imports(PACKAGE / room, ast.parse(line)))


def run_python(code: str) -> str:
    """Standard output of a fresh interpreter that keeps compiled files, as a user's does."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def modules_after(code: str) -> set[str]:
    return set(json.loads(run_python(f"{code}; import json, sys; print(json.dumps(sorted(sys.modules)))")))


def test_importing_the_package_is_light() -> None:
    """Modules are counted, not seconds: no clock of the machine that tests is in it."""
    torch, loaded = modules_after("import torch"), modules_after(FIRST_IMPORT)
    assert len(torch) > 500 and torch < loaded and "espnet2_legonn" in loaded
    assert not (heavy := sorted(HEAVY & loaded)), f"`{FIRST_IMPORT}` loads {heavy}"
    more = sorted(loaded - torch)
    assert len(more) <= MAX_IMPORTED, f"`{FIRST_IMPORT}` loads {len(more)} modules that torch does not: {more}"


def test_no_private_path_and_no_registry_host() -> None:
    visited, found = 0, []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        visited += 1
        for number, line in enumerate(text.splitlines(), 1):
            if PRIVATE.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert visited >= 40
    assert not found, "private paths or registry hosts:\n" + "\n".join(found)


def test_nothing_that_a_run_makes_is_committed() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no git repository: this is not a clone")
    tracked = [Path(line) for line in done.stdout.splitlines()]
    made = {"exp", "dump", "tensorboard", "downloads", "site"}
    odd = [str(p) for p in tracked if made & set(p.parts) or p.suffix in (".npy", ".pth", ".ark", ".log")]
    assert len(tracked) > 400 and not odd, odd[:10]


@pytest.mark.parametrize(
    "text", ["cd /wo" + "rk/main", 'open("/ro' + 'ot/x")', "see ../sha" + "red/x", "https://py" + "pi.org"]
)
def test_a_private_path_is_found(text: str) -> None:
    assert PRIVATE.search(text) or REGISTRY.search(text)


@pytest.mark.parametrize("text", ["$dir/work/x", "the root of /rootless", "a/work/b", "git rev-parse --root"])
def test_other_paths_are_left_alone(text: str) -> None:
    assert not PRIVATE.search(text) and not REGISTRY.search(text)


def holds_tests(tree: ast.Module) -> bool:
    """Whether pytest would find tests in this module if it looked."""
    return any(
        (isinstance(node, FUNCTIONS) and node.name.startswith("test_"))
        or (isinstance(node, ast.ClassDef) and node.name.startswith("Test"))
        for node in tree.body
    )


def test_every_test_file_is_collected(request: pytest.FixtureRequest, collected_files: set[Path]) -> None:
    files = {path for path, tree in TREES.items() if holds_tests(tree)}
    named = {p for p in files if p.is_relative_to(ROOT / "tests") and p.name.startswith("test_")}
    stray = sorted(str(p.relative_to(ROOT)) for p in files - named)
    empty = [str(p.relative_to(ROOT)) for p in PYTHON if p.name.startswith("test_") and p not in files]
    assert Path(__file__).resolve() in files
    assert not stray, f"tests outside tests/**/test_*.py, which nobody runs: {stray}"
    assert not empty, f"test files without tests: {empty}"
    asked = [Path(a.split("::")[0]).resolve() for a in request.config.args if not a.startswith("-")]
    if not any(a in (ROOT, ROOT / "tests") for a in asked) or request.config.option.keyword:
        pytest.skip("only a part of the tests was asked for")
    missed = sorted(str(p.relative_to(ROOT)) for p in files - collected_files)
    assert not missed, f"not collected: {missed}"


def test_shell_scripts_pass_shellcheck() -> None:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", ROOT / "tools" / "shellcheck.sh"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"shellcheck: (\d+) scripts pass", done.stdout)
    own = [p for p in SHELL if not p.is_symlink()]  # links of recipes lead to TEMPLATE
    assert said and int(said.group(1)) >= len(own) + 1, "a script was not checked (.ci/run counts too)"


def test_commands_can_be_run() -> None:
    commands = [ROOT / ".ci" / "run", *(ROOT / "tools").iterdir(), *(p for p in FILES if p.name == "run.sh")]
    stuck = [str(p.relative_to(ROOT)) for p in commands if p.is_file() and not os.access(p, os.X_OK)]
    assert len(commands) >= 3 and not stuck, f"chmod +x {stuck}"
