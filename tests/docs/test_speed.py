"""docs/speed.md is printed from the benchmark's results."""

from __future__ import annotations

from benchmarks import __main__ as bench


def test_the_page_has_the_newest_results() -> None:
    text = bench.PAGE.read_text()
    assert bench.page(text) == text, "run `python -m benchmarks --docs`"
    assert all(f"|{system}|" in text for system in ("ESPnet", "ours, LegoNN chain, int8", "baseline"))


def test_worse_ratios_are_named() -> None:
    results = bench.newest()
    assert not bench.regressions(results)
    texts = results["sizes"]["small"]["texts"]
    texts[bench.ORACLE]["16"] = texts["ours, baseline, float32"]["16"]
    texts["ours, LegoNN chain with CTC, float32"]["64"] = [0.1]
    slow, dear = bench.regressions(results)
    assert slow.startswith("small: 1.0 times the oracle") and "CTC makes the search" in dear
