#!/usr/bin/env python3
"""Write the hashes of all files that set-up may install beside the pins of constraints.txt.

Usage: .venv/bin/python tools/hashes.py --index URL     after a version in constraints.txt has changed

A package's wheels for Linux and macOS and for Python 3.10 to 3.12 are listed, the source archive where it has none.
torch and torchaudio stay without: people install them from the index that fits their GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from setup import CONSTRAINTS, UNHASHED, Pin, read_pins

JSON = "application/vnd.pypi.simple.v1+json"
PYTHONS = {"py3", *(f"{kind}3{minor}" for kind in ("cp", "py") for minor in (10, 11, 12))}
OLDER = {f"cp3{minor}" for minor in range(2, 10)}  # wheels of the stable ABI name the oldest Python they fit


def main() -> int:
    """Rewrite constraints.txt; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", required=True, help="the simple pages of a package index, with the JSON interface")
    index = parser.parse_args().index.rstrip("/")
    head, pins = read_pins()
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda pin: hashes(index, pin), pins))
    missing = [pin.line for pin, found in zip(pins, lists) if not found and pin.name not in UNHASHED]
    if missing:
        print("no file for these pins on the index:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    lines = [" \\\n    ".join([pin.line, *(f"--hash={h}" for h in found)]) for pin, found in zip(pins, lists)]
    CONSTRAINTS.write_text("\n".join([*head, *lines]) + "\n")
    print(f"{len(pins)} pins, {sum(map(len, lists))} hashes")
    return 0


def hashes(index: str, pin: Pin) -> list[str]:
    """`sha256:...` of each file of a pin, sorted; none for what people take from an index of their own."""
    if pin.name in UNHASHED:
        return []
    request = urllib.request.Request(f"{index}/{pin.name}/", headers={"Accept": JSON})
    with urllib.request.urlopen(request, timeout=60) as reply:
        files = json.load(reply)["files"]
    version = str(Requirement(pin.line).specifier).removeprefix("==")
    wheels = [file for file in files if file["filename"].endswith(".whl") and fits(file["filename"], version)]
    chosen = wheels or [file for file in files if is_source(file["filename"], version)]
    return sorted({f"sha256:{file['hashes']['sha256']}" for file in chosen})


def fits(filename: str, version: str) -> bool:
    """Whether a wheel is of this version and for a machine that we support."""
    try:
        _, found, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return False
    return str(found) == version and any(supported(tag) for tag in tags)


def supported(tag: Tag) -> bool:
    """Python 3.10 to 3.12, Linux (glibc) or macOS."""
    python = tag.interpreter in PYTHONS or (tag.abi == "abi3" and tag.interpreter in OLDER)
    ours = tag.platform == "any" or tag.platform.startswith(("manylinux", "macosx", "linux"))
    return python and ours and not tag.platform.endswith(("i686", "ppc64le", "s390x", "armv7l", "riscv64", "ppc64"))


def is_source(filename: str, version: str) -> bool:
    """Whether a file is the source archive of this version."""
    try:
        found: Any = parse_sdist_filename(filename)[1]
    except ValueError:
        return False
    return str(found) == version


if __name__ == "__main__":
    sys.exit(main())
