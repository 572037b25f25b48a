"""Checkpoint averaging: a moving window over epochs, chosen by decoded validation score (paper IV-B)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.packs.store import read_tensors
from espnet2_legonn.training.compat import atomic_save


def average(paths: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Mean of the floating-point tensors of these checkpoints; other tensors are those of the last.

    Raises:
        CheckpointError: no paths, checkpoints that are damaged or of different models.
    """
    if not paths:
        raise CheckpointError("nothing to average: no checkpoints")
    states = [read_tensors(path) for path in paths]
    for path, state in zip(paths, states):
        if state.keys() != states[0].keys():
            raise CheckpointError(f"{path}: other tensors than in {paths[0]}; they are not of one training")
    mean = {}
    for key, last in states[-1].items():
        if last.is_floating_point():
            mean[key] = torch.stack([s[key].double() for s in states]).mean(0).to(last.dtype)
        else:
            mean[key] = last
    return mean


def epochs_in(exp: Path) -> list[Path]:
    """Epoch checkpoints of an experiment, oldest first."""
    numbered = [(int(p.name.removesuffix("epoch.pth")), p) for p in exp.glob("[0-9]*epoch.pth")]
    return [path for _, path in sorted(numbered)]


def windows(paths: Sequence[Path], size: int, stride: int = 1) -> list[list[Path]]:
    """All windows of ``size`` epochs in a row, the newest first; one shorter window if there are too few.

    What is kept beside the newest epochs, the best ones, has gaps: a window may lack as many epochs as it has, no more.
    """
    if len(paths) <= size:
        return [list(paths)]
    ends = range(len(paths), size - 1, -stride)
    found = [list(paths[end - size : end]) for end in ends]
    return found[:1] + [window for window in found[1:] if _span(window) <= 2 * size]


def _span(window: Sequence[Path]) -> int:
    """Epochs from the first of a window to its last."""
    first, last = (int(path.name.removesuffix("epoch.pth")) for path in (window[0], window[-1]))
    return last - first + 1


def choose(
    exp: Path, size: int, score: Callable[[dict[str, torch.Tensor]], float], candidates: int = 3, stride: int = 1
) -> tuple[Path, list[tuple[str, float]]]:
    """Average moving windows and keep the one with the best decoded score.

    Args:
        exp: experiment folder with ``<n>epoch.pth``.
        size: checkpoints averaged in a window (10 in the paper).
        score: decodes the validation set with these weights; higher is better.
        candidates: windows tried, the newest first; 0: all of the epochs that were kept.
        stride: epochs between windows.

    Returns:
        ``valid.decoded.ave.pth``, and (window, score) of all that were tried.

    Raises:
        CheckpointError: the experiment has no epoch checkpoints, or none of them is asked for.
    """
    for name, given, least in (("window", size, 1), ("candidates", candidates, 0), ("stride", stride, 1)):
        if given < least:
            raise CheckpointError(f"{exp}: {name} is {given}, but at least {least} is needed; nothing was averaged")
    paths = epochs_in(exp)
    if not paths:
        raise CheckpointError(f"{exp}: no <n>epoch.pth; train first (stage 11)")
    tried: list[tuple[str, float]] = []
    best: dict[str, torch.Tensor] | None = None
    best_score = float("-inf")
    for window in windows(paths, size, stride)[: candidates or None]:
        state = average(window)
        value = score(state)
        label = f"{window[0].name.removesuffix('epoch.pth')}-{window[-1].name.removesuffix('epoch.pth')}"
        logging.info("epochs %s averaged: decoded validation score %.2f", label, value)
        tried.append((label, value))
        if best is None or value > best_score:
            best, best_score = state, value
    path = exp / "valid.decoded.ave.pth"
    atomic_save(torch.save)(best, path)
    return path, tried


def average_nbest_models(
    output_dir: Path,
    reporter: Any,
    best_model_criterion: Sequence[Sequence[str]],
    nbest: Any,
    suffix: str | None = None,
    use_deepspeed: bool = False,
) -> None:
    """ESPnet's ``average_nbest_models`` with its files and links, without its mistake.

    ESPnet 202511 adds into the cached tensors, so every criterion after the first gets wrong averages.
    """
    sizes = sorted({nbest} if isinstance(nbest, int) else set(nbest))
    suffix = f"{suffix}." if suffix else ""
    for phase, criterion, mode in best_model_criterion:
        if not reporter.has(phase, criterion):
            if criterion != "acc":  # by default asked for, but encoders alone have none
                logging.warning("best_model_criterion: no %s in %s, so nothing is averaged by it", criterion, phase)
            continue
        ranked = [e for e, _ in reporter.sort_epochs_and_values(phase, criterion, mode)[: max(sizes)]]
        ranked = [e for e in ranked if (output_dir / f"{e}epoch.pth").exists()]
        for size in {min(size, len(ranked)) for size in sizes} - {0}:
            target = output_dir / f"{phase}.{criterion}.ave_{size}best.{suffix}pth"
            atomic_save(torch.save)(average([output_dir / f"{e}epoch.pth" for e in sorted(ranked[:size])]), target)
            if size == min(max(sizes), len(ranked)):
                link = output_dir / f"{phase}.{criterion}.ave.{suffix}pth"
                temporary = link.with_name(f".{link.name}")
                temporary.unlink(missing_ok=True)
                temporary.symlink_to(target.name)
                os.replace(temporary, link)
