"""Every reason against a plug is listed; what only differs from training is a warning."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch

from espnet2_legonn import ConfigError, Interface, InterfaceMismatch, LegoNN, Vocabulary
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.interface import compare, require_match

TOKENS = ("<blank>", "<unk>", "x", "y", "z", "<sos/eos>")


def interface(tokens: str = "x y z", **about: Any) -> Interface:
    contract = {k: about.pop(k) for k in ("grounded", "slots_per_token", "longest") if k in about}
    about.setdefault("unit", "word")
    return Interface(Vocabulary(("<blank>", "<unk>", *tokens.split(), "<sos/eos>"), **about), **contract)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ({"tokens": "x y"}, {}, "vocabulary size: 5 is produced, 6 is expected"),
        ({"tokens": "x q z"}, {}, "vocabulary: other tokens; id 3 is 'q' there and 'y' here"),
        (
            {"tokens": "z y x"},
            {},
            "vocabulary: the same tokens in another order; id 2 is 'z' there and 'x' here",
        ),
        ({"unit": "phn"}, {}, "unit: phn is produced, word is expected"),
        ({"language": "de"}, {"language": "en"}, "language: de is produced, en is expected"),
        (
            {"normalization": "lc"},
            {"normalization": "lc.rm"},
            "normalization: lc is produced, lc.rm is expected",
        ),
    ],
)
def test_fatal_reasons(left: dict[str, Any], right: dict[str, Any], message: str) -> None:
    with pytest.raises(InterfaceMismatch) as error:
        require_match(interface(**left), interface(**right), "encoder -> decoder")
    assert error.value.faults == [f"encoder -> decoder: {message}"]


def test_all_reasons_at_once_fatal_first() -> None:
    left = interface("q", unit="phn", language="de", normalization="a", grounded=False, slots_per_token=1.0)
    right = interface(language="en", normalization="b", slots_per_token=2.0)
    with pytest.raises(InterfaceMismatch) as error:
        require_match(left, right, "a -> b")
    kinds = [fault.removeprefix("a -> b: ").split(":")[0] for fault in error.value.faults]
    assert kinds[:4] == ["vocabulary size", "unit", "language", "normalization"]
    assert kinds[4].startswith("the producer was trained without CTC") and kinds[5] == "slots per token"


def test_an_unknown_language_is_no_reason() -> None:
    assert compare(interface(language="de"), interface()) == []
    assert compare(interface(), interface(normalization="lc")) == []


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ({"grounded": False}, {}, r"trained without CTC: its slots have no meaning to others \(Table X\)"),
        (
            {"slots_per_token": 3.0},
            {"slots_per_token": 2.0},
            r"3.00 are produced, 2.00 were seen in training \(1.50 times\)",
        ),
        ({"slots_per_token": 1.4}, {"slots_per_token": 2.0}, r"slots_per_token: 2.0 or with collapse: true"),
        (
            {"bpemodel": b"1"},
            {"bpemodel": b"2"},
            "sentencepiece models differ: the same text may be split in another way",
        ),
    ],
)
def test_warnings(left: dict[str, Any], right: dict[str, Any], message: str) -> None:
    (finding,) = compare(interface(**left), interface(**right))
    assert not finding.fatal
    assert require_match(interface(**left), interface(**right), "a -> b") == [f"a -> b: {finding.message}"]
    assert re.search(message, finding.message)


@pytest.mark.parametrize("ratio", [1.94, 2.0, 2.3, None, 0.0])
def test_slots_per_token_near_training_are_silent(ratio: float | None) -> None:
    assert compare(interface(slots_per_token=ratio), interface(slots_per_token=2.0)) == []


def test_collapse_makes_slots_per_token_silent() -> None:
    assert compare(interface(slots_per_token=3.0), interface(slots_per_token=2.0), collapse=True) == []


# -- the same, met by `+` on chains ------------------------------------------------------------------------------------


def plug_vocab(parts: Any, data: dict[str, Any], **change: Any) -> LegoNN:
    vocabs = {"tgt": {**data["vocabs"]["tgt"], **change}}
    return parts.build({"vocabs": vocabs, "modules": [parts.decoder("decoder", "tgt")]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": list(TOKENS[:4]) + ["<sos/eos>"]}, "vocabulary size: 6 is produced, 5 is expected"),
        (
            {"tokens": ["<blank>", "<unk>", "y", "x", "z", "<sos/eos>"]},
            "the same tokens in another order; id 2 is 'x' there",
        ),
        ({"unit": "phn"}, "unit: word is produced, phn is expected"),
        ({"language": "de"}, "language: yy is produced, de is expected"),
    ],
)
def test_plus_refuses(
    chain: LegoNN, data: dict[str, Any], parts: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InterfaceMismatch, match=f"middle -> decoder: .*{message}"):
        chain[:-1] + plug_vocab(parts, data, **change)


def test_plus_refuses_another_normalization(data: dict[str, Any], parts: Any) -> None:
    data["vocabs"]["tgt"]["normalization"] = "lc"
    chain = parts.build(data)
    with pytest.raises(InterfaceMismatch, match="normalization: lc is produced, lc.rm is expected"):
        chain[:-1] + plug_vocab(parts, data, normalization="lc.rm")


def test_plus_refuses_ports_of_another_kind(chain: LegoNN, data: dict[str, Any], parts: Any) -> None:
    speech = parts.build({"vocabs": data["vocabs"], "modules": [parts.speech()]})
    with pytest.raises(
        InterfaceMismatch, match="middle -> recognizer: middle writes marginals, recognizer reads speech"
    ):
        chain[:-1] + speech
    with pytest.raises(
        InterfaceMismatch, match="recognizer -> first: recognizer writes marginals, first reads tokens"
    ):
        speech + chain
    with pytest.raises(InterfaceMismatch, match="decoder -> first: decoder writes text, first reads tokens"):
        chain + chain


def states(parts: Any, data: dict[str, Any], size: int) -> LegoNN:
    body = {"num_blocks": 1, "size": size, "heads": 2, "linear_units": 16}
    encoder = {
        "name": "encoder",
        "input": {"type": "tokens", "vocab": "src"},
        "body": body,
        "output": {"type": "states"},
    }
    decoder = {
        "name": "decoder",
        "input": {"type": "states"},
        "body": {**body, "type": "transformer_decoder"},
        "output": {"vocab": "tgt"},
    }
    return parts.build({"vocabs": data["vocabs"], "modules": [encoder, decoder]})


def test_states_warn_or_do_not_fit(chain: LegoNN, data: dict[str, Any], parts: Any) -> None:
    small, other, large = states(parts, data, 8), states(parts, data, 8), states(parts, data, 12)
    with pytest.warns(UserWarning, match="encoder -> decoder: hidden states are no interface"):
        plugged = small[:-1] + other[-1:]
    assert isinstance(plugged("a b"), str)
    with pytest.raises(InterfaceMismatch, match="states of width 8 are written, 12 are read"):
        small[:-1] + large[-1:]
    with pytest.raises(
        InterfaceMismatch, match="encoder -> decoder: encoder writes states, decoder reads marginals"
    ):
        small[:-1] + chain[-1:]


def trained(parts: Any, data: dict[str, Any], ratio: Any, collapse: bool = False) -> LegoNN:
    """One batch of training is enough to write slots per token into the contract."""
    modules = [
        parts.encoder("encoder", "src", "tgt", ratio),
        parts.decoder("decoder", "tgt", collapse=collapse),
    ]
    chain = parts.build({"vocabs": data["vocabs"], "modules": modules}).train()
    labels = Labels(torch.tensor([[2, 3, 4]]), torch.tensor([3]))
    chain.losses(*chain.batch(["a b"]), dict.fromkeys(chain.names, labels))
    return chain.eval()


def test_plus_warns_of_slots_per_token(data: dict[str, Any], parts: Any) -> None:
    two, three = trained(parts, data, 2), trained(parts, data, 3)
    with pytest.warns(
        UserWarning, match=r"encoder -> decoder: slots per token: 3.00 are produced, 2.00 were seen"
    ):
        three[:-1] + two[-1:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        two[:-1] + trained(parts, data, 2)[-1:]
        three[:-1] + trained(parts, data, 2, collapse=True)[-1:]


def test_plus_warns_of_a_producer_without_ctc(data: dict[str, Any], parts: Any, chain: LegoNN) -> None:
    ungrounded = parts.build(parts.change(data, "modules.1.output.ctc_weight", 0.0))
    with pytest.warns(UserWarning, match=r"middle -> decoder: the producer was trained without CTC"):
        ungrounded[:-1] + chain[-1:]


def test_wemb_of_more_tokens_than_its_vocabulary(data: dict[str, Any], parts: Any) -> None:
    ingest = {"type": "wemb", "vocab": "tgt", "top_k": 999}
    with pytest.raises(ConfigError, match=r"input.top_k: 999 tokens of a slot, vocabulary 'tgt' has "):
        parts.build(parts.change(data, "modules.2.input", ingest))


@pytest.mark.parametrize("ingest", ["first", "second"])
def test_beam_conv_wider_than_its_vocabulary(data: dict[str, Any], parts: Any, ingest: str) -> None:
    place = "modules.1.input.k"
    if ingest == "second":
        data["modules"][2]["input"] = {"type": "beam_conv", "vocab": "tgt", "k": 3, "embed_size": 4}
        place = "modules.2.input.k"
    with pytest.raises(
        (ConfigError, InterfaceMismatch), match=r"input.k: BeamConv keeps 99 tokens of each slot, vocabulary "
    ):
        parts.build(parts.change(data, place, 99))


def test_marginals_handed_to_a_chain_are_checked_too(chain: LegoNN, data: dict[str, Any], parts: Any) -> None:
    """A decoder that is given Marginals of another vocabulary must not read them as its own."""
    foreign = parts.build(
        parts.change(data, "vocabs.tgt.tokens", ["<blank>", "<unk>", "z", "y", "x", "<sos/eos>"])
    )
    with pytest.raises(InterfaceMismatch, match="another order"):
        chain[-1:](foreign.marginals("a b"))


def test_marginals_handed_to_a_chain_warn_as_a_plug_does(data: dict[str, Any], parts: Any) -> None:
    two, three = trained(parts, data, 2), trained(parts, data, 3)
    said = r"Marginals -> decoder: slots per token: 3.00 are produced, 2.00 were seen"
    with pytest.warns(UserWarning, match=said):
        two[-1:](three.marginals("a b"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        two[-1:](two.marginals("a b"))
        trained(parts, data, 2, collapse=True)[-1:](three.marginals("a b"))
