"""A picture of an interface: marginals over slots, with the tokens that matter as rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from espnet2_legonn.errors import DataError
from espnet2_legonn.interface import Marginals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, ROWS = 150, 24
# In memory: beside other things, so without the rows that are almost white.
FEW_ROWS = 16


class Picture(NamedTuple):
    """A heat map in memory: a PNG, its width and height in inches, and its text for those who cannot see it."""

    png: bytes
    inches: tuple[float, float]
    words: str


def plot_marginals(marginals: Marginals, path: str | Path, title: str = "", rows: int = ROWS) -> Path:
    """Draw the distributions of one item as a heat map.

    Args:
        marginals: of one item (``chain.marginals(x)`` or one of a batch by index).
        path: image file; its ending chooses the format.
        rows: tokens shown: all on the best path, in order of appearance, then up to this number the most probable
            others that reach 2 % somewhere.

    Returns:
        the path.

    Raises:
        DataError: several items at once.
    """
    figure = _draw(marginals, title or marginals.greedy_text(), rows)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def picture(marginals: Marginals, words: str) -> Picture:
    """As ``plot_marginals``, in memory and without a title."""
    figure = _draw(marginals, "", FEW_ROWS)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=DPI, format="png")
    width, height = figure.get_size_inches()
    return Picture(stream.getvalue(), (float(width), float(height)), words)


def _draw(marginals: Marginals, title: str, rows: int) -> Figure:
    if len(marginals) != 1:
        raise DataError(f"one item is drawn, these marginals hold {len(marginals)}; choose one by index")
    # Not pyplot: it keeps every figure and may be used from one thread only.
    from matplotlib.figure import Figure

    probs = marginals[0].probs()[0].cpu().numpy()  # (K, V)
    best = probs.argmax(1)
    order = list(dict.fromkeys(best.tolist()))
    others = [i for i in probs.max(0).argsort()[::-1].tolist() if i not in order and probs[:, i].max() >= 0.02]
    order += others[: max(0, rows - len(order))]
    vocab = marginals.interface.vocab
    size = (max(6.0, 1.8 + 0.24 * len(probs)), 1.6 + 0.22 * len(order))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(probs[:, order].T, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks(range(len(order)), [vocab.tokens[i] for i in order], fontsize=8)
    labels = [vocab.tokens[i] if i != vocab.blank_id else "·" for i in best.tolist()]
    axis.set_xticks(range(len(probs)), labels, rotation=90, fontsize=8)
    axis.set_xlabel("slots, each with its most probable token (· is blank)", loc="left")
    axis.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axis, label="probability", shrink=0.8)
    return figure
