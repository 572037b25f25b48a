"""From a checked description to vocabularies and modules."""

from __future__ import annotations

from pathlib import Path

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError, LegoNNError
from espnet2_legonn.model.bodies import BODIES
from espnet2_legonn.model.description import ChainConfig, ModuleConfig, VocabConfig
from espnet2_legonn.model.module import Module, build_module


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


def least_values(config: ChainConfig, vocabs: dict[str, Vocabulary]) -> int:
    """Fewest values the weights of this description can hold; building takes memory in proportion to it.

    Compared with a file before building: a description that claims absurd sizes is refused without being built.
    """
    return sum(_least_values(module, vocabs) for module in config.modules)


def _least_values(config: ModuleConfig, vocabs: dict[str, Vocabulary]) -> int:
    body, control, size = config.body, config.length_control, config.body.size
    read, written = (0 if n is None else len(vocabs[n]) for n in (config.source_vocab, config.target_vocab))
    if getattr(BODIES[body.type], "speaks", False):
        return int(body.values(written))
    total = body.least_values + body.blocks(getattr(config.input, "num_blocks", 0)).least_values
    if control is not None:
        total += control.max_length * size + body.blocks(control.num_blocks).least_values
    own = config.reads.least_values(config.input, size, read)
    if config.source_vocab is None:
        return total + own + written * size
    return total + max(own, written * size)  # they may be one matrix


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
