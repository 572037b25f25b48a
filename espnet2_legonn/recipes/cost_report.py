"""The cost of trainings for people: what ``legonn cost`` prints, and the tables of the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.configs import read_config
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes.cost import GB, Cost, training_cost
from espnet2_legonn.recipes.lengths import assumed, measured, vocab_sizes
from espnet2_legonn.scoring.results import markdown_table


def read(
    conf: Path,
    gpus: int,
    tflops: float,
    stats: Path | None = None,
    lengths: Path | None = None,
    vocabs: Mapping[str, int] | None = None,
) -> Cost:
    """The cost of a training configuration.

    Args:
        conf: with ``modules``; that of a fine-tuning is what ``legonn compose --finetune`` wrote.
        stats: folder of stage 10; without it, the lengths that the recipe assumes (``lengths``: of this file).
        vocabs: sizes of vocabularies that do not exist yet.

    Raises:
        ConfigError, DataError: everything that is missing or wrong.
    """
    data = read_config(conf)
    if not isinstance(data, dict) or "modules" not in data:
        raise ConfigError(f"{conf}: describes no chain (no 'modules'); a fine-tuning's is <composition>/train.yaml")
    if gpus < 1 or tflops <= 0:
        raise ConfigError(f"--gpus {gpus} --tflops {tflops}: both must be above 0")
    config = parse({"vocabs": data.get("vocabs"), "modules": data["modules"]})
    sizes = vocab_sizes(config, conf.parent, vocabs or {})
    found = measured(stats, config, data) if stats else assumed(conf, lengths)
    return training_cost(config, data, sizes, found, gpus, tflops)


def fits(cost: Cost, card: float) -> bool:
    """Whether a card of so many GB holds it; 0: no card was named."""
    return not card or cost.memory <= card * GB


def text(conf: Path, cost: Cost, gpus: int, card: float, tflops: float) -> str:
    """All figures of one configuration."""
    verdict = f"; {'fits' if fits(cost, card) else 'does not fit'} {card:g} GB" if card else ""
    lines = [
        f"{conf}",
        f"  parameters        {cost.parameters / 1e6:.0f} M",
        f"  items an update   {cost.items_per_update:.0f}, {cost.items_per_card:.0f} of a batch on each of {gpus} GPU",
        f"  updates           {cost.updates}",
        f"  passes over data  {cost.passes:.1f}",
        f"  memory a card     {cost.memory / GB:.1f} GB: {cost.fixed / GB:.1f} + {cost.items_per_card:.0f} x "
        f"{cost.per_item / 1e6:.0f} MB{verdict}",
        f"  time              {cost.gpu_hours:.0f} GPU hours, {cost.gpu_hours / gpus:.0f} hours at {tflops:g} TFLOP/s",
    ]
    return "\n".join(lines) + "\n"


def markdown(costs: Mapping[Path, Cost], gpus: int, card: float) -> str:
    """One table of several configurations."""
    head = ("Configuration", "Parameters, M", "Items an update", "Updates", "Passes", "GB a card", "GPU hours")
    rows = [
        (
            _short(conf),
            f"{cost.parameters / 1e6:.0f}",
            f"{cost.items_per_update:.0f}",
            f"{cost.updates}",
            f"{cost.passes:.1f}",
            f"{cost.memory / GB:.1f}" + ("" if fits(cost, card) else " (too much)"),
            f"{cost.gpu_hours:.0f}",
        )
        for conf, cost in costs.items()
    ]
    return markdown_table(head, rows)


def _short(conf: Path) -> str:
    """``swbd: train_wemb`` for a configuration of a recipe, else its name."""
    parts = conf.resolve().parts
    return f"{parts[parts.index('egs2') + 1]}: {conf.stem}" if "egs2" in parts else conf.stem
