"""Utterances that CTC cannot learn from, counted exactly and told after each epoch."""

from __future__ import annotations

import logging

import torch

from espnet2_legonn.errors import DataError
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.module import EncoderModule, learns

# Of the utterances; beyond it the log warns.
MANY = 0.01
# Updates after which a training that cannot learn is stopped; an epoch may take hours.
ENOUGH = 100


class Tally:
    """Utterances without a CTC path (labels and repeats need more slots than there are), by module.

    Args:
        chain: the modules that are counted for.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.sums: dict[str, torch.Tensor] = {}

    def begin(self) -> None:
        """Count from zero."""
        self.sums = {}

    def add(self, module: str, counts: torch.Tensor) -> None:
        """Add a batch of all processes: (2,) utterances without a path, and utterances."""
        self.sums[module] = self.sums.get(module, 0) + counts.detach()

    def require_some(self, phase: str) -> None:
        """Stop where CTC has nothing to learn from and never will.

        Raises:
            DataError: a module is trained by CTC, its slots follow from the lengths of the inputs, and no utterance has
                a path.
        """
        faults = []
        for name, (lost, number) in self._counts().items():
            module = self.chain[name].first
            taught = isinstance(module, EncoderModule) and module.interface.ctc_weight > 0 and learns(module)
            if taught and number and lost == number and not self._grows(name):
                faults.append(
                    f"{name}: none of {number} utterances has a CTC path ({phase}): their labels need more slots than "
                    f"there are, and CTC teaches nothing; {_remedy(name)}"
                )
        if faults:
            raise DataError(faults)

    def tell(self, phase: str) -> None:
        """Log what was counted, as a warning where it is much.

        Raises:
            DataError: see ``require_some``.
        """
        self.require_some(phase)
        for name, (lost, number) in self._counts().items():
            if lost:
                much = lost > MANY * number
                said = f"{name}: {lost} of {number} utterances ({100 * lost / number:.2f} %) have no CTC path ({phase})"
                if self._grows(name):
                    said += ", so far: they are collapsed slots, and there are more once what writes them has learned"
                elif much:
                    said += f": CTC learns nothing of them; {_remedy(name)}"
                logging.log(logging.WARNING if much else logging.INFO, said)

    def _grows(self, name: str) -> bool:
        """Whether training changes how many slots a module has: an ingestor collapses what other modules say."""
        before = list(self.chain)[: self.chain.names.index(name) + 1]
        return any(module.input.collapse_slots for module in before)

    def _counts(self) -> dict[str, tuple[int, int]]:
        return {name: (int(sums[0]), int(sums[1])) for name, sums in self.sums.items()}


def _remedy(module: str) -> str:
    return (
        f"give {module}.length_control more slots (slots_per_token: 2, or a larger ratio or max_length), or the texts "
        "larger units; or do inputs and texts not belong together?"
    )
