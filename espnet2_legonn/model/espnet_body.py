"""Bodies that ESPnet brings: encoders of its ASR task behind our inputs, independent of padding.

::

    body: {type: e_branchformer, output_size: 256, attention_heads: 4, num_blocks: 12, cgmlp_linear_units: 1024, ...}

The keys are those of ``encoder_conf``. ESPnet is imported when such a body is built, and not before. Our input part
makes the steps, so ``input_layer`` is null (the default here) or ``linear``.

In ESPnet an item depends on the padding beside it: convolutions read it. Here every convolution over time reads zeros
there, as it does beyond the end of an item that is alone. What cannot be mended so, such as positions that are counted
from the end of the padding (``rel_pos_type: legacy``), runs item by item.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import Reader, excess, nearest
from espnet2_legonn.foreign import load
from espnet2_legonn.model.masks import valid_mask, zero_padding
from espnet2_legonn.model.transformer import BODIES, BodyConfig


class Encoder(NamedTuple):
    """One of ESPnet's encoders.

    Args:
        home, name: its module and class.
        places: whether it brings positions, so that the input part adds none; None: if ``input_layer`` is linear.
        alone: it runs item by item.
        falling: it reads batches that begin with the longest item.
    """

    home: str
    name: str
    places: bool | None = True
    alone: bool = False
    falling: bool = False


_ROOM = "espnet2.asr.encoder."
# By ESPnet's names of them. Named here, since ESPnet's own table imports every package that some encoder needs, and a
# pack must not choose a class that reads files or fetches weights.
ENCODERS = {
    "transformer": Encoder(f"{_ROOM}transformer_encoder", "TransformerEncoder", None),
    "conformer": Encoder(f"{_ROOM}conformer_encoder", "ConformerEncoder"),
    "branchformer": Encoder(f"{_ROOM}branchformer_encoder", "BranchformerEncoder"),
    "e_branchformer": Encoder(f"{_ROOM}e_branchformer_encoder", "EBranchformerEncoder"),
    "multiconv_conformer": Encoder(f"{_ROOM}multiconvformer_encoder", "MultiConvConformerEncoder"),
    "rnn": Encoder(f"{_ROOM}rnn_encoder", "RNNEncoder", falling=True),
    "contextual_block_transformer": Encoder(
        f"{_ROOM}contextual_block_transformer_encoder", "ContextualBlockTransformerEncoder", True, True
    ),
    "contextual_block_conformer": Encoder(
        f"{_ROOM}contextual_block_conformer_encoder", "ContextualBlockConformerEncoder", True, True
    ),
}
_PRETRAINED = "it reads somebody's weights when it is made; write `input: {type: pretrained}` and a small body"
REFUSED = {
    "wav2vec2": _PRETRAINED,
    "hubert": _PRETRAINED,
    "whisper": _PRETRAINED,
    "avhubert": _PRETRAINED,
    "beats": _PRETRAINED,
    "hubert_pretrain": "it is for pre-training",
    "torchaudiohubert": "it is for pre-training",
    "transformer_multispkr": "it writes one output for each speaker",
    "vgg_rnn": "it makes fewer steps, which here the input part does; take espnet:rnn",
    "longformer": "it needs the package longformer, which nobody maintains",
}
# What is chosen here where a config is silent: our own steps, positions that do not depend on padding, and attention
# that keeps its dropout (ESPnet's way into flash attention loses it).
CHOSEN = {"rel_pos_type": "latest", "use_flash_attn": False}
# Keys that mean nothing behind another input part, or belong to losses that a chain has elsewhere.
FORBIDDEN = {
    "input_size": "it is output_size",
    "padding_idx": "the input part embeds tokens",
    "pos_enc_class": "give pos_enc_layer_type",
    "interctc_layer_idx": "every module of a chain has its own CTC interface",
    "interctc_use_conditioning": "every module of a chain has its own CTC interface",
    "ctc_trim": "every module of a chain has its own CTC interface",
    "subsample": "the input part makes the steps",
}
MOST, MOST_LAYERS = 100_000, 1000  # of a number, of layers: a stranger's config may ask for more


@dataclass
class EspnetBodyConfig:
    """An encoder of ESPnet's; its keys are those of ``encoder_conf``.

    Those that are named here serve the module's other parts too (length control, ingestor). Null is ESPnet's default.

    Args:
        output_size: width D.
        attention_heads, linear_units, dropout_rate: see ESPnet.
        num_blocks: of encoders that have blocks.
        input_layer: null or linear.
        type: ``conformer``, ``e_branchformer``, or ``espnet:`` and the name of an encoder.
        others: all other keys.
    """

    output_size: int
    attention_heads: int | None = None
    linear_units: int | None = None
    dropout_rate: float | None = None
    num_blocks: int | None = None
    input_layer: str | None = None
    type: str = "conformer"
    others: dict[str, Any] = field(default_factory=dict, metadata={"rest": True})

    @property
    def size(self) -> int:
        """Width D."""
        return self.output_size

    @property
    def heads(self) -> int:
        """Attention heads, ESPnet's 4 by default."""
        return 4 if self.attention_heads is None else self.attention_heads

    @property
    def dropout(self) -> float:
        """On hidden values, ESPnet's 0.1 by default."""
        return 0.1 if self.dropout_rate is None else self.dropout_rate

    @property
    def encoder(self) -> Encoder:
        """Which encoder it is."""
        return ENCODERS[self.type.removeprefix("espnet:")]

    @property
    def places(self) -> bool:
        """Whether it brings positions."""
        return self.input_layer == "linear" if self.encoder.places is None else self.encoder.places

    @property
    def shape(self) -> str:
        """For the card of a pack."""
        layers = self.num_blocks or self.others.get("num_layers")
        return f"{self.type} {f'{layers} x ' if layers else ''}{self.size}"

    @property
    def least_values(self) -> int:
        """Numbers that its weights hold.

        Raises:
            ConfigError: ESPnet would refuse the description, or is not installed.
        """
        with torch.device("meta"):  # shapes alone
            return sum(p.numel() for p in build(self).parameters())

    def blocks(self, number: int, attention_dropout: float | None = None) -> BodyConfig:
        """A stack of plain blocks of this width, in the same module."""
        rate = self.others.get("attention_dropout_rate", 0.0) if attention_dropout is None else attention_dropout
        units = 2048 if self.linear_units is None else self.linear_units
        return BodyConfig(number, self.size, self.heads, units, self.dropout, rate)


