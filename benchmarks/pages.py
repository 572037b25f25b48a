"""What the benchmarks found, as tables: `python -m benchmarks --docs` writes them between the markers of docs/*.md."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import systems, training

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
RESULTS, ACCURACY, WORDS, SCALE, PADDING = (
    HERE / "results",
    HERE / "accuracy",
    HERE / "words.json",
    HERE / "scale" / "scale.json",
    HERE / "padding.json",
)


def tables(results: dict[str, Any]) -> str:
    """Markdown."""
    facts = results["about"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"{facts['cpu']} ({facts['kernels']}), one thread; {packages};",
        f"commit `{facts['commit'][:9]}`, {facts['date']}",
    ]
    for name, result in results["sizes"].items():
        size = {"small": systems.SMALL, "paper": systems.PAPER}[name]
        shape = f"width {size.width}, {size.encoders} + {size.decoders} blocks, {size.vocab:,} tokens"
        search = f"beam {systems.BEAM}, {systems.LENGTH} tokens in and out"
        lines += ["", f"**Decoding**, {shape}, {search}. Inputs a second, and"]
        lines += ["the ratio to ESPnet, which takes one text at a time.", ""]
        base = statistics.median(result["texts"]["ESPnet"]["1"])
        lines += _table(result["texts"] | result["speech"], base, result["agreement"])
        lines += ["", f"**Training**, the same shape, {training.BATCH} texts of {systems.LENGTH} tokens an update.", ""]
        lines += ["|system|target tokens a second|x ESPnet|", "|---|---|---|"]
        first = statistics.median(result["training"]["ESPnet"])
        for system, values in result["training"].items():
            lines.append(f"|{system}|{statistics.median(values):.0f}|{statistics.median(values) / first:.2f}|")
    return "\n".join(lines) + "\n"


def _table(rates: dict[str, dict[str, list[float]]], base: float, same: dict[str, float]) -> list[str]:
    batches = sorted({batch for by in rates.values() for batch in by}, key=int)
    head = "|".join(f"batch {b}" for b in batches)
    lines = [f"|system|{head}|same best hypothesis|", "|---" * (len(batches) + 2) + "|"]
    for system, by in rates.items():
        middle = {batch: statistics.median(values) for batch, values in by.items()}
        ratio = system != "ESPnet" and "speech" not in system
        times = {b: f" (x{rate / base:.1f})" if ratio else "" for b, rate in middle.items()}
        cells = [f"{middle[b]:.1f}{times[b]}" if b in middle else "" for b in batches]
        shared = f"{100 * same[system]:.0f} %" if system in same else ""
        lines.append(f"|{system}|{'|'.join(cells)}|{shared}|")
    return lines


def newest() -> dict[str, Any]:
    """The results that were written last."""
    found = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    return dict(max(found, key=lambda results: results["about"]["date"]))


def accuracies() -> str:
    """Markdown of what `benchmarks.accuracy` found."""
    lines = []
    for path in sorted(ACCURACY.glob("*.json")):
        found = json.loads(path.read_text())
        lines += [f"**{found['name']}**, {found['inputs']:,} inputs.", ""]
        lines += [f"|dtype|tokens of a slot|{found['metric'].upper()}|same|", "|---|---|---|---|"]
        for way in found["ways"]:
            lines.append(f"|{way['dtype']}|{way['top_k'] or 'all'}|{way['score']:.1f}|{100 * way['same']:.1f} %|")
        lines.append("")
    return "\n".join(lines)


def words(found: dict[str, Any]) -> str:
    """Markdown."""
    told = found["times"]
    lines = [
        f"Word times, text given, {told['words']} words, slots tied to time: words begin {told['median']} ms (median)",
        f"and {told['90']} ms (90 %) from the truth.", "",
        f"A recording of {found['seconds']:.0f} s, with pauses between sentences:", "",
        "|model, detector|parts|WER|words begin: median / 90 %|cues begin so near a word|CPU s a second|memory|",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found["recording"]:
        begins, near = (f"{row[key]['median']} / {row[key]['90']} ms" for key in ("begins", "cues"))
        lines.append(
            f"|{row['model']}, {row['vad']}|{row['parts']}|{row['wer']}|{begins}|{near}|{row['rtf']}|{row['mb']} MB|"
        )
    lines += ["", "Hotwords, 120 utterances with rare words, all of which are given, and 80 without any:", ""]
    lines += ["|model|`hotword_weight`|WER|recall|WER without them|false alarms|", "|---|---|---|---|---|---|"]
    for name, rows in found["hotwords"].items():
        keys = ("weight", "wer", "recall", "plain_wer", "false")
        lines += [f"|{name}|{'|'.join(str(row[key]) for key in keys)}|" for row in rows]
    return "\n".join(lines) + "\n"


def scale(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each step, seconds and MB for each size."""
    sizes = sorted({row["lines"] for row in rows})
    found = {(row["step"], row["lines"]): f"{row['seconds']} s, {row['mb']} MB" for row in rows}
    lines = ["| step | " + " | ".join(f"{size:,} lines" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    steps = dict.fromkeys(row["step"] for row in rows)
    lines += [f"| {step} | " + " | ".join(found.get((step, n), "") for n in sizes) + " |" for step in steps]
    return "\n".join(lines) + "\n"


def padding(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["|encoder|parameters|in ESPnet|as a body|", "|---|---|---|---|"]
    lines += ["|{encoder}|{parameters:,}|{espnet:.0e}|{body:.0e}|".format(**row) for row in rows]
    return "\n".join(lines) + "\n"


def blocks() -> dict[str, dict[str, str]]:
    """What stands between the markers of each page, by page and name of the marker."""
    found = {"speed.md": {"tables": tables(newest()), "accuracy": accuracies()}, "speech.md": {}, "add_a_part.md": {}}
    for page, name, path, show in (
        ("speech.md", "words", WORDS, words),
        ("speed.md", "scale", SCALE, scale),
        ("add_a_part.md", "padding", PADDING, padding),
    ):
        if path.exists():
            found[page][name] = show(json.loads(path.read_text()))
    return found


def filled(text: str, parts: dict[str, str]) -> str:
    """The text of a page with these parts between their markers."""
    for name, found in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{found}{end}{rest.split(end)[1]}"
    return text
