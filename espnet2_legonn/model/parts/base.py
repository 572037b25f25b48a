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

import importlib
import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import nn
from typing_extensions import Self

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.inputs import Batch, pad
from espnet2_legonn.model.seen import Seen
from espnet2_legonn.model.transformer import BodyConfig

ENTRY_POINTS, PLUGINS = "espnet2_legonn.parts", "LEGONN_PLUGINS"
_T = TypeVar("_T")


class Registry(Mapping[str, type[_T]], Generic[_T]):
    """Classes by the ``type`` of descriptions; installed packages are asked for types that are not here."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.known: dict[str, type[_T]] = {}

    def add(self, name: str) -> Callable[[type[_T]], type[_T]]:
        """Decorator: this class is meant by ``type: name``.

        Raises:
            ConfigError: another class has the name.
        """

        def register(cls: type[_T]) -> type[_T]:
            other = self.known.setdefault(name, cls)
            if other is not cls and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ConfigError(f"{self.what} {name!r}: {cls.__module__} and {other.__module__} both bring one")
            self.known[name] = cls
            return cls

        return register

    def __getitem__(self, name: str) -> type[_T]:
        if name not in self.known:
            for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
                entry.load()
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


def load_plugins(names: Iterable[str] = ()) -> None:
    """Import the modules that bring parts of a user's own: those named, and those of ``LEGONN_PLUGINS`` (a,b).

    Raises:
        ConfigError: a module cannot be imported.
    """
    for name in [*names, *filter(None, os.environ.get(PLUGINS, "").split(","))]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"plugin {name}: cannot be imported ({error}); is its folder on PYTHONPATH?") from None


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

    def fetch(self, value: str, channel: str | None = None) -> Any:
        """The item that a value of its table stands for.

        Raises:
            DataError: it cannot be read.
            Unfit: it can, but not by this model.
        """
        return value

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, item: Any, place: str) -> Any:
        """What a user hands over to an array or list of this part, its first axis in time.

        Raises:
            DataError: it cannot be used.
        """
        raise DataError(f"{place}: {type(self).__name__} reads {self.kind}: give Marginals, or put an encoder before it")

    def prepare(self, value: Any, where: str) -> Any:
        """Training data of one item, as ESPnet's reader of its type gives it, to an array.

        Raises:
            DataError: it cannot be used.
        """
        return self.read(value, where)

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

    @property
    def statistics_part(self) -> str | None:
        """Which submodule needs these statistics before training, and reads them by ``load_stats``."""
        return None

    @property
    def contract(self) -> Seen | None:
        """What it saw in training, for a part that reads marginals."""
        return None


INPUTS: Registry[InputPart] = Registry("input")
