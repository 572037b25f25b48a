"""Speed side by side: ESPnet, CTranslate2 and ours in one process, on one thread, taking turns.

    make bench                       a few minutes: decoding and training at width 256
    make bench BENCH_ARGS=--full     all batch sizes, and the paper's size of translation
    python -m benchmarks --docs      write what is in benchmarks/ into docs/

Figures are medians of processor time, so that what else the machine does counts little. The exit status is 1 if a
ratio to the oracle, a search without caches in the same run, or to the search without CTC is worse than it should be.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks import pages, peers, systems, training  # noqa: E402

ORACLE = "ours without caches (oracle)"
# At least this many times the oracle at batch 16, and at most this much more with CTC at the largest batch.
FASTER, DEARER = 3.0, 1.35


def decoders(size: systems.Size, folder: Path) -> tuple[dict[str, systems.Decode], dict[str, systems.Decode], Any]:
    """Of texts and of speech, by name, and ESPnet's model."""
    for name in ("espnet", "float32", "int8"):
        (folder / name).mkdir()
    model, arguments = peers.espnet_model(size, folder / "espnet")
    base, chain, speech = peers.same_weights(model, size), systems.translation(size), systems.speech(size)
    texts = {"ESPnet": peers.espnet(model, arguments, folder / "espnet")}
    if has("ctranslate2"):
        for dtype in ("float32", "int8"):
            texts[f"CTranslate2, {dtype}"] = peers.ctranslate2(model, size, dtype, folder / dtype)
    texts[ORACLE] = lambda x: systems.plain_search(base, x)
    for dtype in _dtypes():
        texts[f"ours, baseline, {dtype}"] = systems.ours(base, dtype)
    for dtype in _dtypes():
        texts[f"ours, LegoNN chain, {dtype}"] = systems.ours(chain, dtype)
        texts[f"ours, LegoNN chain with CTC, {dtype}"] = systems.ours(chain, dtype, 0.4)
    texts["ours, LegoNN chain, top_k 16, float32"] = systems.ours(systems.translation(size, 16))
    if has("onnx", "onnxruntime"):
        for name, model_of in (("baseline", base), ("LegoNN chain", chain)):
            for dtype in ("float32", "int8"):
                where = folder / f"{name} {dtype}"
                texts[f"ours, {name}, export, {dtype}"] = systems.exported(model_of, dtype, where)
    sounds = {f"ours, speech chain, {dtype}": systems.ours(speech, dtype) for dtype in _dtypes()}
    sounds |= {f"ours, speech chain with CTC, {dtype}": systems.ours(speech, dtype, 0.4) for dtype in _dtypes()}
    return texts, sounds, model


def has(*packages: str) -> bool:
    """Whether these competitors are installed (the extra ``bench``)."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def _dtypes() -> list[str]:
    return ["float32", "bfloat16", "int8"] if has_bfloat16() else ["float32", "int8"]


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; elsewhere it is emulated, which says nothing."""
    flags = "".join(_lines("/proc/cpuinfo"))
    return "amx_bf16" in flags or "avx512_bf16" in flags


def seconds(work: Callable[[], Any]) -> float:
    """Processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_decoding(
    found: dict[str, systems.Decode], inputs: Callable[[int, int], torch.Tensor], batches: list[int], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Inputs a second, by system and batch size, of each round; the systems take turns."""
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    jobs = [(r, batch, name) for r in range(rounds + 1) for batch in batches for name in found]
    for r, batch, name in tqdm(jobs, unit="run", desc="decoding", file=sys.stderr):
        if (name == "ESPnet" and batch > 1) or (name == ORACLE and batch != 16):
            continue
        number = 6 if batch == 1 and r else batch
        parts = inputs(number, 100 + r).split(batch)
        took = seconds(lambda: [found[name](part) for part in parts])  # noqa: B023
        if r:  # the first round warms up
            rates[name].setdefault(str(batch), []).append(number / took)
    return rates


def agreement(found: dict[str, systems.Decode], size: systems.Size, number: int = 16) -> dict[str, float]:
    """Share of best hypotheses equal to those of our baseline in float32, of systems with its weights."""
    x = systems.sources(number, size, 7)
    wanted = found["ours, baseline, float32"](x)
    names = [name for name in found if "chain" not in name]
    return {name: sum(a == b for a, b in zip(found[name](x), wanted)) / number for name in names}


def measure_training(found: dict[str, training.Train], rounds: int, updates: int) -> dict[str, list[float]]:
    """Target tokens a second of each round."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    jobs = [(r, name) for r in range(rounds + 1) for name in found]
    for r, name in tqdm(jobs, unit="run", desc="training", file=sys.stderr):
        took = seconds(lambda: found[name](updates if r else 1))  # noqa: B023
        if r:
            rates[name].append(updates * training.BATCH * systems.LENGTH / took)
    return rates


def run(full: bool, rounds: int) -> dict[str, Any]:
    """All figures of this machine."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {"about": about(), "sizes": {}}
    sizes = {"small": systems.SMALL, **({"paper": systems.PAPER} if full else {})}
    for name, size in sizes.items():
        batches = [1, 16, 64, 256] if full and name == "small" else [1, 16, 64]
        with tempfile.TemporaryDirectory() as folder:
            texts, sounds, model = decoders(size, Path(folder))
            result: dict[str, Any] = {"agreement": agreement(texts, size)}
            result["texts"] = measure_decoding(texts, lambda n, s: systems.sources(n, size, s), batches, rounds)  # noqa: B023
            result["speech"] = measure_decoding(sounds, systems.waves, batches[:2], rounds)
            result["training"] = measure_training(training.trainings(size, model, has_bfloat16()), rounds, 3)
        results["sizes"][name] = result
    return results


def about() -> dict[str, Any]:
    """The machine and the versions."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("torch", "espnet", "ctranslate2", "onnxruntime"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "-"
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=pages.RESULTS.parent
    ).stdout
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "cpu": cpu or platform.processor(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "python": platform.python_version(),
        "commit": commit.strip(),
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def regressions(results: dict[str, Any]) -> list[str]:
    """Ratios within the run that are worse than they should be."""
    faults = []
    for name, result in results["sizes"].items():
        rates = {system: {b: statistics.median(v) for b, v in by.items()} for system, by in result["texts"].items()}
        ours, oracle = rates["ours, baseline, float32"]["16"], rates[ORACLE]["16"]
        if ours < FASTER * oracle:
            faults.append(f"{name}: {ours / oracle:.1f} times the oracle at batch 16, {FASTER} are wanted")
        plain, joint = (rates[f"ours, LegoNN chain{more}, float32"]["64"] for more in ("", " with CTC"))
        if plain > DEARER * joint:
            faults.append(f"{name}: CTC makes the search {plain / joint:.2f} times as long, {DEARER} is the limit")
    return faults


def main() -> int:
    """Measure, write, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more batch sizes, and the paper's size")
    parser.add_argument("--rounds", type=int, default=3, help="after one that warms up (default: 3)")
    parser.add_argument("--docs", action="store_true", help="only write the newest results into docs/")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.docs:
        for name, parts in pages.blocks().items():
            page = pages.DOCS / name
            page.write_text(pages.filled(page.read_text(), parts))
        return 0
    results = run(args.full, args.rounds)
    pages.RESULTS.mkdir(exist_ok=True)
    path = pages.RESULTS / f"{results['about']['date'][:10]}{'_full' if args.full else ''}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(pages.tables(results), end="")
    faults = regressions(results)
    for fault in faults:
        print(f"slower than it should be: {fault}", file=sys.stderr)
    print(f"written to {path}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
