"""From a checked description to modules: the only place where configuration meets constructors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, LegoNNError
from espnet2_legonn.model.ctc import CTCInterface
from espnet2_legonn.model.description import (
    BeamConvConfig,
    BodyConfig,
    ChainConfig,
    ModuleConfig,
    OutputConfig,
    SpeechConfig,
    StatesConfig,
    TokensConfig,
    VocabConfig,
    WEmbConfig,
    parse_ratio,
)
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.module import DecoderModule, EncoderModule, Input, Module, Port, StatesInput
from espnet2_legonn.model.parts.ingestor import BeamConvolution, Ingestor, WeightedEmbedding
from espnet2_legonn.model.parts.speech import (
    ConvSubsampling,
    LogMel,
    MaskPolicy,
    Normalization,
    SpecAugment,
    SpeechInput,
)
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.transformer import BlockSizes, CrossTransformer, TransformerEncoder


def load_vocab(config: VocabConfig, base: Path | None = None) -> Vocabulary:
    """A vocabulary from its description; relative files are looked up in ``base``."""
    base = base or Path()
    model = None if config.bpemodel is None else base / config.bpemodel
    if isinstance(config.tokens, str):
        return Vocabulary.from_files(base / config.tokens, config.unit, model, config.language, config.normalization)
    if model is not None and not model.is_file():
        raise ConfigError(f"{model}: no such sentencepiece model; stage 5 of the recipe makes it")
    return Vocabulary(
        tuple(config.tokens),
        config.unit,
        config.language,
        config.normalization,
        model.read_bytes() if model else None,
    )


def _sizes(body: BodyConfig, num_blocks: int | None = None, attention_dropout: float | None = None) -> BlockSizes:
    """Sizes of a stack of this module; dropouts that are not given follow ``dropout``."""
    attention = body.attention_dropout if attention_dropout is None else attention_dropout
    return BlockSizes(
        body.num_blocks if num_blocks is None else num_blocks,
        body.size,
        body.heads,
        body.linear_units,
        body.dropout,
        body.dropout if attention is None else attention,
        body.dropout if body.activation_dropout is None else body.activation_dropout,
    )


def _speech(config: SpeechConfig, body: BodyConfig) -> SpeechInput:
    augment = None if config.specaug is None else SpecAugment(MaskPolicy(**dataclasses.asdict(config.specaug)))
    return SpeechInput(
        LogMel(config.fs, config.n_mels),
        Normalization(config.normalize, config.n_mels),
        ConvSubsampling(config.n_mels, body.size, (config.channels[0], config.channels[1])),
        augment,
        body.dropout,
    )


def _ingestor(config: WEmbConfig | BeamConvConfig, name: str, vocab: Vocabulary, body: BodyConfig) -> Ingestor:
    embed: WeightedEmbedding | BeamConvolution
    if isinstance(config, WEmbConfig):
        embed = WeightedEmbedding(len(vocab), body.size, config.receptive_field)
    else:
        if config.k > len(vocab):
            raise ConfigError(
                f"{name}.input.k: BeamConv keeps {config.k} tokens of each slot, vocabulary {config.vocab!r} "
                f"has {len(vocab)}; choose k <= {len(vocab)}"
            )
        embed = BeamConvolution(len(vocab), body.size, config.receptive_field, config.k, config.embed_size)
    return Ingestor(embed, _sizes(body, config.num_blocks, config.attention_dropout), config.collapse)


def _input(config: ModuleConfig, vocabs: dict[str, Vocabulary]) -> tuple[Port, Input]:
    spec, body = config.input, config.body
    if isinstance(spec, SpeechConfig):
        return Port("speech"), _speech(spec, body)
    if isinstance(spec, TokensConfig):
        vocab = vocabs[spec.vocab]
        return Port("tokens", vocab), TokenInput(len(vocab), body.size, body.dropout)
    if isinstance(spec, StatesConfig):
        return Port("states", size=body.size), StatesInput()
    return Port("marginals", vocabs[spec.vocab]), _ingestor(spec, config.name, vocabs[spec.vocab], body)


def build_module(config: ModuleConfig, vocabs: dict[str, Vocabulary]) -> Module:
    """One module with fresh weights.

    Raises:
        ConfigError: BeamConv's k exceeds the vocabulary, or the length ratio is still to be derived.
    """
    port, input = _input(config, vocabs)
    body, control = config.body, config.length_control
    if config.decodes:
        text = Port("text", vocabs[config.output.vocab])
        return DecoderModule(
            (port, text),
            input,
            CrossTransformer(_sizes(body)),
            body.size,
            body.dropout,
            config.output.label_smoothing,
            config.output.tie,
        )
    controller = None
    if control is not None:
        if control.ratio is None:
            raise ConfigError(
                f"{config.name}.length_control: slots_per_token needs the data's lengths to become a ratio; "
                "run stage 10 (statistics) first, or give ratio"
            )
        ratio = parse_ratio(control.ratio)
        controller = LengthController(
            _sizes(body, control.num_blocks), (ratio.numerator, ratio.denominator), control.max_length, control.aligned
        )
    out, weight = _output(config, vocabs)
    interface = None if out.vocab is None else CTCInterface(body.size, len(out.vocab))
    return EncoderModule((port, out), input, TransformerEncoder(_sizes(body)), controller, interface, weight)


def _output(config: ModuleConfig, vocabs: dict[str, Vocabulary]) -> tuple[Port, float]:
    """The output port of an encoder module, and the weight of its CTC loss."""
    target = config.target
    vocab = None if target is None else vocabs[target.vocab]
    if isinstance(target, OutputConfig):
        return Port("marginals", vocab), target.ctc_weight
    return Port("states", vocab, config.body.size), 0.0 if target is None else target.weight


def least_values(config: ChainConfig, vocabs: dict[str, Vocabulary]) -> int:
    """Fewest values the weights of this description can hold; building takes memory in proportion to it.

    Compared with a file before building: a description that asks for the moon costs nothing.
    """
    return sum(_least_values(module, vocabs) for module in config.modules)


def _least_values(config: ModuleConfig, vocabs: dict[str, Vocabulary]) -> int:
    spec, body, control, size = config.input, config.body, config.length_control, config.body.size
    block = size * (4 * size + 2 * body.linear_units)
    total = block * (body.num_blocks + getattr(spec, "num_blocks", 0))
    if control is not None:
        total += control.max_length * size + block * control.num_blocks
    if isinstance(spec, SpeechConfig):
        a, b = spec.channels
        total += spec.n_mels * (spec.fs * 25 // 2000)  # the filter bank
        total += 9 * (a + a * a + a * b + b * b) + b * ((spec.n_mels + 3) // 4) * size
    read = written = 0
    if isinstance(spec, BeamConvConfig):
        read = spec.embed_size * (len(vocabs[spec.vocab]) + spec.k * spec.receptive_field * size)
    elif isinstance(spec, (TokensConfig, WEmbConfig)):
        read = len(vocabs[spec.vocab]) * size * getattr(spec, "receptive_field", 1)
    if config.target is not None:
        written = len(vocabs[config.target.vocab]) * size
    return total + max(read, written)  # they may be one matrix


def load_vocabs(config: ChainConfig, base: Path | None = None) -> dict[str, Vocabulary]:
    """All vocabularies of a description.

    Raises:
        DataError: everything that is wrong with them, by name.
    """
    vocabs, faults = {}, []
    for name, description in config.vocabs.items():
        try:
            vocabs[name] = load_vocab(description, base)
        except LegoNNError as error:
            faults += [f"vocabs.{name}: {fault}" for fault in error.faults]
    if faults:
        raise DataError(faults)
    return vocabs


def build_modules(config: ChainConfig, base: Path | None = None) -> tuple[list[Module], dict[str, Vocabulary]]:
    """All modules of a description, and its vocabularies by name."""
    vocabs = load_vocabs(config, base)
    return [build_module(m, vocabs) for m in config.modules], vocabs
