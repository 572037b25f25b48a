"""A CTC model of transformers: ``Wav2Vec2ForCTC``, ``HubertForCTC``, ``WavLMForCTC`` in a folder or on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from espnet2_legonn.adopt.source import NAME, VOCAB, Adopted, AdoptOptions, assemble
from espnet2_legonn.adopt.vocabulary import Order
from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, SPACE, UNK
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files.schema import shown
from espnet2_legonn.model.hf_models import library
from espnet2_legonn.model.parts.pretrained import FAMILIES, described, family, normalizes


def is_one(source: Path) -> bool:
    """Whether a folder is in the layout of transformers."""
    return (source / "config.json").is_file()


def adopt(source: Path, options: AdoptOptions) -> Adopted:
    """The encoder and the CTC head of a folder, without an update.

    Raises:
        ConfigError: it is no CTC model of a kind that is read here, or has no vocabulary of characters.
    """
    if given := [name for name in ("model", "bpemodel", "decoder") if getattr(options, name)]:
        raise ConfigError(f"{name}: goes with an experiment of ESPnet, which {source} is not" for name in given)
    model, where = _load(source), str(source)
    order, notes = _order(source, model.config)
    vocab = order.vocabulary("char", options.language, options.normalization, None)
    names = FAMILIES[model.config.model_type]
    held = getattr(model, model.base_model_prefix)
    part = {
        "type": "pretrained",
        "model": source.name,
        "layers": "last",
        "freeze": False,
        "project": False,
        "normalize": normalizes(where),
        "architecture": described(model.config),
    }
    weight, bias = order.layer(model.lm_head.weight.detach(), model.lm_head.bias.detach())
    tensors = {f"{NAME}.input.held.model.{name}": tensor for name, tensor in held.state_dict().items()}
    tensors |= {f"{NAME}.interface.ctc_lo.weight": weight, f"{NAME}.interface.ctc_lo.bias": bias}
    body = {"type": "none", "size": int(model.config.hidden_size)}
    module = {"name": NAME, "input": part, "body": body, "output": {"vocab": VOCAB}}
    chain = assemble([module], vocab, tensors, where)
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
    if getattr(found, "add_adapter", False):
        raise ConfigError(f"{source}: an adapter changes the number of steps; it is not adopted")
    try:
        return getattr(lib, names.ctc).from_pretrained(source).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{source}: {next(iter(str(error).splitlines()), error)}") from None


def _order(source: Path, config: Any) -> tuple[Order, list[str]]:
    """Tokens in our order, and what is lost of the source's."""
    table = _json(source / "vocab.json")
    told = _json(source / "tokenizer_config.json") if (source / "tokenizer_config.json").is_file() else {}
    if not all(isinstance(i, int) for i in table.values()):
        raise ConfigError(f"{source / 'vocab.json'}: tokens of several languages are not adopted; keep one language's")
    tokens = sorted(table, key=lambda token: int(table[token]))
    if sorted(table.values()) != list(range(config.vocab_size)):
        raise ConfigError(f"{source / 'vocab.json'}: {len(table)} tokens, the model writes {config.vocab_size}")

    def named(key: str, usual: str) -> str:
        value = told.get(key, usual)
        return str(value.get("content", usual) if isinstance(value, dict) else value or usual)

    blank, end = tokens[int(config.pad_token_id or 0)], named("eos_token", "</s>")
    names = {blank: BLANK, named("unk_token", "<unk>"): UNK, end: SOS_EOS, named("word_delimiter_token", "|"): SPACE}
    order = Order.of(tokens, {theirs: ours for theirs, ours in names.items() if theirs in table})
    notes = [f"{shown(theirs)} is {ours} here" for theirs, ours in names.items() if theirs in table and theirs != ours]
    kept = [t for t in order.tokens[2:-1] if len(t) > 1 and t != SPACE]
    notes += [f"kept as tokens, though no letters: {' '.join(kept)}"] * bool(kept)
    notes += [f"added, never written: {' '.join(order.added)}"] * bool(order.added)
    notes += ["no word delimiter: what it writes has no blanks between words"] * (SPACE not in order.tokens)
    notes += ["the tokenizer lowers text; give lower-case text (--normalization lc)"] * bool(told.get("do_lower_case"))
    return order, [*notes, "left behind: the tokenizer's own decoding, and a language model if it had one"]


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}; a CTC model of characters has it") from None
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: no table of tokens")
    return data
