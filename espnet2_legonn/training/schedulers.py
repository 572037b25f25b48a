"""Learning rate by inverse square root with a start value (fairseq; Table XIII). Tri-stage is ESPnet's own."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LRScheduler

from espnet2_legonn.training.compat import load


class InverseSquareRootLR(LRScheduler, load("espnet2.schedulers.abs_scheduler").AbsBatchStepScheduler):  # type: ignore[misc]
    """Linear from ``init_lr`` to the optimizer's lr over ``warmup_steps``, then lr * sqrt(warmup_steps / step).

    Args:
        optimizer: groups may have rates of their own; ``init_lr`` is scaled alike.
        warmup_steps: number of updates of the linear part.
        init_lr: rate of the first update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_steps: int | float = 4000,
        init_lr: float = 1e-6,
        last_epoch: int = -1,
    ) -> None:
        self.warmup_steps, self.init_lr = warmup_steps, init_lr
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Rates of all groups at this step."""
        step, top = self.last_epoch, max(self.base_lrs)
        if step < self.warmup_steps:
            part = step / self.warmup_steps
            return [lr * (part + (1 - part) * self.init_lr / top) for lr in self.base_lrs]
        return [lr * (self.warmup_steps / step) ** 0.5 for lr in self.base_lrs]


def add_schedulers() -> None:
    """Make ``--scheduler inverse_sqrt`` known to ESPnet."""
    load("espnet2.tasks.abs_task").scheduler_classes["inverse_sqrt"] = InverseSquareRootLR
