"""RESULTS.md of experiments, made from result.json files only.

Layout read (one experiment)::

    exp/legonn_<tag>/<inference_tag>/<set>/score_<metric>[_<variant>]/result.json               final output
    exp/legonn_<tag>/<inference_tag>/<set>/interfaces/<module>/score_<metric>[_<variant>]/result.json

A variant (`score_wer_swb`, `score_bleu_lc`) is shown behind the set's name.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espnet2_legonn.errors import DataError
from espnet2_legonn.scoring.tables import write_atomic

RATES = ("wer", "cer", "per")
_ORDER = (*RATES, "bleu")
_NEEDED = {
    "wer": ("ref_words", "corr", "sub", "del", "ins", "errors", "sentences", "sentence_errors"),
    "bleu": ("verbose_score", "signature"),
}


@dataclass(frozen=True)
class ScoreRow:
    """One score.

    Args:
        exp: name of the experiment directory, e.g. legonn_train_an4.
        inference_tag: name of the decoding setting.
        dataset: name of the test set.
        module: the module whose interface was scored; None for the final output.
        metric: wer, cer, per, bleu or a recipe's own.
        variant: what follows the metric in the score directory's name, "" mostly.
        data: result.json.
    """

    exp: str
    inference_tag: str
    dataset: str
    module: str | None
    metric: str
    variant: str
    data: Mapping[str, object]

    @property
    def label(self) -> str:
        """ESPnet's name of the set: `<inference_tag>/<set>`, with the variant if there is one."""
        name = f"{self.inference_tag}/{self.dataset}"
        return f"{name} ({self.variant})" if self.variant else name

    @property
    def value(self) -> float:
        """The score itself, in the metric's points."""
        return float(str(self.data["value"]))

    @property
    def interval(self) -> str:
        """95 % interval, or - where there is none."""
        return interval_of(self.data) or "-"


def interval_of(result: Mapping[str, object]) -> str:
    """``30.9 to 33.4`` of a result.json; "" where there is no interval, as for a set of one speaker."""
    low, high = result.get("ci_low"), result.get("ci_high")
    return "" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def read_result(place: Path) -> dict[str, Any]:
    """The result in a folder of stage 13, or in a result.json: ``metric`` and ``value`` are there.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = place if place.suffix == ".json" else place / "result.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {**data, "metric": str(data["metric"]), "value": float(data["value"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no readable result ({error}); score it with stage 13") from None


def _natural(text: str) -> list[tuple[int, str]]:
    # test_2 before test_10, and the same order on every machine.
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def _sort_key(row: ScoreRow) -> tuple[object, ...]:
    rank = _ORDER.index(row.metric) if row.metric in _ORDER else len(_ORDER)
    return (rank, row.metric, *map(_natural, (row.inference_tag, row.dataset, row.variant, row.module or "")))


def _read_result(path: Path, faults: list[str]) -> Mapping[str, object] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        faults.append(f"{path}: not JSON ({error}); score this set again")
        return None
    needed = ["metric", "value"]
    if isinstance(data, dict):
        metric = data.get("metric")
        needed += _NEEDED.get("wer" if metric in RATES else str(metric), ())
    absent = [key for key in needed if not isinstance(data, dict) or key not in data]
    if absent:
        faults.append(f"{path}: lacks {', '.join(absent)}; score this set again")
        return None
    if isinstance(data["value"], bool) or not isinstance(data["value"], int | float):
        faults.append(f"{path}: value is {data['value']!r}, not a number; score this set again")
        return None
    return data


def summary(exp_dirs: Iterable[str | Path]) -> list[ScoreRow]:
    """All scores under some experiment directories.

    Returns:
        rows in the order of `exp_dirs`; inside one by metric (WER, CER, PER, BLEU, others), decoding,
        set, module.

    Raises:
        DataError: a directory is absent or holds no score, or a result.json is damaged; all faults at once.
    """
    rows: list[ScoreRow] = []
    faults: list[str] = []
    for exp in map(Path, exp_dirs):
        if not exp.is_dir():
            faults.append(f"{exp}: no such experiment directory")
            continue
        paths = [*exp.glob("*/*/score_*/result.json"), *exp.glob("*/*/interfaces/*/score_*/result.json")]
        if not paths:
            faults.append(f"{exp}: no */*/score_*/result.json; run the scoring stage first")
        found = []
        for path in sorted(paths):
            data = _read_result(path, faults)
            if data is not None:
                found.append(_row(exp, path, data))
        rows += sorted(found, key=_sort_key)
    if faults:
        raise DataError(faults)
    return rows


def _name(exp: Path) -> str:
    return exp.absolute().name or str(exp)


def _row(exp: Path, path: Path, data: Mapping[str, object]) -> ScoreRow:
    parts = path.relative_to(exp).parts
    metric = str(data["metric"])
    variant = parts[-2].removeprefix("score_").removeprefix(metric).lstrip("_")
    module = parts[3] if parts[2] == "interfaces" else None
    return ScoreRow(_name(exp), parts[0], parts[1], module, metric, variant, data)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table in ESPnet's compact style, ending with a newline; `|` in cells is escaped."""

    def line(cells: Sequence[object]) -> str:
        return "|" + "|".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + "|"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)]) + "\n"


def _percent(part: object, whole: object) -> str:
    return f"{100 * float(str(part)) / float(str(whole)):.1f}" if float(str(whole)) else "-"


def _rate_cells(row: ScoreRow) -> list[object]:
    d = row.data
    rates = [_percent(d[key], d["ref_words"]) for key in ("corr", "sub", "del", "ins", "errors")]
    sentences = _percent(d["sentence_errors"], d["sentences"])
    return [row.label, d["sentences"], d["ref_words"], *rates, sentences, row.interval]


