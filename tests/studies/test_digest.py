"""Pages put together from others: what they say, and that the committed ones say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.studies.digest import find, main, page, read_page

RESULTS = Path(__file__).resolve().parents[2] / "docs/results"
PAGE = """# RESULTS

## one

### WER

|dataset|Err|95% CI|
|---|---|---|
|decode/test|8.7|6.6 to 11.0|

## two

### WER

|dataset|Err|95% CI|
|---|---|---|
|decode/test|6.2|4.1 to 8.0|
|never|not run||

### BLEU

||De-En, BLEU|
|---|---|
|plain|30.1 (29.0 to 31.0)|
|a \\| b|32.6 ± 0.3 (31.0 to 34.0)|
"""


def write(folder: Path, **changes: Any) -> Path:
    """A page with a table of the paper's Table III and two columns of ours."""
    (folder / "RESULTS.md").write_text(PAGE)
    table = {
        "title": "Table III",
        "text": "What it says.",
        "less": "encoder",
        "columns": [
            {"title": "paper", "table": "III", "column": "test"},
            {"title": "ours", "page": "r", "table": "two / BLEU", "column": "De-En, BLEU"},
            {"title": "speech", "page": "r", "table": "one / WER", "column": "Err", "interval": "95% CI"},
        ],
        "rows": [
            {"label": "encoder", "cells": ["encoder", "plain", "decode/test"]},
            {"label": "plug", "cells": ["wemb", "a | b", {"table": "two / WER", "row": "decode/test"}]},
            {"label": "more", "cells": [None, None, {"table": "two / WER", "row": "never"}]},
        ],
        **changes,
    }
    about = {"title": "T", "text": "Words.", "pages": {"r": "RESULTS.md"}, "tables": [table], "closing": "End."}
    (folder / "paper.yaml").write_text(yaml.safe_dump(about))
    return folder / "paper.yaml"


def test_scores_and_differences(tmp_path: Path) -> None:
    """Encoder and WEmb of Table III have 30.7 and 35.0."""
    assert page(write(tmp_path)).splitlines()[2:] == [
        "# T",
        "",
        "Words.",
        "",
        "## Table III",
        "",
        "What it says.",
        "",
        "||paper|less encoder|ours|less encoder|speech|less encoder|",
        "|---|---|---|---|---|---|---|",
        "|encoder|30.7||30.1 (29.0 to 31.0)||8.7 (6.6 to 11.0)||",
        "|plug|35.0|+4.3|32.6 ± 0.3 (31.0 to 34.0)|+2.5|6.2 (4.1 to 8.0)|-2.5|",
        "|more|||||not run||",
        "",
        "",
        "End.",
    ]


STUDY = """## S

||a|less the first row|b|less the first row|
|---|---|---|---|---|
|none|34.9 ± 0.6||20.0, 1 seed||
|tuned|35.6, 1 seed|+0.1 (-0.4 to +0.6)|21.0, 1 seed|+1.2 (+0.1 to +2.0)|
|more|36.0 ± 0.2|+1.0 (+0.5 to +1.6)|24.0 ± 0.1||
"""


@pytest.mark.parametrize(
    ("less", "differences"),
    [
        ("none", {"tuned": ["+0.1 (-0.4 to +0.6)", "+1.2 (+0.1 to +2.0)"], "more": ["+1.0 (+0.5 to +1.6)", ""]}),
        ("tuned", {"none": ["", "-1.0"], "more": ["", ""]}),
    ],
)
def test_scores_of_other_seeds_are_not_subtracted(less: str, differences: dict[str, list[str]], tmp_path: Path) -> None:
    """The mean of three seeds less the score of one is no difference; the page's own is paired."""
    (tmp_path / "study.md").write_text(STUDY)
    columns = [{"title": c, "page": "s", "table": "S", "column": c} for c in "ab"]
    rows = [{"label": label, "cells": [label, label]} for label in ("none", "tuned", "more")]
    table = {"title": "T", "text": "W.", "less": less, "columns": columns, "rows": rows}
    about = {"title": "T", "text": "W.", "pages": {"s": "study.md"}, "tables": [table]}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(about))
    lines = [line.split("|")[1:-1] for line in page(tmp_path / "t.yaml").splitlines() if line.startswith("|")]
    assert {line[0]: [line[2], line[4]] for line in lines if line[0] in differences} == differences


