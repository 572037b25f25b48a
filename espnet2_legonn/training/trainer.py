"""ESPnet's trainer where it is right, corrected where it is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.training.averaging import average_nbest_models
from espnet2_legonn.training.compat import load, patched, plain_loads
from espnet2_legonn.training.tally import ENOUGH, Tally

_stock = load("espnet2.train.trainer")


class _Counted:
    """An iterable that counts what it handed out; ``len`` as the original.

    ``tally``: of the model; it is asked once, early, whether CTC can learn anything.
    """

    def __init__(self, iterable: Iterable[Any], tally: Tally) -> None:
        self.iterable, self.count, self.tally = iterable, 0, tally

    def __iter__(self) -> Iterator[Any]:
        for item in self.iterable:
            if self.count == ENOUGH:
                self.tally.require_some("training")
            self.count += 1
            yield item

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]


class LegoNNTrainer(_stock.Trainer):  # type: ignore[name-defined]
    """Differences to ESPnet's trainer, each measured there:

    - batches left over from gradient accumulation at the end of an epoch make an update of their own, instead of
      leaking into the next epoch: so a resumed training equals one that was not interrupted;
    - averaging does not add into its own cache;
    - utterances without a CTC path are counted and told after each epoch, and an epoch of nothing else is an error.
    """

    @classmethod
    def run(cls, **kwargs: Any) -> None:
        """As ESPnet's ``Trainer.run``."""
        with patched(_stock, average_nbest_models=average_nbest_models):
            super().run(**kwargs)

    @staticmethod
    def resume(checkpoint: str | Path, **kwargs: Any) -> None:
        """As ESPnet's, but nothing in the checkpoint runs.

        Raises:
            CheckpointError: the checkpoint is damaged, another's, or holds more than plain data.
        """
        remedy = "remove it to begin anew, or start from an <n>epoch.pth with init"
        try:
            with plain_loads():
                _stock.Trainer.resume(checkpoint, **kwargs)
        except CheckpointError as error:
            raise CheckpointError(f"{fault}; {remedy}" for fault in error.faults) from None
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:  # of something else
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"{checkpoint}: cannot be resumed from ({reason}); {remedy}") from None

    @classmethod
    def train_one_epoch(cls, **kwargs: Any) -> bool:
        """As ESPnet's, and the update that it leaves out.

        Raises:
            DataError: no utterance has a CTC path.
        """
        tally = _tally(kwargs["model"])
        counted = _Counted(kwargs.pop("iterator"), tally)
        options = kwargs["options"]
        invalid = super().train_one_epoch(iterator=counted, **kwargs)
        if counted.count % options.accum_grad:
            rest = (kwargs["optimizers"], kwargs["schedulers"], options, kwargs.get("scaler"))
            invalid = not _leftover_step(kwargs["model"], *rest) and invalid
        tally.tell("training")
        return invalid

    @classmethod
    def validate_one_epoch(cls, **kwargs: Any) -> None:
        """As ESPnet's.

        Raises:
            DataError: no utterance has a CTC path.
        """
        tally = _tally(kwargs["model"])
        super().validate_one_epoch(**kwargs)
        tally.tell("validation")


def _tally(model: torch.nn.Module) -> Tally:
    """That of a model or of the one inside DDP, which begins to count."""
    inside: Any = getattr(model, "module", model)
    tally: Tally = inside.tally
    tally.begin()
    return tally


def _leftover_step(
    model: torch.nn.Module, optimizers: Any, schedulers: Any, options: Any, scaler: Any = None
) -> bool:
    """One update with the gradients at hand, scaled ones with a scaler; False if they are not finite."""
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.grad_clip, options.grad_clip_type)
    finite = bool(torch.isfinite(torch.as_tensor(norm)))
    for optimizer, scheduler in zip(optimizers, schedulers):
        if scaler is not None:
            scaler.step(optimizer)  # none, if they are not finite
            scaler.update()
        elif finite:
            optimizer.step()
        if finite and isinstance(scheduler, _stock.AbsBatchStepScheduler):
            scheduler.step()
        optimizer.zero_grad()
    return finite
