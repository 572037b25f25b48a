"""Modules of a chain as ONNX graphs: one for an encoder module, two for a decoder module.

::

    encoder        x, lengths                            -> output, slots, wanted [, log_probs]
    decoder start  x, lengths                            -> mask, keys_i, values_i of each block i
    decoder step   tokens, past, mask, keys_i, values_i  -> log_probs, new

All sizes but widths are free when a graph runs: batch, input steps, slots, hypotheses, length of the text. Where runs
of slots are collapsed, sizes follow from values: the runner does that before a graph (``search.collapse``).
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.attention import MultiHeadAttention, joined
from espnet2_legonn.model.length_control import LengthController, slots_for
from espnet2_legonn.model.masks import key_mask
from espnet2_legonn.model.module import DecoderModule, EncoderModule, Module
from espnet2_legonn.model.parts.ctc import CTCInterface
from espnet2_legonn.model.parts.features import FeaturesInput
from espnet2_legonn.model.parts.frames import FramesInput
from espnet2_legonn.model.parts.speech import SpeechInput
from espnet2_legonn.model.position import SinusoidalPositions, angles
from espnet2_legonn.model.transformer import CrossBlock, CrossTransformer

OPSET = 18
# Frames are padded to a multiple of this, so that pooling has no odd sizes.
FRAMES = 4
_BATCH = {0: "batch"}
_FREE = {"x": {0: "batch", 1: "time"}, "lengths": _BATCH, "slots": _BATCH, "wanted": _BATCH}
_FREE |= {"output": {0: "batch", 1: "slots"}, "log_probs": {0: "batch", 1: "slots"}}


class Graph(NamedTuple):
    """What one graph is made of.

    Args:
        body: what it computes.
        example: inputs for (batch, time); a list among them is several inputs.
        free: by input the free axes and their names.
        inputs, outputs: names.
    """

    body: nn.Module
    example: Callable[[int, int], tuple[Any, ...]]
    free: dict[str, dict[int, str]]
    inputs: list[str]
    outputs: list[str]


class _Positions(SinusoidalPositions):
    """Sinusoids made in the graph: how many are needed is known when it runs.

    Cosines are sines: ONNX Runtime 1.23, the last for Python 3.10, has no cosine of float64.
    """

    def forward(self, x: torch.Tensor, dtype: torch.dtype, start: int = 0) -> torch.Tensor:
        places = (torch.arange(x.shape[-2], dtype=torch.float64) + start) * self.step
        turned = angles(places, self.size)
        table = torch.stack([turned, turned + math.pi / 2], -1).flatten(1).sin()
        return (x + table.to(x.dtype)).to(dtype)


class _LengthController(LengthController):
    """Slots are counted in the graph, too."""

    def longest(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        return self.slots(lengths).max()


def twin(module: Module) -> Module:
    """A copy in float32 on the CPU that computes the same and can be traced; collapsing is left to the runner."""
    copied = copy.deepcopy(module).float().cpu().eval()
    for part in list(copied.modules()):
        for name, child in part.named_children():
            if type(child) is SinusoidalPositions:
                setattr(part, name, _Positions(child.size, child.step))
            elif type(child) is LengthController:
                child.__class__ = _LengthController
    if copied.input.collapse_slots:
        copied.input.collapse_slots = False
    return copied


class EncoderGraph(nn.Module):
    """An encoder module; inputs of frames begin behind the filter bank."""

    def __init__(self, module: EncoderModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, T, ...), (B,) -> output (B, K, V or D), slots (B,), slots before the maximum (B,)."""
        part, control = self.module.input, self.module.length_control
        x, lengths = part.steps_of(x, lengths) if isinstance(part, FramesInput) else part(x, lengths)
        wanted = lengths
        if control is not None:
            wanted = slots_for(lengths, *control.ratio, torch.iinfo(torch.long).max)
        x, lengths = self.module.stacks(x, lengths)
        output = self.module.interface(x)
        found = (output, lengths, wanted)
        return (*found, *filter(lambda _: self.speaks_beside, (self.module.interface.log_probs(output),)))

    @property
    def speaks_beside(self) -> bool:
        """Whether states are written with a CTC interface beside them."""
        interface = self.module.interface
        return isinstance(interface, CTCInterface) and interface.kind != "marginals"


class StartGraph(nn.Module):
    """The ingestor of a decoder module, and what cross-attention of its blocks reads."""

    def __init__(self, module: DecoderModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, K, ...), (B,) -> mask to add (B, 1, 1, S); keys (B, heads, D/heads, S), values (B, heads, S, D/heads)."""
        memory, lengths = self.module.ingest(x, lengths)
        mask = torch.where(key_mask(lengths, memory.shape[1]), 0.0, -torch.inf)
        body = cast(CrossTransformer, self.module.body)
        pairs = [(source.keys.transpose(2, 3), source.values) for source in body.sources(memory)]
        return (mask, *(tensor for pair in pairs for tensor in pair))


class StepGraph(nn.Module):
    """One more token of every hypothesis: ``TransformerStepper`` without a memory of its own."""

    def __init__(self, module: DecoderModule) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, tokens: torch.Tensor, past: torch.Tensor, mask: torch.Tensor, sources: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the next tokens, and what is to be appended to the past.

        Args:
            tokens: last ones (B, k); past: (length, B, k, W); mask, sources: of the start.

        Returns:
            (B, k, V) and (B, k, W).
        """
        module, body = self.module, cast(CrossTransformer, self.module.body)
        y = module._embed(tokens.flatten().unsqueeze(1), past.shape[0]).view(*tokens.shape, -1)
        new, width = [], 2 * y.shape[-1]
        for i, child in enumerate(body.decoders):
            block = cast(CrossBlock, child)
            own, written = _own(block.self_attn, block.norm1(y), past[..., i * width : (i + 1) * width])
            new.append(written)
            y = y + own
            y = y + _cross(block.src_attn, block.norm2(y), sources[2 * i], sources[2 * i + 1], mask)
            y = y + block.feed_forward(block.norm3(y))
        logits = module.output(body.after_norm(y))
        return logits.log_softmax(-1), torch.cat(new, -1)