def test_the_command_writes_beside_the_description(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write(tmp_path))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "paper.md")
    assert (tmp_path / "paper.md").read_text() == page(tmp_path / "paper.yaml")


def test_all_faults_are_told(tmp_path: Path) -> None:
    rows = [
        {"label": "encoder", "cells": ["enc", "plan", "decode/test"]},
        {"label": "plug", "cells": ["wemb", {"row": "plain", "column": "De-En"}, {"row": "x", "table": "tow / WER"}]},
        {"label": "short", "cells": ["wemb"]},
    ]
    with pytest.raises(ConfigError) as caught:
        page(write(tmp_path, rows=rows, less="encodre"))
    told = str(caught.value)
    for words in (
        "encoder: paper: the paper has no III.enc.test",
        "encoder: RESULTS.md: table 'two / BLEU' has no row 'plan' (did you mean 'plain'?)",
        "plug: RESULTS.md: table 'two / BLEU' has no columns 'De-En'",
        "plug: RESULTS.md: no table 'tow / WER'",
        "short: 1 cells, 3 columns",
        "less: no row 'encodre' (did you mean 'encoder'?)",
    ):
        assert words in told, words


def test_pages_that_are_missing_or_unused(tmp_path: Path) -> None:
    spec = write(tmp_path)
    about = yaml.safe_load(spec.read_text())
    about["pages"] |= {"a": "a.md", "b": "b.md"}
    about["tables"][0]["columns"][0] = {"title": "x", "page": "R", "table": "BLEU", "column": "De-En, BLEU"}
    about["tables"][0]["columns"][1]["page"] = "a"
    spec.write_text(yaml.safe_dump(about))
    with pytest.raises(ConfigError) as caught:
        page(spec)
    told = str(caught.value)
    for words in ("no page 'R'", "b is used by no column", "a.md: no such page; run the recipe", "b.md: no such page"):
        assert words in told, words


def test_tables_of_a_page_are_told_apart_by_their_headings(tmp_path: Path) -> None:
    write(tmp_path)
    tables = read_page(tmp_path / "RESULTS.md")
    assert [t.headings for t in tables] == [
        ("RESULTS", k, m) for k, m in (("one", "WER"), ("two", "WER"), ("two", "BLEU"))
    ]
    assert [find(tables, f"{k} / WER", "decode/test", "Err").text for k in ("one", "two")] == ["8.7", "6.2"]
    with pytest.raises(DataError, match="2 tables 'WER'; name one with the heading above it: 'one / WER'"):
        find(tables, "WER", "decode/test", "Err")


def test_what_stands_twice_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "## T\n\n||a|less|b|less|\n|---|---|---|---|---|\n|x|1|2|3|4|\n|y|5|6|7|8|\n|y|9|9|9|9|\n"
    )
    tables = read_page(tmp_path / "page.md")
    assert find(tables, "T", "x", "b").text == "3"
    with pytest.raises(DataError, match="has 2 columns 'less'"):
        find(tables, "T", "x", "less")
    with pytest.raises(DataError, match="has 2 rows 'y'"):
        find(tables, "T", "y", "a")


@pytest.mark.parametrize("spec", sorted(RESULTS.glob("*.yaml")), ids=lambda spec: spec.stem)
def test_the_committed_pages_are_what_the_command_writes(spec: Path) -> None:
    assert spec.with_suffix(".md").read_text() == page(spec), (
        "run python -m espnet2_legonn.studies.digest docs/results/*.yaml"
    )
