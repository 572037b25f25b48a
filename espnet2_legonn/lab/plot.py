"""A picture of an interface: marginals over slots, with the tokens that matter as rows."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn.errors import DataError
from espnet2_legonn.interface import Marginals


def plot_marginals(marginals: Marginals, path: str | Path, title: str = "", rows: int = 24) -> Path:
    """Draw the distributions of one item as a heat map.

    Args:
        marginals: of one item (``chain.marginals(x)`` or one of a batch by index).
        path: image file; its ending chooses the format.
        rows: most tokens shown: those on the best path first, in order of appearance, then the most probable others
            that reach 2 % somewhere.

    Returns:
        the path.

    Raises:
        DataError: several items at once.
    """
    if len(marginals) != 1:
        raise DataError(f"one item is drawn, these marginals hold {len(marginals)}; choose one by index")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    probs = marginals[0].probs()[0].cpu().numpy()  # (K, V)
    best = probs.argmax(1)
    order = list(dict.fromkeys(best.tolist()))
    others = [i for i in probs.max(0).argsort()[::-1].tolist() if i not in order and probs[:, i].max() >= 0.02]
    order = (order + others)[:rows]
    vocab = marginals.interface.vocab
    figure, axis = plt.subplots(
        figsize=(max(6.0, 1.5 + 0.32 * len(probs)), 1.6 + 0.24 * len(order)), layout="constrained"
    )
    image = axis.imshow(probs[:, order].T, aspect="auto", cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_yticks(range(len(order)), [vocab.tokens[i] for i in order], fontsize=8)
    labels = [vocab.tokens[i] if i != vocab.blank_id else "·" for i in best.tolist()]
    axis.set_xticks(range(len(probs)), labels, rotation=90, fontsize=8)
    axis.set_xlabel("slots, each with its most probable token (· is blank)")
    axis.set_title(title or marginals.greedy_text(), fontsize=9)
    figure.colorbar(image, ax=axis, label="probability", shrink=0.8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
