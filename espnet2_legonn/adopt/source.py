"""What adoption makes: a chain of one encoder module, and what is to be said of it; and the contract, by data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.data.audio import seconds
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.inputs import normalized
from espnet2_legonn.model.module import EncoderModule, build_module
from espnet2_legonn.packs import store

NAME, DECODER, VOCAB = "encoder", "decoder", "tokens"
# Beyond this share of <unk>, a text is most likely written in another way than the model writes.
MOST_UNKNOWN = 0.1


@dataclass(frozen=True)
class AdoptOptions:
    """What a user knows of a source, and its files do not say.

    Args:
        model: weights of an ESPnet experiment.
        bpemodel: sentencepiece model.
        language, normalization: of the vocabulary.
        decoder: adopt the decoder of an ESPnet experiment, too.
    """

    model: str | None = None
    bpemodel: Path | None = None
    language: str | None = None
    normalization: str | None = None
    decoder: bool = False


@dataclass
class Adopted:
    """A model of somebody else's.

    Args:
        chain: an encoder module, and perhaps its decoder, in evaluation mode.
        origin: what it was.
        notes: what is left behind or differs from the source.
        version: of ESPnet, that trained it.
    """

    chain: LegoNN
    origin: str
    notes: list[str] = field(default_factory=list)
    version: str | None = None


def assemble(
    modules: list[dict[str, Any]], vocab: Vocabulary, tensors: dict[str, torch.Tensor], where: str
) -> LegoNN:
    """A chain of these modules, filled with weights by the names of module and weight.

    Raises:
        ConfigError: the description cannot be built.
        CheckpointError: weights are missing or left over.
    """
    tokens = {"tokens": list(vocab.tokens), "unit": vocab.unit}
    config = parse({"vocabs": {VOCAB: tokens}, "modules": modules})
    chain = LegoNN([build_module(module, {VOCAB: vocab}) for module in config.modules], {VOCAB: vocab})
    own = {n: t for n, t in chain.state_dict().items() if ".interface.seen." in n}
    store.fill(chain, {**own, **{f"mods.{name}": tensor for name, tensor in tensors.items()}}, where)
    return chain.eval()


def measure(chain: LegoNN, data: Path) -> list[str]:
    """Slots per token over a data directory (``wav.scp``, ``text``), noted in the interface; what is odd about it.

    Raises:
        DataError: a table or file is missing or cannot be used, or no line has both.
    """
    sounds, texts = read_table(data / "wav.scp"), read_table(data / "text")
    if (data / "segments").is_file():
        raise DataError(f"{data}: has segments; stage 3 (`format`) makes a file of each")
    module, faults = chain.first, []
    assert isinstance(module, EncoderModule)
    part: Any = module.input
    vocab = chain.vocabs[VOCAB]
    samples, tokens, unknown = [], [], 0
    for uid in sounds.keys() & texts.keys():
        try:
            length = seconds(sounds[uid], part.fs) or 0.0
        except DataError as error:
            faults += [f"{data / 'wav.scp'}: {uid}: {fault}" for fault in error.faults]
            continue
        ids = vocab.encode(normalized(texts[uid], vocab))
        samples.append(math.floor(length * part.fs + 0.5))
        tokens.append(len(ids))
        unknown += ids.count(vocab.unk_id)
    if faults:
        raise DataError(faults)
    if not sum(tokens):
        raise DataError(f"{data}: no utterance has both sound and text")
    assert module.interface.contract is not None
    module.interface.contract.update(part.steps(torch.tensor(samples)), torch.tensor(tokens))
    share = unknown / sum(tokens)
    if share <= MOST_UNKNOWN:
        return []
    letters = "".join(token for token in vocab.tokens if len(token) == 1)
    hint = " (its letters are capital ones, the text's are not)" if letters.upper() == letters else ""
    return [f"{share:.0%} of the tokens of {data / 'text'} are <unk>: the model writes in another way{hint}"]
