"""A table of a study as a picture: a dot for each system, its interval, and its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, BASELINE = "tab:blue", "tab:gray"


def draw(table: dict[str, Any], path: Path) -> None:
    """Write a table (``studies.tables.table_of``) as SVG, a panel for each column.

    Dots are means over seeds, lines their 95 % intervals, small dots single seeds; baselines are gray. The same scores
    give the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns, rows = table["columns"], table["rows"]
    with matplotlib.rc_context({"svg.hashsalt": "legonn", "svg.fonttype": "none"}):
        figure = Figure(figsize=(4.2 + 3.2 * len(columns), 0.9 + 0.28 * len(rows)), layout="constrained")
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        plain: dict[str, Any] = {"parse_math": False}
        for number, (axis, title) in enumerate(zip(axes, columns)):
            for place, row in enumerate(rows):
                if cell := row["cells"][number]:
                    _dot(axis, place, cell, BASELINE if row["baseline"] else OURS)
            axis.set_xlabel(title, **plain)
            axis.grid(axis="x", alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_yticks(range(len(rows)), [row["label"] for row in rows], **plain)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)  # shared: the first row on top
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _dot(axis: Any, place: int, cell: dict[str, Any], color: str) -> None:
    low, high = cell["mean"].ci
    axis.plot([low, high], [place, place], color=color)
    axis.plot(list(cell["seeds"].values()), [place] * len(cell["seeds"]), ".", color=color, markersize=3)
    axis.plot(cell["mean"].value, place, "o", color=color)
