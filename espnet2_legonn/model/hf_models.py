"""Models of transformers that may come from anybody: described by plain data, their weights named by a digest.

A description has keys of the model's architecture alone. No code and no kernels are fetched, and weights are read as
tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from typing_extensions import Self

from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.schema import excess, nearest
from espnet2_legonn.foreign import transformers

MOST, MOST_LAYERS = 200_000, 1000  # of a number and of layers: a stranger's description may ask for more


def library(what: str = "input type pretrained") -> Any:
    """transformers.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return transformers()
    except ImportError as error:
        raise ConfigError(f"{what}: {error}") from None


@contextlib.contextmanager
def telling(where: str) -> Iterator[None]:
    """Whatever transformers makes of a wrong description or folder, as a fault of it."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # it raises what it likes, its own classes among them
        first = next(iter(str(error).splitlines()), "")
        raise ConfigError(f"{where}: {first or type(error).__name__}") from None


class Kinds:
    """The kinds of models that are read in one place, by transformers' ``model_type``.

    Args:
        families: their classes.
        apart: keys of a configuration that are none of its architecture here.
    """

    def __init__(self, families: Mapping[str, Any], apart: frozenset[str] = frozenset()) -> None:
        self.families, self.apart = families, apart

    def family(self, kind: Any, where: str) -> Any:
        """The classes of a kind of model.

        Raises:
            ConfigError: it is none that is read here.
        """
        if not isinstance(kind, str) or kind not in self.families:
            known = f"{', '.join(self.families)}{nearest(kind, self.families)}"
            raise ConfigError(f"{where}: a model of type {kind!r} is not one of {known}")
        return self.families[kind]

    def found(self, lib: Any, model: str, revision: str | None, where: str) -> tuple[Any, Any]:
        """transformers' configuration of a folder or a name on the Hub, and the classes of its kind.

        Raises:
            ConfigError: it is not there, or none that is read here.
        """
        with telling(where):
            config = lib.AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        return config, self.family(config.model_type, where)

    def _known(self, kind: str) -> dict[str, Any]:
        """Keys of a kind of model, and their defaults; not those of all models: some name code to be fetched."""
        lib = library()
        common = set(lib.PretrainedConfig().to_dict()) | self.apart
        with telling(f"a model of type {kind}"):  # which an older transformers may not have
            own = getattr(lib, self.families[kind].config)().to_dict()
        return {key: value for key, value in own.items() if key not in common and not key.startswith("_")}

    def described(self, config: Any) -> dict[str, Any]:
        """transformers' description as plain data, with what belongs to the architecture alone."""
        known = self._known(config.model_type)
        own = {key: value for key, value in config.to_dict().items() if key in known and value is not None}
        return {"model_type": config.model_type, **own}

    def architecture(self, given: dict[str, Any], where: str, **more: Any) -> Any:
        """transformers' configuration of a description that may come from anybody.

        Args:
            more: keys that are not the description's.

        Raises:
            ConfigError: keys that the kind of model does not have, or absurd numbers.
        """
        names = self.family(given.get("model_type"), where)
        known, faults = self._known(str(given["model_type"])), []
        for key, value in given.items():
            if key != "model_type" and key not in known:
                faults.append(f"{where}.{key}: no key of {names.config}{nearest(key, known)}")
            if fault := excess(value, MOST_LAYERS if "layer" in key else MOST):
                faults.append(f"{where}.{key}: {fault}")
        if faults:
            raise ConfigError(faults)
        with telling(where):
            own = {key: value for key, value in given.items() if key != "model_type"}
            return getattr(library(), names.config)(**own, **more)

    def fresh(self, config: Any, where: str = "input.architecture") -> Any:
        """A model of a configuration, with random weights."""
        with telling(where):
            return getattr(library(), self.families[config.model_type].model)(config)


class Borrowed(nn.Module):
    """A module around a model of somebody else's, whose weights it holds or leaves where they came from.

    Weights that are not held are no weights of the module: its state, its number and DDP leave them out.
    """

    def borrow(self, model: nn.Module, hold: bool) -> None:
        """Take the model in, with its weights or without."""
        self.held = model if hold else None
        self._apart = [] if hold else [model]

    @property
    def borrowed(self) -> Any:
        """The model."""
        return self._apart[0] if self.held is None else self.held

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for part in self._apart:
            part._apply(fn, recurse)
        return super()._apply(fn, recurse)


def keep_digest(config: Any, model: nn.Module, weights: str) -> None:
    """Note in a description (``hold``, ``sha256``) which weights are meant, where they are not held.

    Args:
        weights: what they are called.

    Raises:
        CheckpointError: they are others than the description says.
    """
    found = None if config.hold else digest(model)
    if found is not None and config.sha256 not in (None, found):
        raise CheckpointError(f"{weights} have SHA-256 {found}, not {config.sha256}")
    config.sha256 = found


def digest(model: nn.Module) -> str:
    """SHA-256 of a model's weights and their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return sha.hexdigest()