def arguments(config: EspnetBodyConfig) -> dict[str, Any]:
    """What the encoder's class is called with.

    Raises:
        ConfigError: every key that it does not know or take, and every value of another type.
    """
    where, cls = f"body ({config.type})", encoder_class(config.type)
    named = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in ("type", "others")}
    given = {k: v for k, v in {**named, **config.others}.items() if v is not None}
    faults = []
    if config.input_layer not in (None, "linear"):
        fault = f"{config.input_layer!r} makes steps, as the input part does: null, linear"
        faults.append(f"{where}.input_layer: {fault}")
    try:
        given = keywords(cls, given, where, FORBIDDEN)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    known = inspect.signature(cls.__init__).parameters
    chosen = {key: value for key, value in CHOSEN.items() if key in known}
    if "subsample" in known:
        chosen["subsample"] = None
    return {**chosen, **given, "input_size": config.size}


def keywords(cls: Any, given: Mapping[str, Any], where: str, forbidden: Mapping[str, str]) -> dict[str, Any]:
    """Keys of YAML as the arguments of a class of ESPnet's, checked by its constructor.

    Args:
        forbidden: keys that it knows but that are not taken here, each with the reason.

    Raises:
        ConfigError: every key that it does not know or take, and every value of another type.
    """
    offered = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", *forbidden)]
    hints, reader, checked = typing.get_type_hints(cls.__init__), Reader(), {}
    for key, value in given.items():
        if key in forbidden:
            reader.fault(f"{where}.{key}", f"does not go with a chain: {forbidden[key]}")
        elif key not in offered:
            reader.fault(where, f"unknown key {key!r}{nearest(key, offered)}; {cls.__name__} has {', '.join(offered)}")
        else:
            checked[key] = reader.coerce(hints.get(key, Any), value, f"{where}.{key}")
            if fault := excess(value, MOST_LAYERS if key.startswith("num_") else MOST):
                reader.fault(f"{where}.{key}", fault)
    if reader.faults:
        raise ConfigError(reader.faults)
    return checked


def encoder_class(kind: str) -> Any:
    """The class of a body's type.

    Raises:
        ConfigError: ESPnet, or what it needs for this encoder, is not installed.
    """
    entry = ENCODERS[kind.removeprefix("espnet:")]
    try:
        return getattr(load(entry.home), entry.name)
    except ImportError as error:
        raise ConfigError(f"body type {kind} is ESPnet's: {error}") from None


def build(config: EspnetBodyConfig) -> nn.Module:
    """ESPnet's encoder, fresh.

    Raises:
        ConfigError: ESPnet refuses the description.
    """
    given, cls = arguments(config), encoder_class(config.type)
    parameters = inspect.signature(cls.__init__).parameters
    # Not all classes take null, or make positions then: of the layers that they make, these alone are kept.
    bare = "input_layer" in parameters and config.input_layer is None and config.places
    if "input_layer" in parameters:
        given["input_layer"] = "linear" if bare else config.input_layer
    try:
        encoder = cls(**given)
    except (AssertionError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"body ({config.type}): ESPnet refuses it: {str(error) or type(error).__name__}") from None
    if bare:
        last = encoder.embed[-1]
        encoder.embed = nn.Sequential(last if hasattr(last, "pe") or hasattr(last, "conv") else nn.Identity())
    return typing.cast(nn.Module, encoder)


