"""Recipes in a folder of their own, run as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_recipes(folder: Path, *names: str) -> Path:
    """``egs2`` with the template and these recipes, without what runs left in them; the first recipe's folder."""
    for name in ("TEMPLATE", *names):
        ignored = shutil.ignore_patterns("data", "dump", "exp") if name != "TEMPLATE" else None
        shutil.copytree(ROOT / "egs2" / name, folder / "egs2" / name, symlinks=True, ignore=ignored)
    for name in ("local", "conf"):
        (folder / name).symlink_to(ROOT / name)
    return folder / "egs2" / names[0] / "legonn1"


def new_recipe(folder: Path) -> Path:
    """The template and a recipe with its links alone."""
    shutil.copytree(ROOT / "egs2" / "TEMPLATE", folder / "egs2" / "TEMPLATE", symlinks=True)
    recipe = folder / "egs2" / "own" / "legonn1"
    for name in ("local", "conf"):
        (recipe / name).mkdir(parents=True)
    for name in ("path.sh", "cmd.sh", "db.sh"):
        (recipe / name).symlink_to(f"../../TEMPLATE/legonn1/{name}")
    return recipe


def run(recipe: Path, *command: str, fails: bool = False, **variables: object) -> str:
    """What a script of a recipe printed.

    Args:
        fails: it is expected to; its errors are returned too.
        variables: of the environment (``WMT14_EN_DE=folder``).
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIRTUAL_ENV": sys.prefix}
    environment |= {name: str(value) for name, value in variables.items()}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(list(command), cwd=recipe, env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr
