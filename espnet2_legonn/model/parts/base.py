"""What an input part is: all that the rest of the house asks about what a module reads. One file a part.

A new part is a file with a description and a class::

    @dataclass
    class GlyphsConfig:
        height: int = 12
        type: str = "glyphs"

    @INPUTS.add("glyphs")
    class GlyphsInput(InputPart):
        Config, kind, data = GlyphsConfig, "image", Column("img.scp", "image", "npy")
        ...

It is known once its module is imported: name the module with ``--plugin``, in ``LEGONN_PLUGINS``, or as an entry point
``espnet2_legonn.parts`` of an installed package, which is called as the type. Packs name types, never modules, so a
stranger's pack imports nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.model.inputs import Batch, pad
from espnet2_legonn.model.losses import Labels, ModuleLoss
from espnet2_legonn.model.registry import Registry
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import Between, BodyConfig


class Column(NamedTuple):
    """Where recipes find what a part reads: table of a data directory, ESPnet's name and type of it."""

    table: str
    name: str
    type: str


class Unfit(DataError):
    """An input is fine but not for this model, and so, most likely, are the others of its set."""


class InputPart(nn.Module):
    """The input layer of a module, and its contract.

    ``forward`` maps a padded batch and lengths (B,) to (B, T, D) and (B,).

    Attributes:
        Config: dataclass of its description, with ``type`` and, if it reads or embeds tokens, ``vocab``.
        kind: of the port: ``speech``, ``tokens``, ``marginals``, ``states`` or a new one.
        data: where recipes find it; None: no chain that is trained begins with it.
        dtype: of a padded batch.
        passes_gradient: whether the module before it learns from the losses behind it.
        collapse_slots: whether runs of slots are merged, so that slots per token do not matter.
        vocab: of the port, if it has one.
    """

    Config: ClassVar[Any]
    kind: ClassVar[str]
    data: ClassVar[Column | None] = None
    dtype: ClassVar[torch.dtype] = torch.float32
    passes_gradient: ClassVar[bool] = True
    collapse_slots: bool = False
    vocab: Vocabulary | None = None

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one step to the next; None for what is not tied to time."""
        return None

    # -- the description -------------------------------------------------------------------------------------------

    @classmethod
    def faults(cls, config: Any, where: str) -> list[str]:
        """What is wrong with values of a description, beside the ranges of numbers (``description.RANGES``)."""
        return []

    @classmethod
    def make(cls, config: Any, body: BodyConfig, vocab: Vocabulary | None, where: str) -> Self:
        """Fresh weights for a description.

        Raises:
            ConfigError: it does not go with the vocabulary.
        """
        raise NotImplementedError

    @classmethod
    def least_values(cls, config: Any, size: int, vocab_size: int) -> int:
        """Fewest numbers its weights hold, its blocks (``num_blocks``) left out."""
        return 0

    @classmethod
    def card(cls, config: Any) -> dict[str, Any]:
        """What a pack's card says of the port (fields of ``packs.card.PortCard``)."""
        return {}

    # -- data of a recipe ------------------------------------------------------------------------------------------

    @classmethod
    def total_steps(cls, config: Any, total: float, items: int) -> float:
        """Steps made of ``items`` inputs whose lengths (those of the shape file) add up to ``total``."""
        return total

    @classmethod
    def probe(cls, config: Any) -> Callable[[str], float | None] | None:
        """What looks at one value of its table and raises DataError, before a training; None: nothing to look at."""
        return None

    def measure(self, value: str) -> float | None:
        """How long a value of its table is, so that alike ones are decoded together; None: there is nothing to decode.

        Raises:
            DataError: it cannot be read.
        """
        return 0.0

    def unknown(self, value: str) -> list[str]:
        """Tokens of a value of its table that are read as <unk>."""
        return []

    def fetch(self, value: str, channel: str | None = None) -> Any:
        """The item that a value of its table stands for; what is wrong with one file alone is found here.

        Raises:
            DataError: it cannot be read; the answer to it is empty, and the others get theirs.
            Unfit: it can, but not by this model.
        """
        return value

    # -- reading ---------------------------------------------------------------------------------------------------

    def taught(self, read: torch.Tensor, lengths: torch.Tensor, labels: Labels) -> torch.Tensor:
        """What it reads in training, of what the module before wrote and of that module's labels."""
        return read

    def read(self, item: Any, place: str) -> Any:
        """What a user hands over to an array or list of this part, its first axis in time.

        Raises:
            DataError: it cannot be used.
        """
        if self.data is not None:
            return np.asarray(item)
        raise DataError(f"{place}: reads {self.kind}: give Marginals, or put an encoder before it")

    def accept(self, given: Any, notes: list[str]) -> Any:
        """What a visitor of the page gives, to an item of ``read``; what had to be done for it is noted.

        Raises:
            DataError: it is nothing, too long, or cannot be read.
        """
        if not given:
            raise DataError("nothing to read: give an input first")
        return given

    @classmethod
    def prepare(cls, value: Any, vocab: Vocabulary | None, where: str) -> np.ndarray:
        """Training data of one item, as ESPnet's reader of its type gives it, to an array; in its loader's processes.

        Raises:
            DataError: it cannot be used.
        """
        return np.asarray(value)

    def pad(self, items: Sequence[Any], device: torch.device) -> Batch:
        """Items of ``read`` to a batch (B, T, ...) and lengths (B,)."""
        return pad(items, self.dtype, device)

    def seconds(self, lengths: torch.Tensor) -> float:
        """Seconds of sound in items of these lengths, for the real-time factor; 0 for what has none."""
        return 0.0

    # -- training --------------------------------------------------------------------------------------------------

    def steps(self, lengths: torch.Tensor) -> torch.Tensor:
        """Steps T made of inputs of these lengths, (B,) -> (B,)."""
        return lengths

    def statistics(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Features (B, frames, n) and lengths whose mean and variance stage 10 collects; None: there are none."""
        return None

    @classmethod
    def has_statistics(cls) -> bool:
        """Whether stage 10 has something to collect: the part brings ``statistics`` of its own."""
        return cls.statistics is not InputPart.statistics

    @property
    def statistics_part(self) -> str | None:
        """Which submodule needs these statistics before training, and reads them by ``load_stats``."""
        return None

    @property
    def contract(self) -> Seen | None:
        """What it saw in training, for a part that reads marginals."""
        return None

    def tie(self, table: torch.Tensor) -> None:
        """Share the decoder's embedding (V, D) of the vocabulary that is read, where there is one like it."""

    @property
    def settled(self) -> dict[str, Any]:
        """What its description must say besides, so that it is made again without what it was made from."""
        return {}

    def moved(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """For another vocabulary: its tables with the rows (V',) in this order, by name."""
        return {}


class OutputPart(nn.Module):
    """The output layer of an encoder module, and its contract.

    ``forward`` maps the slots' states (B, K, D) to what the module behind reads.

    Attributes:
        Config: dataclass of its description, with ``type``.
        kind: of the port: ``marginals``, ``states`` or a new one.
        ctc_weight: of its loss; 0 is no loss.
        share_behind: share of the losses of all modules behind.
        consistency: weight of what two passes of a batch differ by; 0 is one pass.
        glancing: how many slots training shows a token (``glimpses``), as a share of those it gets wrong; 0 is none.
    """

    Config: ClassVar[Any]
    kind: ClassVar[str]
    ctc_weight: float = 0.0
    share_behind: float = 1.0
    consistency: float = 0.0
    glancing: float = 0.0

    @classmethod
    def make(cls, config: Any, size: int, vocab: Vocabulary | None) -> OutputPart:
        """Fresh weights for a description, a width D and the vocabulary of its target."""
        raise NotImplementedError

    @classmethod
    def target(cls, config: Any) -> Any:
        """What of the description holds ``vocab``, that of its labels; None if it has no loss of its own."""
        return None

    @classmethod
    def teaches(cls, config: Any) -> bool:
        """Whether a loss of its own trains the module."""
        return False

    @property
    def contract(self) -> Seen | None:
        """What it saw in training, for a part that writes marginals, or has some beside its states."""
        return None

    def log_probs(self, output: torch.Tensor) -> torch.Tensor | None:
        """Log-probabilities (B, K, V) of its vocabulary, from what ``forward`` returned; None if it has none."""
        return None

    def loss(self, log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels) -> ModuleLoss:
        """Of log-probabilities (B, K, V) with (B,) slots."""
        raise NotImplementedError

    def between(self, kept: list[torch.Tensor] | None) -> Between | None:
        """What of it stands between the blocks that make the slots; None: nothing does.

        Args:
            kept: log-probabilities (B, K, V) that its loss reads go there; None where there will be no loss.
        """
        return None

    def glimpses(self, states: torch.Tensor, slots: torch.Tensor, labels: Labels) -> torch.Tensor:
        """What training adds to the queries of the slots (B, K, D), right after a first pass without gradients.

        Args:
            states: (B, K, D) of that pass; slots: (B,).
        """
        raise NotImplementedError

    def loss_of_passes(
        self, passes: Sequence[Sequence[torch.Tensor]], slots: torch.Tensor, labels: Labels
    ) -> ModuleLoss:
        """Loss of a batch from one pass, or two: for each, what ``between`` kept, and its log-probabilities last."""
        return self.loss(passes[0][-1], slots, labels)


INPUTS: Registry[InputPart] = Registry("input")
OUTPUTS: Registry[OutputPart] = Registry("output")


def beginnings() -> dict[str, Column]:
    """What a chain that is trained may begin with: types of inputs, and where data directories have them."""
    return {name: part.data for name, part in INPUTS.items() if part.data is not None}
