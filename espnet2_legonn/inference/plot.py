"""A picture of an interface: marginals over slots, with the tokens that matter as rows."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from espnet2_legonn.errors import DataError
from espnet2_legonn.model.interface import Marginals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, ROWS = 150, 24
# A picture of all slots of a long text would take gigabytes; of a long token, too.
MAX_SLOTS, MAX_PIXELS, MAX_LABEL, MAX_TITLE = 400, 40e6, 30, 1000
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
    figure.savefig(path, dpi=_dpi(figure))
    return path


def picture(marginals: Marginals, words: str) -> Picture:
    """As ``plot_marginals``, in memory and without a title."""
    return _in_memory(_draw(marginals, "", FEW_ROWS), words)


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], names: tuple[str, str], words: str
) -> Picture:
    """Weights between 0 and 1 in memory, for instance of attention.

    Args:
        values: (R, C), row 0 on top; rows, columns: a label each, empty where there is none.
        names: of the rows and of the columns; words: the picture's text for those who cannot see it.
    """
    from matplotlib.figure import Figure

    values = values[:MAX_SLOTS, :MAX_SLOTS]
    size = (max(6.0, 1.8 + 0.2 * values.shape[1]), 1.6 + 0.2 * values.shape[0])
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    plain: dict[str, Any] = {"parse_math": False, "usetex": False, "fontsize": 8}
    axis.set_yticks(range(len(values)), [*map(_label, rows[: len(values)])], **plain)
    axis.set_xticks(range(values.shape[1]), [*map(_label, columns[: values.shape[1]])], rotation=90, **plain)
    axis.set_ylabel(names[0])
    axis.set_xlabel(names[1], loc="left")
    figure.colorbar(image, ax=axis, label="weight", shrink=0.8)
    return _in_memory(figure, words)


def _in_memory(figure: Figure, words: str) -> Picture:
    stream = io.BytesIO()
    figure.savefig(stream, dpi=_dpi(figure), format="png")
    width, height = figure.get_size_inches()
    return Picture(stream.getvalue(), (float(width), float(height)), words)


def _draw(marginals: Marginals, title: str, rows: int) -> Figure:
    if len(marginals) != 1:
        raise DataError(f"one item is drawn, these marginals hold {len(marginals)}; choose one by index")
    # Not pyplot: it keeps every figure and may be used from one thread only.
    from matplotlib.figure import Figure

    slots = int(marginals.lengths[0])
    probs = marginals[0].probs()[0, :MAX_SLOTS].cpu().numpy()  # (K, V)
    best = probs.argmax(1)
    order = list(dict.fromkeys(best.tolist()))
    others = [i for i in probs.max(0).argsort()[::-1].tolist() if i not in order and probs[:, i].max() >= 0.02]
    order += others[: max(0, rows - len(order))]
    vocab = marginals.interface.vocab
    size = (max(6.0, 1.8 + 0.24 * len(probs)), 1.6 + 0.22 * len(order))
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(probs[:, order].T, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    plain: dict[str, Any] = {"parse_math": False, "usetex": False}  # a token is a token, whatever it looks like to TeX
    axis.set_yticks(range(len(order)), [_label(vocab.tokens[i]) for i in order], fontsize=8, **plain)
    labels = [_label(vocab.tokens[i]) if i != vocab.blank_id else "·" for i in best.tolist()]
    axis.set_xticks(range(len(probs)), labels, rotation=90, fontsize=8, **plain)
    shown = f"the first {len(probs)} of {slots} slots" if slots > len(probs) else "slots"
    axis.set_xlabel(f"{shown}, each with its most probable token (· is blank)", loc="left")
    axis.set_title(title if len(title) <= MAX_TITLE else f"{title[:MAX_TITLE]}...", fontsize=9, **plain)
    figure.colorbar(image, ax=axis, label="probability", shrink=0.8)
    return figure


def _label(token: str) -> str:
    return token if len(token) <= MAX_LABEL else f"{token[:MAX_LABEL]}..."


def _dpi(figure: Figure) -> float:
    """The usual one, or less for a large picture."""
    width, height = figure.get_size_inches()
    return min(DPI, math.sqrt(MAX_PIXELS / float(width * height)))
