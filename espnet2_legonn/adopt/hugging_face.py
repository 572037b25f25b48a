"""A CTC model of transformers in a folder: ``Wav2Vec2ForCTC`` and its kin, ``ParakeetForCTC``, ``LasrForCTC``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from espnet2_legonn.adopt.source import NAME, VOCAB, Adopted, AdoptOptions, assemble
from espnet2_legonn.adopt.vocabulary import Order
from espnet2_legonn.data.tokenizer_json import TokenizerJson, canonical
from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, SPACE, UNK
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.files.schema import shown
from espnet2_legonn.model.hf_models import library
from espnet2_legonn.model.speech_models import FAMILIES, described, family, normalizes


def is_one(source: Path) -> bool:
    """Whether a folder is in the layout of transformers."""
    return (source / "config.json").is_file()


def adopt(source: Path, options: AdoptOptions) -> Adopted:
    """The encoder and the CTC head of a folder, without an update.

    Raises:
        ConfigError: it is no CTC model of a kind that is read here, or its vocabulary is not read here.
    """
    if given := [name for name in ("model", "bpemodel", "decoder") if getattr(options, name)]:
        raise ConfigError(f"{name}: goes with an experiment of ESPnet, which {source} is not" for name in given)
    model, where = _load(source), str(source)
    names = FAMILIES[model.config.model_type]
    held = getattr(model, getattr(library(), names.model).base_model_prefix)
    tokens = _tokens(source, model.config)
    order, notes = _order(tokens, model.config)
    vocab = order.vocabulary(tokens.unit, options.language, options.normalization, tokens.pieces)
    part = {
        "type": "pretrained",
        "model": source.name,
        "layers": "last",
        "freeze": False,
        "project": False,
        "normalize": normalizes(where, held.config, where),
        "architecture": described(held.config),
    }
    head = model.lm_head if hasattr(model, "lm_head") else model.ctc_head  # a convolution over single steps
    weight, bias = order.layer(head.weight.detach().flatten(1), head.bias.detach())
    tensors = {f"{NAME}.input.held.model.{name}": tensor for name, tensor in held.state_dict().items()}
    tensors |= {f"{NAME}.interface.ctc_lo.weight": weight, f"{NAME}.interface.ctc_lo.bias": bias}
    body = {"type": "none", "size": weight.shape[1]}
    chain = assemble([{"name": NAME, "input": part, "body": body, "output": {"vocab": VOCAB}}], vocab, tensors, where)
    return Adopted(chain, f"{names.ctc} of {source.name}", notes)


def _load(source: Path) -> Any:
    lib = library()
    try:
        found = lib.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source}: {next(iter(str(error).splitlines()), error)}") from None
    names = family(found.model_type, str(source))
    heads = found.architectures or []
    if names.ctc is None or (heads and names.ctc not in heads):
        raise ConfigError(f"{source}: {' '.join(heads) or found.model_type} is no CTC model ({names.ctc} is wanted)")
    try:
        return getattr(lib, names.ctc).from_pretrained(source).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{source}: {next(iter(str(error).splitlines()), error)}") from None


# -- tokens --------------------------------------------------------------------------------------------------------


class _Tokens(NamedTuple):
    """What a model writes, by id, and how text becomes that.

    Args:
        unit: of our vocabularies.
        pieces: the tokenizer, where tokens are pieces.
        told: ``tokenizer_config.json``.
        unknown: the token for what has none.
    """

    names: list[str]
    unit: str
    pieces: bytes | None
    told: dict[str, Any]
    unknown: str | None = None

    def named(self, key: str, usual: str | None) -> str | None:
        """A token that has a meaning, as ``told`` calls it."""
        value = self.told.get(key)
        return str(value.get("content", usual)) if isinstance(value, dict) else value or usual


def _tokens(source: Path, config: Any) -> _Tokens:
    told = _json(source / "tokenizer_config.json") if (source / "tokenizer_config.json").is_file() else {}
    if (own := source / "tokenizer.json").is_file():
        try:
            pieces = canonical(own.read_bytes())
            tokenizer = TokenizerJson(pieces)
        except DataError as error:
            raise ConfigError(f"{own}: {fault}" for fault in error.faults) from None
        found = _Tokens([t or "" for t in tokenizer.tokens], "bpe", pieces, told, tokenizer.unknown)
    else:
        own = source / "vocab.json"
        table = _characters(own, told, config.vocab_size)
        spoken = "Phoneme" in str(told.get("tokenizer_class"))
        found = _Tokens(sorted(table, key=lambda token: table[token]), "phn" if spoken else "char", None, told, "<unk>")
    if len(found.names) != config.vocab_size or "" in found.names:
        raise ConfigError(f"{own}: {len(set(found.names) - {''})} tokens, the model writes {config.vocab_size}")
    return found


def _characters(path: Path, told: dict[str, Any], size: int) -> dict[str, int]:
    """Ids by token; those that were added to a tokenizer stand apart, and some have no row in the model."""
    table = _json(path)
    if not all(isinstance(i, int) for i in table.values()):
        raise ConfigError(f"{path}: tokens of several languages are not adopted; keep one language's")
    apart = _json(path.parent / "added_tokens.json") if (path.parent / "added_tokens.json").is_file() else {}
    decoder = told.get("added_tokens_decoder")
    for place, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and place.isdigit():
            apart[str(token.get("content"))] = int(place)
    table = {**{token: i for token, i in apart.items() if isinstance(i, int) and i < size}, **table}
    if sorted(table.values()) != list(range(size)):
        raise ConfigError(f"{path}: {len(table)} tokens, the model writes {size}")
    return table


def _order(tokens: _Tokens, config: Any) -> tuple[Order, list[str]]:
    """Tokens in our order, and what is lost of the source's."""
    letters, blank = tokens.unit == "char", int(config.pad_token_id or 0)
    if not 0 <= blank < len(tokens.names):
        raise ConfigError(f"pad_token_id {blank} is CTC's blank, but the model writes {len(tokens.names)} tokens")
    meant = {
        tokens.named("unk_token", tokens.unknown): UNK,
        tokens.named("eos_token", "</s>"): SOS_EOS,
        tokens.named("word_delimiter_token", "|") if letters else None: SPACE,
        tokens.names[blank]: BLANK,
    }
    names = {theirs: ours for theirs, ours in meant.items() if theirs in tokens.names}
    order = Order.of(tokens.names, names)
    notes = [f"{shown(theirs)} is {ours} here" for theirs, ours in names.items() if theirs != ours]
    kept = [t for t in order.tokens[2:-1] if len(t) > 1 and t != SPACE] if letters else []
    notes += [f"kept as tokens, though no letters: {' '.join(kept)}"] * bool(kept)
    notes += [f"added, never written: {' '.join(order.added)}"] * bool(order.added)
    notes += ["no word delimiter: what it writes has no blanks between words"] * (letters and SPACE not in order.tokens)
    lowers = bool(tokens.told.get("do_lower_case"))
    notes += ["the tokenizer lowers text; give lower-case text (--normalization lc)"] * lowers
    return order, [*notes, "left behind: the tokenizer's own decoding, and a language model if it had one"]


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        wanted = "a CTC model of characters has it, one of pieces has tokenizer.json"
        raise ConfigError(f"{path}: {error.strerror or error}; {wanted}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: no table of tokens")
    return data