def _own(a: MultiHeadAttention, y: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Self-attention of (B, k, D) over the past (length, B, k, 2 D) and itself; its own keys and values (B, k, 2 D)."""
    qkv = joined(a.linear_q, a.linear_k, a.linear_v)(y)
    query, new = qkv[..., : a.size] * (a.size // a.heads) ** -0.5, qkv[..., a.size :]
    every = torch.cat([past, new.unsqueeze(0)]).unflatten(-1, (2, a.heads, -1))
    keys, values = every.select(3, 0).permute(1, 2, 3, 4, 0), every.select(3, 1).permute(1, 2, 3, 0, 4)
    weights = (query.unflatten(-1, (a.heads, 1, -1)) @ keys).softmax(-1)
    return a.linear_out((weights @ values).flatten(2)), new


def _cross(
    a: MultiHeadAttention, y: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The hypotheses (B, k, D) of an input are the queries over its keys (B, heads, D/heads, S)."""
    query = (a.linear_q(y) * (a.size // a.heads) ** -0.5).unflatten(-1, (a.heads, -1)).transpose(1, 2)
    found = (query @ keys + mask).softmax(-1) @ values
    return a.linear_out(found.transpose(1, 2).flatten(2))


def encoder_graph(module: EncoderModule) -> Graph:
    """Of a ``twin``."""
    body = EncoderGraph(module)
    outputs = ["output", "slots", "wanted", *(["log_probs"] if body.speaks_beside else [])]
    return Graph(body, functools.partial(_example, module), _FREE, ["x", "lengths"], outputs)


def decoder_graphs(module: DecoderModule) -> tuple[Graph, Graph]:
    """Start and step of a ``twin``."""
    size = len(cast(CrossTransformer, module.body).decoders)
    names = [f"{kind}_{i}" for i in range(size) for kind in ("keys", "values")]
    example = functools.partial(_example, module)
    read = {name: {0: "batch", 2 if name.startswith("values") else 3: "slots"} for name in ("mask", *names)}
    start = Graph(StartGraph(module), example, _FREE | read, ["x", "lengths"], ["mask", *names])
    written = {0: "batch", 1: "beam"}
    past = {0: "length", 1: "batch", 2: "beam"}
    free = {"tokens": written, "past": past, "log_probs": written, "new": written, **read}

    def step_example(batch: int, time: int) -> tuple[Any, ...]:
        with torch.no_grad():
            mask, *sources = start.body(*example(batch, time))
        past = torch.randn(time, batch, 4, 2 * module.embed.embedding_dim * size)
        return torch.randint(module.embed.num_embeddings, (batch, 4)), past, mask, sources

    return start, Graph(StepGraph(module), step_example, free, ["tokens", "past", "mask", *names], ["log_probs", "new"])


def _example(module: Module, batch: int, time: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch for the module's input, and lengths; the first item is the longest."""
    part, port = module.input, module.ports[0]
    lengths = torch.randint(1, time + 1, (batch,))
    lengths[0] = time
    if isinstance(part, FramesInput):
        filters = part.dim if isinstance(part, FeaturesInput) else cast(SpeechInput, part).features.mel.n_mels
        return torch.randn(batch, FRAMES * time, filters), FRAMES * lengths - 1
    if port.kind == "tokens":
        assert port.vocab is not None
        return torch.randint(len(port.vocab), (batch, time)), lengths
    width = len(port.vocab) if port.kind == "marginals" and port.vocab is not None else port.size
    return torch.randn(batch, time, int(width or 0)).log_softmax(-1), lengths


def write(graph: Graph, path: Path, where: str) -> None:
    """Trace a graph and write it to a file.

    Args:
        where: module and part, for messages.

    Raises:
        ConfigError: something in it has no ONNX form.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    free = {name: axes for name, axes in graph.free.items() if name in (*graph.inputs, *graph.outputs)}
    graph.body.eval()  # torch gives modules back in the mode that the outermost was in
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # The exporter by tracing: that by torch.export takes forty times as long for these modules, works with
            # newer versions of torch alone and needs onnxscript. ``differences`` finds what tracing gets wrong.
            torch.onnx.export(
                graph.body, graph.example(3, 11), path, dynamo=False, opset_version=OPSET,
                input_names=graph.inputs, output_names=graph.outputs, dynamic_axes=free,
            )  # fmt: skip
    except Exception as error:  # the exporter lets through whatever its parts raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ConfigError(f"{where}: cannot be written as an ONNX graph ({reason})") from error
    finally:
        logger.setLevel(level)


def differences(graph: Graph, session: Any) -> list[str]:
    """Outputs that are not those of PyTorch at other sizes than it was traced with: sizes that follow from values.

    Args:
        session: runs the graph.
    """
    faults = []
    for batch, time in ((1, 2), (2, 37)):
        given = graph.example(batch, time)
        with torch.no_grad():
            wanted = graph.body(*given)
        flat = [x for part in given for x in (part if isinstance(part, list) else [part])]
        found = session.run(graph.outputs, {name: x.numpy() for name, x in zip(graph.inputs, flat)})
        for name, a, b in zip(graph.outputs, found, wanted):
            same = a.shape == tuple(b.shape) and torch.allclose(torch.from_numpy(a), b, rtol=1e-3, atol=1e-3)
            faults += [] if same else [f"{name} of {batch} x {time} differs from PyTorch's"]
    return faults
