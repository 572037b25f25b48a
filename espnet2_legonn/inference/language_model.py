"""A language model of Hugging Face's as a chain of one decoder module, and what an encoder lacks to write for it."""

from __future__ import annotations

from espnet2_legonn.data.hf_vocab import of_model
from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.hf_models import library, telling
from espnet2_legonn.model.interface import Interface
from espnet2_legonn.model.language_model import KINDS
from espnet2_legonn.model.module import build_module

PREFIX, VOCAB = "hf:", "lm"
SLOTS_PER_TOKEN = 2.0  # what modules are trained at unless their data say otherwise


def decoder_of(name: str) -> LegoNN:
    """A model as a decoder that has not been tuned.

    Args:
        name: folder or name on the Hub, perhaps with ``@`` and a revision.

    Raises:
        ConfigError: it is not there, or of a kind that is not read here.
    """
    name, _, revision = name.partition("@")
    with telling(name):
        found = library("hf:").AutoConfig.from_pretrained(name, revision=revision or None, trust_remote_code=False)
    kind = next((kind for kind, kinds in KINDS.items() if found.model_type in kinds.families), None)
    if kind is None:
        known = ", ".join(sorted(k for kinds in KINDS.values() for k in kinds.families))
        raise ConfigError(f"{name}: a model of type {found.model_type!r} is no decoder here; there are {known}")
    vocab = of_model(name, revision or None).vocab
    body = {"type": kind, "model": name, "revision": revision or None}
    module = {"name": "decoder", "input": {"type": "hf_embedding", "vocab": VOCAB}, "body": body}
    described = {"vocabs": {VOCAB: {"tokens": list(vocab.tokens)}}, "modules": [{**module, "output": {"vocab": VOCAB}}]}
    config = parse(described).modules[0]
    return LegoNN([build_module(config, {VOCAB: vocab})], {VOCAB: vocab}).eval()


def explain(source: Interface, reader: Vocabulary, model: str, where: str) -> list[str]:
    """What an encoder over other tokens would have to be, to write for a model, or what a module between would learn.

    Args:
        source: what is written now.
        reader: the model's tokens.
        model: its name.
    """
    own, lines = source.vocab, []
    shared = len(set(own.tokens) & set(reader.tokens))
    lines.append(
        f"{where}: {shared} of the {len(own)} tokens ({own.unit}) that are written are among the {len(reader)} that "
        f"{model} reads"
    )
    lines += [f"{where}: {line}" for line in _to_learn(source, reader)]
    lines.append(
        f"{where}: or let the encoder write the model's tokens: `legonn vocab DIR --from-hf {model}`, then train it "
        "from its own weights (init: {from: PACK, except: [interface]})"
    )
    return lines


def _to_learn(source: Interface, reader: Vocabulary) -> list[str]:
    """The task of a bridging module, with numbers where the two vocabularies give them."""
    own, slots = source.vocab, source.slots_per_token or SLOTS_PER_TOKEN
    begin = (
        f"a module between (input: {{type: wemb}}, output: {{vocab: {VOCAB}}}, a small body) would learn to respell "
        "the one as the other; texts are enough for it, split in both ways"
    )
    spelled = _spelled(own, reader)
    if spelled is None:
        return [begin, f"tokens of unit {own.unit} spell no text, so it would learn spelling, too: give it texts"]
    length, impossible = spelled
    ratio = SLOTS_PER_TOKEN / (length * slots)
    lines = [
        begin,
        f"one of the model's tokens takes {length:.1f} of those that are written, at {slots:.1f} slots each: "
        f"length_control: {{ratio: {ratio:.2f}}} leaves {SLOTS_PER_TOKEN:g} slots a token",
    ]
    if impossible:
        lines.append(
            f"{impossible:.0%} of the model's tokens cannot be written so: it would have to guess where they are"
        )
    letters = [t for t in own.tokens if len(t) == 1 and t.isalpha()]
    if letters and ("".join(letters).isupper() or "".join(letters).islower()):
        case = "capital" if letters[0].isupper() else "small"
        lines.append(f"what is written has {case} letters alone: it would learn where the model expects others")
    return lines


def _spelled(own: Vocabulary, reader: Vocabulary) -> tuple[float, float] | None:
    """Mean number of ``own`` tokens for one of the reader's, and the share of those that cannot be spelled."""
    if own.unit == "phn":
        return None
    lengths, impossible, total = 0, 0, 0
    for token in reader.tokens[2:-1]:
        text = reader.decode([reader.ids[token]])
        if not text or "\ufffd" in text:
            continue
        try:
            ids = own.encode(text)
        except DataError:  # a list without what splits texts
            return None
        if own.unk_id in ids and own.unk_id in own.encode(text.lower()) and own.unk_id in own.encode(text.upper()):
            impossible += 1
        lengths, total = lengths + len(ids), total + 1
    return (max(lengths / total, 1.0), impossible / total) if total else None
