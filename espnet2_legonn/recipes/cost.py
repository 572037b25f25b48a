"""What training a configuration costs, from the configuration alone: parameters, updates, memory a card, hours.

Memory counts what PyTorch keeps for the backward pass, layer by layer (`tests/recipes/test_cost.py` compares it with
what PyTorch really keeps); time counts 6 operations for each weight and position. Both are estimates.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from espnet2_legonn.model.description import ChainConfig, ModuleConfig, parse_ratio
from espnet2_legonn.model.parts import BeamConvConfig, SpeechConfig, StatesConfig, TokensConfig, WEmbConfig
from espnet2_legonn.model.transformer import BodyConfig
from espnet2_legonn.recipes.lengths import MeanLengths

Sizes = Mapping[str, int]

GB = 1e9
CONTEXT = 0.7e9  # what CUDA and its libraries take before the first tensor
ALLOCATOR = 1.08  # blocks that the allocator holds and nobody uses


@dataclass(frozen=True)
class Precision:
    """Bytes of a value that a matrix product reads, and whether dropout keeps its mask."""

    narrow: int
    dropout: bool

    @property
    def copies(self) -> int:
        """Casts of one float32 value to the narrow type: each reader of a LayerNorm makes its own."""
        return int(self.narrow < 4)

    @property
    def read(self) -> int:
        """Bytes of a value of a LayerNorm's output as its reader keeps it: cast, or as it is."""
        return self.narrow if self.copies else 4


@dataclass
class Layer:
    """One part of a module.

    Args:
        name: module and part.
        parameters: all of them, biases and norms too.
        work: weights x positions of an item, of its matrix products.
        kept: bytes of an item that wait for the backward pass.
        passing: bytes of an item that exist only when its backward pass begins.
    """

    name: str
    parameters: int
    work: float = 0.0
    kept: float = 0.0
    passing: float = 0.0


def _linear(a: int, b: int) -> int:
    return a * b + b


def encoder_stack(name: str, body: BodyConfig, blocks: int, steps: float, precision: Precision) -> Layer:
    """Self-attention blocks and the norm behind them, over ``steps`` positions."""
    d, f, p = body.size, body.linear_units, precision
    parameters = blocks * (4 * _linear(d, d) + _linear(d, f) + _linear(f, d) + 4 * d) + 2 * d
    kept = blocks * steps * (_self_attention(d, p) + _feed_forward(d, f, p)) + 4 * d * steps
    return Layer(name, parameters, blocks * steps * (4 * d * d + 2 * d * f), kept)


def cross_stack(name: str, body: BodyConfig, blocks: int, steps: float, source: float, precision: Precision) -> Layer:
    """Blocks with cross-attention from ``steps`` positions to ``source`` positions, and the norm behind them."""
    d, f, p = body.size, body.linear_units, precision
    parameters = blocks * (8 * _linear(d, d) + _linear(d, f) + _linear(f, d) + 6 * d) + 2 * d
    work = blocks * (steps * (6 * d * d + 2 * d * f) + source * 2 * d * d)
    # Queries: norm, its cast, query, answer, mask. Source: a cast, keys and values.
    queries = 4 * d + p.read * d + 2 * p.narrow * d + p.dropout * d
    read = p.copies * p.narrow * d + 2 * p.narrow * d
    kept = blocks * (steps * (_self_attention(d, p) + queries + _feed_forward(d, f, p)) + source * read) + 4 * d * steps
    return Layer(name, parameters, work, kept)


def _self_attention(d: int, p: Precision) -> int:
    """Bytes a position: input of the norm; its output, cast or not; query, key, value, answer; mask."""
    return 4 * d + p.read * d + 4 * p.narrow * d + p.dropout * d


def _feed_forward(d: int, f: int, p: Precision) -> int:
    """Bytes a position: input of the norm, its output; ReLU's output, and after dropout with its mask; mask."""
    return 4 * d + p.read * d + p.narrow * f + p.dropout * (f + p.narrow * f + d)


