"""The vocabulary of a language model of Hugging Face's in our order: blank, ``<unk>``, its tokens, ``<sos/eos>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet2_legonn.data.tables import atomic_path, atomic_text
from espnet2_legonn.data.tokenizer_json import TokenizerJson, canonical, shown_name
from espnet2_legonn.data.vocabulary import BLANK, SOS_EOS, UNK, Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.foreign import transformers


@dataclass(frozen=True)
class ModelVocabulary:
    """What a model's tokenizer says.

    Args:
        vocab: its tokens in our order, with the tokenizer.
        rows: the model's id of each; -1 for ``<blank>``, and for ``<unk>`` where it has none.
        start: what stands before a text that is written.
        before, behind: what it puts at the ends of a text that is read.
    """

    vocab: Vocabulary
    rows: tuple[int, ...]
    start: str
    before: tuple[str, ...]
    behind: tuple[str, ...]


def of_model(
    name: str, revision: str | None = None, language: str | None = None, normalization: str | None = None
) -> ModelVocabulary:
    """Of a folder or a name on the Hub; nothing of its code is run.

    Raises:
        ConfigError: it is not there, has no tokenizer that the package tokenizers reads, or no token ends its texts.
        DataError: its tokenizer is damaged, or could do harm.
    """
    try:
        lib = transformers()
        found = lib.AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        config = lib.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except ImportError as error:
        raise ConfigError(f"{name}: {error}") from None
    except Exception as error:  # it raises what it likes, its own classes among them
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"{name}: no model with a tokenizer ({first})") from None
    own = getattr(found, "backend_tokenizer", None)
    if own is None:
        raise ConfigError(f"{name}: its tokenizer has no tokenizer.json, so it cannot be taken along")
    data = canonical(own.to_str().encode("utf-8"))
    tokenizer = TokenizerJson(data)
    ids = {token: i for i, token in enumerate(tokenizer.tokens) if token is not None}
    end = _end(name, found, config, tokenizer)
    # What is the unknown and the end at once (GPT-2's) is the end.
    unknown = tokenizer.unknown if tokenizer.unknown != end else None
    inner = [token for token in tokenizer.tokens if token not in (None, end, unknown)]
    rows = [-1, -1 if unknown is None else ids[unknown], *(ids[token] for token in inner if token), ids[end]]
    vocab = Vocabulary((BLANK, UNK, *filter(None, inner), SOS_EOS), "bpe", language, normalization, data)
    ours = {rows[i]: vocab.tokens[i] for i in range(1, len(rows))}
    before, behind = _ends(found, own)
    start = _start(found, config)
    return ModelVocabulary(
        vocab,
        tuple(rows),
        SOS_EOS if start is None else ours.get(start, SOS_EOS),
        tuple(ours[i] for i in before if i in ours),
        tuple(ours[i] for i in behind if i in ours),
    )


def _end(name: str, found: Any, config: Any, tokenizer: TokenizerJson) -> str:
    """The token that ends a text."""
    if found.eos_token is not None:
        return shown_name(str(found.eos_token))
    place = getattr(config, "eos_token_id", None)
    token = tokenizer.tokens[place] if isinstance(place, int) and 0 <= place < len(tokenizer.tokens) else None
    if token is None:
        raise ConfigError(f"{name}: neither tokenizer nor config says which token ends a text (eos_token)")
    return token


def _start(found: Any, config: Any) -> int | None:
    """The model's id of what a text begins with: it reads that first, and writes the first token behind it."""
    if not getattr(config, "is_encoder_decoder", False):
        return found.bos_token_id
    start = getattr(config, "decoder_start_token_id", None)
    return config.pad_token_id if start is None else start


def _ends(found: Any, own: Any) -> tuple[Sequence[int], Sequence[int]]:
    """The model's ids that its tokenizer puts before and behind a text."""
    bare = list(own.encode("a", add_special_tokens=False).ids)
    whole = list(found("a").input_ids)
    for i in range(len(whole) - len(bare) + 1):
        if bare and whole[i : i + len(bare)] == bare:
            return whole[:i], whole[i + len(bare) :]
    return (), ()


def write(found: ModelVocabulary, out: Path) -> None:
    """``tokens.txt`` and ``bpe.model``, the tokenizer, as recipes and YAML name them."""
    assert found.vocab.bpemodel is not None
    with atomic_path(out / "bpe.model") as temporary:
        temporary.write_bytes(found.vocab.bpemodel)
    with atomic_text(out / "tokens.txt") as stream:
        stream.writelines(token + "\n" for token in found.vocab.tokens)
