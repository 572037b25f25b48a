"""docs/speed.md and docs/speech.md are printed from what the benchmarks found."""

from __future__ import annotations

from benchmarks import __main__ as bench
from benchmarks import pages


def test_the_pages_have_the_newest_results() -> None:
    for name, parts in pages.blocks().items():
        page = (pages.DOCS / name).read_text()
        assert pages.filled(page, parts) == page, "run `python -m benchmarks --docs`"
    text = (pages.DOCS / "speed.md").read_text()
    assert all(f"|{system}|" in text for system in ("ESPnet", "ours, LegoNN chain, int8", "baseline"))


def test_worse_ratios_are_named() -> None:
    results = pages.newest()
    assert not bench.regressions(results)
    texts = results["sizes"]["small"]["texts"]
    texts[bench.ORACLE]["16"] = texts["ours, baseline, float32"]["16"]
    texts["ours, LegoNN chain with CTC, float32"]["64"] = [0.1]
    slow, dear = bench.regressions(results)
    assert slow.startswith("small: 1.0 times the oracle") and "CTC makes the search" in dear