class _Padding:
    """Where items end, for the hooks of one body."""

    def __init__(self) -> None:
        self.lengths: torch.Tensor | None = None

    def hide(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Before a convolution over time: (B, C, T) with zeros where there is no item."""
        x = inputs[0]
        if self.lengths is None or x.dim() != 3:
            return inputs
        return (x.masked_fill(~valid_mask(self.lengths, x.shape[2])[:, None], 0.0), *inputs[1:])


class ItemNorm(nn.BatchNorm1d):
    """Batch norm whose mean and variance are those of the items: in training, padding is no data."""

    padding: _Padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T) -> the same; running statistics are kept as PyTorch keeps them."""
        lengths = self.padding.lengths
        if not self.training or lengths is None or self.running_mean is None or self.running_var is None:
            return super().forward(x)
        kind = torch.promote_types(x.dtype, torch.float32)
        mask = valid_mask(lengths, x.shape[2])[:, None].to(kind)
        number = mask.sum()
        mean = (x * mask).sum((0, 2)) / number
        centred = x - mean[:, None]
        variance = (centred.square() * mask).sum((0, 2)) / number
        with torch.no_grad():
            step = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), step)
            self.running_var.lerp_((variance * number / (number - 1).clamp(min=1)).to(self.running_var), step)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        y = centred * (variance + self.eps).rsqrt()[:, None]
        return (y * self.weight[:, None] + self.bias[:, None]).to(x.dtype)


def _forget(module: Any, inputs: Any, output: Any) -> None:
    """ESPnet's attention keeps its last map with the graph: memory, and a model that cannot be copied."""
    module.attn = None


class EspnetBody(nn.Module):
    """One of ESPnet's encoders; (B, T, D) -> (B, T, D). An item does not depend on its padding.

    Args:
        config: its description.

    Raises:
        ConfigError: ESPnet refuses the description, or is not installed.
    """

    Config: ClassVar[type] = EspnetBodyConfig
    decodes: ClassVar[bool] = False

    def __init__(self, config: EspnetBodyConfig) -> None:
        super().__init__()
        self.encoder, self.padding = build(config), _Padding()
        self.alone, self.falling = config.encoder.alone, config.encoder.falling
        for part in self.encoder.modules():
            self._mend(part)
        self.kind = config.type

    def _mend(self, part: Any) -> None:
        if isinstance(part, nn.Conv1d) and part.kernel_size[0] > 1:
            part.register_forward_pre_hook(self.padding.hide)
        if type(part) is nn.BatchNorm1d:
            norm: Any = part
            norm.__class__, norm.padding = ItemNorm, self.padding
        if hasattr(part, "linear_q"):
            part.register_forward_hook(_forget)
        if isinstance(getattr(part, "xscale", None), float):
            # ESPnet's own layers begin small and are scaled by sqrt(D); our input parts write what stands beside
            # positions, and a linear layer ends in a norm.
            part.xscale = 1.0
        # Its sinusoids are counted from the end of the longest item.
        self.alone = self.alone or type(part).__name__ == "LegacyRelPositionalEncoding"

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, T, D), (B,) -> (B, T, D).

        Raises:
            ConfigError: the encoder makes another number of steps.
        """
        longest = int(lengths.max())  # ESPnet's masks are made on the host, too
        if self.alone:
            items = [self._run(x[i : i + 1, :n], lengths[i : i + 1])[0] for i, n in enumerate(lengths.tolist())]
            y = pad_sequence(items, batch_first=True)
        elif self.falling:
            order = lengths.argsort(descending=True, stable=True)
            y = self._run(zero_padding(x[:, :longest], lengths)[order], lengths[order])[order.argsort()]
        else:
            y = self._run(zero_padding(x[:, :longest], lengths), lengths)
        if y.shape[1] != longest:
            raise ConfigError(f"body ({self.kind}): makes {y.shape[1]} steps of {longest}; the input part makes steps")
        return F.pad(y, (0, 0, 0, x.shape[1] - longest))

    def _run(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False):  # what is first needed in decoding must serve training, too
            like = x.new_empty(1, 1).expand(1, x.shape[1])
            for part in self.encoder.modules():
                if isinstance(getattr(part, "pe", None), torch.Tensor) and not hasattr(part, "tmp"):
                    part.extend_pe(like)  # type: ignore[operator]
        self.padding.lengths = lengths
        try:
            return typing.cast(torch.Tensor, self.encoder(x, lengths)[0])
        finally:
            self.padding.lengths = None


for _name in ENCODERS:
    BODIES.add(f"espnet:{_name}")(EspnetBody)
for _name in ("conformer", "e_branchformer"):
    BODIES.add(_name)(EspnetBody)
BODIES.refused |= {f"espnet:{name}": reason for name, reason in REFUSED.items()}