def interface(name: str, size: int, vocab: int, slots: float, precision: Precision) -> Layer:
    """The projection to a vocabulary, its log-softmax in float32, and the CTC loss."""
    kept = slots * (4 * vocab + precision.copies * precision.narrow * size)
    return Layer(name, _linear(size, vocab), slots * size * vocab, kept, slots * 8 * vocab)


@functools.singledispatch
def input_layers(spec: object, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    """The layers of a module's input, for an item of ``steps`` samples, ids or slots.

    An input that has said nothing here counts the numbers that its weights hold at least.
    """
    vocab = sizes[module.source_vocab] if module.source_vocab else 0
    return [Layer(f"{module.name}.input", module.reads.least_values(spec, module.body.size, vocab))]


@input_layers.register
def _(spec: StatesConfig, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    return []


@input_layers.register
def _(spec: TokensConfig, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    kept = (steps + 1) * (8 + precision.dropout * module.body.size)
    return [Layer(f"{module.name}.input", sizes[spec.vocab] * module.body.size, kept=kept)]


@input_layers.register
def _(spec: SpeechConfig, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    # Two convolution blocks; frames come every 10 ms, steps every 40.
    size = module.body.size
    (a, b), mels, n = spec.channels, spec.n_mels, precision.narrow
    frames = steps / (spec.fs * 10 // 1000)
    outer, inner = mels, -(-mels // 2) / 2  # filters of the first block, and of the second for each frame of the first
    folded = b * (-(-mels // 4))
    parameters = 9 * (a + a * a + a * b + b * b) + 2 * a + 2 * b + _linear(folded, size)
    work = frames * 9 * (outer * (a + a * a) + inner * (a * b + b * b)) + frames / 4 * folded * size
    # A block keeps the first ReLU, what pooling reads, half of it between its two maxima, and the second ReLU.
    first = outer * n + 2.75 * n * a * outer
    second = 2.75 * n * b * inner
    kept = frames * (first + second) + frames / 4 * precision.dropout * size
    return [Layer(f"{module.name}.input", parameters, work, kept)]


@input_layers.register
def _(spec: WEmbConfig, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    stack, vocab, size = _ingestor(module, steps, precision), sizes[spec.vocab], module.body.size
    out = module.output
    # The decoder's own table, which is counted there.
    tied = module.decodes and out.tie and spec.receptive_field == 1 and spec.vocab == out.vocab
    stack.parameters += 0 if tied else vocab * size * spec.receptive_field
    stack.work += steps * vocab * size * spec.receptive_field
    stack.kept += steps * vocab * (4 + precision.narrow)
    return [stack]


@input_layers.register
def _(spec: BeamConvConfig, module: ModuleConfig, sizes: Sizes, steps: float, precision: Precision) -> list[Layer]:
    stack, width = _ingestor(module, steps, precision), spec.k * spec.embed_size
    size = module.body.size
    stack.parameters += sizes[spec.vocab] * spec.embed_size + width * spec.receptive_field * size
    stack.work += steps * width * spec.receptive_field * size
    stack.kept += steps * (8 * spec.k + precision.narrow * width)
    return [stack]


def _ingestor(module: ModuleConfig, steps: float, precision: Precision) -> Layer:
    """The blocks of an ingestor, and the dropout before them."""
    blocks = module.input.num_blocks
    stack = encoder_stack(f"{module.name}.input", module.body, blocks, steps, precision)
    stack.kept += steps * precision.dropout * module.body.size
    return stack


@dataclass(frozen=True)
class ChainCost:
    """Layers of a chain by module, for one item."""

    modules: Mapping[str, list[Layer]]
    trained: Mapping[str, bool]

    @property
    def parameters(self) -> int:
        """All of them, frozen ones too."""
        return sum(layer.parameters for layers in self.modules.values() for layer in layers)

    @property
    def trainable(self) -> int:
        """Parameters of the modules that are not frozen."""
        return sum(x.parameters for name, layers in self.modules.items() if self.trained[name] for x in layers)

    @property
    def operations(self) -> float:
        """Floating-point operations of an item, forward and backward: 6 for a weight and position.

        A frozen module has no gradients of weights (4); before the first trained one nothing goes backward (2).
        """
        total, begun = 0.0, False
        for name, layers in self.modules.items():
            begun = begun or self.trained[name]
            factor = 6 if self.trained[name] else 4 if begun else 2
            total += factor * sum(layer.work for layer in layers)
        return total

    @property
    def bytes_per_item(self) -> float:
        """What an item takes when the backward pass begins."""
        kept, begun = 0.0, False
        for name, layers in self.modules.items():
            begun = begun or self.trained[name]
            kept += sum(layer.kept for layer in layers) if begun else 0.0
        last = list(self.modules.values())[-1]
        return ALLOCATOR * (kept + max(layer.passing for layer in last))


def chain_cost(config: ChainConfig, sizes: Sizes, lengths: MeanLengths, amp: bool) -> ChainCost:
    """Layers of a described chain.

    Args:
        sizes: tokens of each vocabulary.
        lengths: mean lengths of the training set.
        amp: half precision in matrix products.
    """
    modules: dict[str, list[Layer]] = {}
    trained: dict[str, bool] = {}
    steps = lengths.input
    for module in _one_name_each(config):
        trained[module.name] = module.trains
        precision = Precision(2 if amp else 4, module.body.dropout > 0)
        layers = input_layers(module.input, module, sizes, steps, precision)
        steps = module.reads.total_steps(module.input, steps, 1)
        if module.decodes:
            layers += _decoder_layers(module, sizes, steps, lengths, precision)
        else:
            encoder, steps = _encoder_layers(module, sizes, steps, lengths, precision)
            layers += encoder
            if getattr(module.output, "consistency", 0) and trained[module.name]:  # two passes
                layers = [replace(layer, work=2 * layer.work, kept=2 * layer.kept) for layer in layers]
        modules[module.name] = layers
    return ChainCost(modules, trained)


def _one_name_each(config: ChainConfig) -> list[ModuleConfig]:
    """The modules, with one name for vocabularies that are described alike: they can share a matrix."""
    modules = copy.deepcopy(config.modules)
    for module in modules:
        module.rename({n: next(k for k, v in config.vocabs.items() if v == config.vocabs[n]) for n in module.vocabs})
    return modules


def _encoder_layers(
    module: ModuleConfig, sizes: Sizes, steps: float, lengths: MeanLengths, precision: Precision
) -> tuple[list[Layer], float]:
    body, control, target = module.body, module.length_control, module.target
    layers = [_body(f"{module.name}.body", body, steps, precision)]
    if control is not None:
        if control.ratio is not None:
            slots = steps * float(parse_ratio(control.ratio))
        else:
            slots = (control.slots_per_token or 1.0) * lengths.of(target.vocab if target else "")
        slots = min(slots, control.max_length)
        layer = cross_stack(f"{module.name}.length_control", body, control.num_blocks, slots, steps, precision)
        layer.parameters += control.max_length * body.size
        layers.append(layer)
        steps = slots
    if target is not None:
        layers += _interfaces(module, sizes[target.vocab], steps, precision)
    if getattr(module.output, "glancing", 0) and module.trains:
        # All but the body pass once more before, without gradients: a third of a pass with them.
        layers[1:] = [replace(layer, work=layer.work * 4 / 3) for layer in layers[1:]]
    return layers, steps


def _interfaces(module: ModuleConfig, vocab: int, slots: float, precision: Precision) -> list[Layer]:
    """The interface; intermediate ones share its weights, and a projection brings back what self-conditioning reads."""
    size, intermediate = module.body.size, getattr(module.output, "intermediate", None)
    last = interface(f"{module.name}.interface", size, vocab, slots, precision)
    if getattr(module.output, "consistency", 0):
        last.kept += 4 * slots * vocab  # probabilities that the other pass is compared with
    if intermediate is None:
        return [last]
    found = [replace(last, name=f"{last.name}.{number}", parameters=0) for number in intermediate.blocks]
    for layer in found:
        layer.kept += 4 * size * slots  # what the norm reads
        if intermediate.self_conditioned:
            layer.work += slots * size * vocab
            layer.kept += (4 + precision.copies * precision.narrow) * slots * vocab  # probabilities
    last.parameters += _linear(vocab, size) if intermediate.self_conditioned else 0
    return [*found, last]


def _body(name: str, body: Any, steps: float, precision: Precision) -> Layer:
    if isinstance(body, BodyConfig):
        return encoder_stack(name, body, body.num_blocks, steps, precision)
    # Others say how many weights they have; what they keep is that of a transformer with as many.
    weights, like = body.least_values, body.blocks(1)
    block = encoder_stack(name, like, 1, steps, precision)
    return Layer(name, weights, weights * steps, block.kept * weights / block.parameters)


def _decoder_layers(
    module: ModuleConfig, sizes: Sizes, steps: float, lengths: MeanLengths, precision: Precision
) -> list[Layer]:
    body, out = module.body, module.output
    vocab, tokens = sizes[out.vocab], lengths.of(out.vocab) + 1
    name = f"{module.name}.body"
    if isinstance(body, BodyConfig):
        stack = cross_stack(name, body, body.num_blocks, tokens, steps, precision)
    else:
        stack = _body(name, body, tokens + steps, precision)
    stack.kept += tokens * (8 + precision.dropout * body.size)
    kept = tokens * (4 * vocab + precision.copies * precision.narrow * body.size)
    passing = tokens * (12 + precision.copies * precision.narrow) * vocab
    tables = vocab * body.size * (1 if out.tie else 2)
    return [stack, Layer(f"{module.name}.output", tables, tokens * body.size * vocab, kept, passing)]


@dataclass(frozen=True)
class Cost:
    """A training: see the fields; memory in bytes."""

    parameters: int
    items_per_update: float
    updates: int
    passes: float
    items_per_card: float
    fixed: float
    per_item: float
    gpu_hours: float

    @property
    def memory(self) -> float:
        """Bytes of a card: what does not depend on the batch, and its share of a batch."""
        return self.fixed + self.per_item * self.items_per_card


def training_cost(
    config: ChainConfig,
    options: Mapping[str, Any],
    sizes: Sizes,
    lengths: MeanLengths,
    gpus: int,
    tflops: float,
) -> Cost:
    """What the training options of a configuration make of its chain.

    Args:
        options: the configuration's other keys; ``batch_bins`` is of all cards together, as in ESPnet.
        tflops: 10^12 operations that a card does in a second.
    """
    amp = options.get("amp_dtype", "none") != "none"
    chain = chain_cost(config, sizes, lengths, amp)
    accum = int(options.get("accum_grad") or 1)
    items = lengths.items_per_batch(options)
    iterations = options.get("num_iters_per_epoch") or max(1, round(lengths.items / items))
    epochs, iterations = int(options.get("max_epoch", 40)), int(iterations)
    updates = epochs * -(-iterations // accum)  # batches that are left at the end of an epoch are one
    # Weights; gradients and Adam's two moments; DDP's buckets; narrow copies of the weights.
    fixed = 4 * chain.parameters + (12 + 4 * (gpus > 1)) * chain.trainable + 2 * amp * chain.parameters + CONTEXT
    seen = items * epochs * iterations
    hours, passes = chain.operations * seen / (tflops * 1e12) / 3600, seen / lengths.items
    return Cost(chain.parameters, items * accum, updates, passes, items / gpus, fixed, chain.bytes_per_item, hours)