def _bleu_cells(row: ScoreRow) -> list[object]:
    return [
        row.label,
        f"{row.value:.1f}",
        row.data["verbose_score"],
        row.interval,
        f"`{row.data['signature']}`",
    ]


def _other_cells(row: ScoreRow) -> list[object]:
    return [row.label, f"{row.value:.2f}", row.interval]


def _interface_cells(row: ScoreRow) -> list[object]:
    sentences = row.data.get("sentences", "-")
    return [row.label, row.module, row.metric.upper(), f"{row.value:.1f}", row.interval, sentences]


_RATE_HEADER = ("dataset", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "95% CI")
_BLEU_HEADER = ("dataset", "bleu_score", "verbose_score", "95% CI", "signature")
_OTHER_HEADER = ("dataset", "value", "95% CI")


def _layout(metric: str) -> tuple[Sequence[str], Callable[[ScoreRow], list[object]]]:
    if metric in RATES:
        return _RATE_HEADER, _rate_cells
    return (_BLEU_HEADER, _bleu_cells) if metric == "bleu" else (_OTHER_HEADER, _other_cells)


def render_tables(rows: Sequence[ScoreRow]) -> str:
    """Score tables of one experiment: one per metric for the final output, then one for all interfaces."""
    parts = []
    for metric in dict.fromkeys(row.metric for row in rows if row.module is None):
        header, cells = _layout(metric)
        final = [row for row in rows if row.module is None and row.metric == metric]
        parts.append(f"### {metric.upper()}\n\n{markdown_table(header, map(cells, final))}")
    inner = sorted(
        (row for row in rows if row.module is not None),
        key=lambda r: (
            _natural(r.inference_tag),
            _natural(r.dataset),
            _natural(r.module or ""),
            _sort_key(r),
        ),
    )
    if inner:
        table = markdown_table(("dataset", "module", "metric", "value", "95% CI", "Snt"), map(_interface_cells, inner))
        parts.append(f"### Interfaces\n\n{table}")
    return "\n".join(parts)


def count_parameters(exp_dir: Path) -> int | None:
    """`num_parameters` of the top level of the experiment's config.yaml, else None."""
    found = _told(exp_dir, r"num_parameters:\s*(\d+)")
    return int(found) if found else None


def _told(exp_dir: Path, line: str) -> str:
    """What a line of the experiment's config.yaml says; empty if there is none."""
    config = exp_dir / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    found = re.search(rf"^{line}\s*$", text, re.MULTILINE)
    return found[1] if found else ""


def _run(*command: str) -> str | None:
    """First line a command prints, None when it fails, prints nothing or takes too long."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:  # a GPU that hangs
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """``, `` and the name of the CPU, where Linux tells: results of one seed differ from CPU to CPU."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+?)\s*$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M):
            return f" ({found[1]})"
    return ""


def environment() -> dict[str, str]:
    """Where the tables were generated, in ESPnet's order. Names no host, no user and no path."""
    return {
        "date": datetime.datetime.now().astimezone().strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": platform.python_version(),
        "espnet version": _version("espnet"),
        "pytorch version": _version("torch"),
        "Git hash": _run("git", "rev-parse", "HEAD") or "not a git checkout",
        "Commit date": _run("git", "log", "-1", "--format=%cd") or "unknown",
        "Machine": f"{os.cpu_count()} CPUs{_cpu()}, GPU: "
        + (_run("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none"),
    }


def _origin(exp: Path, base: Path) -> list[str]:
    """What a pack says of itself, or the training config; the recipe's own file, which stays, if it is there."""
    if (exp / "card.yaml").is_file():
        card = yaml.safe_load((exp / "card.yaml").read_text(encoding="utf-8"))
        if told := (card.get("about") or {}).get("description"):
            return [f"- What: {told}"]
    named = _told(exp, r"config:\s*(\S+)")
    for path in [exp.parent.parent / named, Path(named)] if named else []:
        if path.is_file():
            return [f"- Config: [{named}]({os.path.relpath(path, base)})"]
    config = exp / "config.yaml"
    return [f"- Config: [{config.name}]({os.path.relpath(config, base)})"] if config.is_file() else []


def render_results(exp_dirs: Sequence[str | Path], relative_to: str | Path | None = None) -> str:
    """Text of RESULTS.md for some experiments.

    Args:
        relative_to: folder the text will lie in, which links to configs start from; default: the first
            experiment.

    Raises:
        DataError: as `summary`.
    """
    summary(exp_dirs)  # faults of all experiments before any output
    base = Path(relative_to if relative_to is not None else exp_dirs[0])
    parts = [
        "<!-- Generated by python -m espnet2_legonn.bin.legonn_score results -->",
        "# RESULTS",
        "## Environments",
    ]
    parts.append("\n".join(f"- {name}: `{value}`" for name, value in environment().items()))
    for exp in map(Path, exp_dirs):
        parts.append(f"## {_name(exp)}")
        facts = _origin(exp, base)
        parameters = count_parameters(exp)
        if parameters is not None:
            facts.append(f"- Params: {parameters / 1e6:.2f}M")
        if facts:
            parts.append("\n".join(facts))
        parts.append(render_tables(summary([exp])))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def write_results(exp_dir: str | Path) -> Path:
    """Writes `exp_dir`/RESULTS.md, replacing an older one, and returns its path."""
    path = Path(exp_dir) / "RESULTS.md"
    write_atomic(path, render_results([exp_dir]))
    return path
