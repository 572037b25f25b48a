"""A chain is a sequence of modules: slices, sums, names, and the same tensors as wiring by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import DataError, InterfaceMismatch, LegoNN
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.search.beam import BeamOptions, beam_search

TEXTS = ["a b c", "d", "c c a b d a"]


def test_slices_share_the_modules(chain: LegoNN) -> None:
    assert len(chain) == 3
    assert chain.names == ["first", "middle", "decoder"]
    assert chain[:-1].names == ["first", "middle"]
    assert chain[1:].names == ["middle", "decoder"]
    assert chain[0].names == chain["first"].names == chain[-3].names == ["first"]
    assert [m is n for m, n in zip(chain, [chain[0].first, chain[1].first, chain[2].first])] == [True] * 3
    assert chain[-1:].last is chain.last
    assert isinstance(chain[:2], LegoNN)


def test_slices_keep_only_their_vocabularies(chain: LegoNN) -> None:
    assert set(chain[:1].vocabs) == {"src", "mid"}
    assert set(chain[1:].vocabs) == {"mid", "tgt"}
    assert set(chain[-1].vocabs) == {"tgt"}


def test_bad_indices(chain: LegoNN) -> None:
    with pytest.raises(KeyError, match="no module is called 'secodn'; this chain has first, middle, decoder"):
        chain["secodn"]
    with pytest.raises(IndexError, match="no module left: this chain has first, middle, decoder"):
        chain[3:]
    with pytest.raises(IndexError):
        chain[3]


@pytest.mark.parametrize("steps", [slice(None, None, -1), slice(None, None, 2)])
def test_slices_with_a_step_make_no_unchecked_chain(chain: LegoNN, steps: slice) -> None:
    """Reversed, or with the middle left out, the interfaces do not meet: nothing may come back in silence."""
    with pytest.raises((InterfaceMismatch, IndexError, DataError)):
        chain[steps]


def test_parts_put_together_again_are_the_chain(chain: LegoNN) -> None:
    again = chain[:1] + chain[1:2] + chain[2:]
    assert again.names == chain.names
    assert again.configs == chain.configs
    assert again.vocabs == chain.vocabs
    again.eval()
    chain.eval()
    assert again(TEXTS) == chain(TEXTS)


def test_slicing_and_adding_keep_evaluation_mode(chain: LegoNN) -> None:
    """``plugged = asr[:-1] + mt[-1:]`` of two chains in evaluation mode reads without dropout."""
    plugged = chain[:-1] + chain[-1:]
    assert not any(m.training for m in plugged.modules())
    assert not any(m.training for m in chain.modules())
    assert not any(m.training for m in chain[:-1].modules())


def test_slicing_keeps_training_mode(chain: LegoNN) -> None:
    chain.train()
    chain[:-1]
    assert all(m.training for m in chain.modules())


def test_a_plug_answers_the_same_twice(chain: LegoNN) -> None:
    plugged = chain[:-1] + chain[-1:]
    first = plugged.marginals(TEXTS).log_probs
    assert torch.equal(first, plugged.marginals(TEXTS).log_probs)
    torch.testing.assert_close(first, chain.eval().marginals(TEXTS).log_probs)


def test_composed_equals_hand_wired(data: dict[str, Any], chain: LegoNN, parts: Any) -> None:
    """Encoder of one chain, the rest of another: the same tensors as calling the modules one by one."""
    other = parts.build(data, seed=5)
    plugged = (chain[:1] + other[1:]).eval()
    x, lengths = plugged.batch(TEXTS)
    first, middle, last = chain.first, list(other)[1], other.last
    with torch.inference_mode():
        p1, k1 = first(x, lengths)
        p2, k2 = middle(p1, k1)
        wanted = beam_search(last, p2, k2, BeamOptions(beam_size=3, nbest=3))
    found, y, slots = plugged.encode(x, lengths)
    assert list(found) == ["first", "middle"]
    assert torch.equal(found["first"].log_probs, p1) and torch.equal(found["first"].lengths, k1)
    assert torch.equal(y, p2) and torch.equal(slots, k2)
    paper = {"beam_size": 3, "ctc_weight": 0}  # the decoder alone
    assert plugged.generate(TEXTS, nbest=3, **paper) == wanted
    assert plugged(TEXTS, **paper) == [other.text(h[0].ids) for h in wanted]
    # ... and it is neither of its parents.
    assert not torch.equal(other.marginals(TEXTS).log_probs, p2)


def test_losses_equal_hand_wired_ones(chain: LegoNN) -> None:
    """Equation 9: CTC of every interface and cross-entropy of the end, from plain PyTorch calls."""
    x, lengths = chain.double().batch(["a b c", "d d"])
    labels = Labels(torch.tensor([[2, 3, 2], [4, -1, -1]]), torch.tensor([3, 1]))
    parts = chain.losses(x, lengths, dict.fromkeys(chain.names, labels))
    p1, k1 = chain.first(x, lengths)
    p2, k2 = list(chain)[1](p1, k1)
    for name, p, k in (("first", p1, k1), ("middle", p2, k2)):
        ctc = torch.nn.functional.ctc_loss(
            p.transpose(0, 1), labels.ids.clamp(min=0), k, labels.lengths, reduction="none"
        )
        assert parts[name].total.item() == pytest.approx(ctc.sum().item(), rel=1e-12)
        assert int(parts[name].tokens) == 4
    logits, targets = chain.last(p2, k2, *labels)
    assert targets.tolist() == [[2, 3, 2, 5], [4, 5, -1, -1]]
    ce = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum", label_smoothing=0.1
    )
    assert parts["decoder"].total.item() == pytest.approx(ce.item(), rel=1e-12)
    assert int(parts["decoder"].tokens) == 6


def test_missing_labels_are_named(chain: LegoNN) -> None:
    x, lengths = chain.batch(["a b c"])
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    with pytest.raises(DataError, match="no labels for module first, decoder: give text, or text_<module>"):
        chain.losses(x, lengths, {"middle": labels})


def test_labels_longer_than_slots_are_counted(chain: LegoNN) -> None:
    """Three input steps give six slots; seven labels have no path and add nothing but a count."""
    x, lengths = chain.double().batch(["a b", "a b"])
    labels = Labels(torch.tensor([[2, 3, 2, 3, 2, 3, 2], [2, 3, 2, -1, -1, -1, -1]]), torch.tensor([7, 3]))
    parts = chain[:1].eval().losses(x, lengths, {"first": labels})
    assert int(parts["first"].stats["infeasible"][0]) == 1
    assert int(parts["first"].tokens) == 3
    alone = chain[:1].eval().losses(x[1:], lengths[1:], {"first": Labels(labels.ids[1:, :3], labels.lengths[1:])})
    assert parts["first"].total.item() == pytest.approx(alone["first"].total.item(), rel=1e-9)


def test_names_that_clash_are_numbered(data: dict[str, Any], parts: Any) -> None:
    copy_of = {
        "vocabs": data["vocabs"],
        "modules": [parts.encoder("first", "mid", "mid", type="wemb", num_blocks=1)],
    }
    one, two = parts.build(copy_of, 1), parts.build(copy_of, 2)
    three = parts.build(copy_of, 3)
    together = one + two + three
    assert together.names == ["first", "first_2", "first_3"]
    assert [together[n].first for n in together.names] == [one.first, two.first, three.first]
    assert two.names == ["first"], "adding must not rename the modules of the parts"


def test_an_equal_vocabulary_is_kept_once(chain: LegoNN, data: dict[str, Any], parts: Any) -> None:
    renamed = {
        "vocabs": {"english": data["vocabs"]["tgt"]},
        "modules": [parts.decoder("writer", "english")],
    }
    other = parts.build(renamed)
    plugged = chain[:-1] + other
    assert set(plugged.vocabs) == {"src", "mid", "tgt"}
    assert plugged.configs[-1].input.vocab == plugged.configs[-1].output.vocab == "tgt"
    assert other.configs[0].input.vocab == "english"


def test_another_vocabulary_of_the_same_name_is_numbered(chain: LegoNN, data: dict[str, Any], parts: Any) -> None:
    clash = {
        "vocabs": {"tgt": data["vocabs"]["tgt"], "src": parts.vocab("other words")},
        "modules": [parts.decoder("writer", "tgt", "src")],
    }
    plugged = chain[:-1] + parts.build(clash)
    assert set(plugged.vocabs) == {"src", "mid", "tgt", "src_2"}
    assert plugged.configs[-1].output.vocab == "src_2"
    assert plugged.vocabs["src_2"].tokens[2:4] == ("other", "words")


def test_the_same_tokens_in_another_language_stay_two_vocabularies(data: dict[str, Any], parts: Any) -> None:
    """A joint token list of two languages: merging by tokens alone would give a decoder the wrong language."""
    vocabs = {
        "src": data["vocabs"]["src"],
        "en": parts.vocab("x y", language="en"),
        "de": parts.vocab("x y", language="de"),
    }
    left = parts.build({"vocabs": vocabs, "modules": [parts.encoder("encoder", "src", "en")]})
    right = parts.build({"vocabs": vocabs, "modules": [parts.decoder("decoder", "en", "de")]})
    plugged = left + right
    spec = plugged.configs[-1]
    assert plugged.vocabs[spec.input.vocab].language == "en"
    assert plugged.vocabs[spec.output.vocab].language == "de"


@pytest.mark.parametrize("freeze", [True, "eval"])
def test_freeze_stops_gradients_and_eval_stops_dropout(data: dict[str, Any], parts: Any, freeze: Any) -> None:
    chain = parts.build(parts.change(data, "modules.0.freeze", freeze)).train()
    assert not any(p.requires_grad for p in chain.first.parameters())
    assert all(p.requires_grad for p in chain.last.parameters())
    assert chain.first.training is (freeze is True)
    assert chain.last.training
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    parts_ = chain.losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    sum(p.total for p in parts_.values()).backward()
    assert all(p.grad is None for p in chain.first.parameters())
    assert any(p.grad is not None for p in chain.last.parameters())


def test_a_frozen_decoder_teaches_the_encoder_below(data: dict[str, Any], parts: Any) -> None:
    """End-to-end fine-tuning through a frozen decoder: it stays as it is and passes the gradient on."""
    two = {
        "vocabs": data["vocabs"],
        "modules": [
            parts.encoder("encoder", "src", "tgt"),
            {**parts.decoder("decoder", "tgt"), "freeze": True},
        ],
    }
    chain = parts.build(two).train()
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))["decoder"].total.backward()
    assert all(p.grad is None for p in chain.last.parameters())
    assert chain.first.body.encoders[0].feed_forward.w_1.weight.grad.abs().sum() > 0


def test_what_was_seen_becomes_the_contract(chain: LegoNN) -> None:
    """Training notes slots per token on both sides of an interface; reading does not."""
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.train().losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    marginals = chain.eval().marginals("a b c", "first")
    assert marginals.interface.slots_per_token == 4.0  # (3 words + end) x 2 slots, 2 tokens
    assert marginals.interface.longest == 8
    assert list(chain)[1].input.seen.slots_per_token == 4.0
    chain.losses(*chain.batch(["a b c d a b c d"]), dict.fromkeys(chain.names, labels))
    assert chain.marginals("a", "first").interface.longest == 8


def test_reaching_the_maximum_of_slots_warns_with_a_count(chain: LegoNN) -> None:
    texts = ["a b c", "a " * 30, "b " * 25]
    with pytest.warns(
        UserWarning, match="first: 2 of 3 inputs reached the maximum of 40 slots; what lies beyond is lost"
    ):
        chain.marginals(texts, "first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chain.marginals(["a b c"])


def test_batch_equals_single_through_a_whole_chain(chain: LegoNN) -> None:
    together = chain.double().generate(TEXTS, beam_size=3, nbest=3)
    for text, found in zip(TEXTS, together):
        alone = chain.generate(text, beam_size=3, nbest=3)[0]
        assert [h.ids for h in found] == [h.ids for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-9)
    batch = chain.marginals(TEXTS)
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(batch[i].log_probs, chain.marginals(text).log_probs, atol=1e-9, rtol=0)


def test_a_plug_over_one_of_several_like_vocabularies_is_loaded_again(tmp_path: Path) -> None:
    """Source and target share their tokens (joint BPE) and differ in the language; the reader has no language."""
    tokens = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
    body = {"num_blocks": 1, "size": 8, "heads": 2, "linear_units": 8}
    words = {"tokens": tokens, "unit": "word"}
    encoder = {"name": "enc", "input": {"type": "tokens", "vocab": "de"}, "body": body, "output": {"vocab": "en"}}
    left = LegoNN.from_config(
        {"vocabs": {"de": {**words, "language": "de"}, "en": {**words, "language": "en"}}, "modules": [encoder]}
    )
    decoder: dict[str, Any] = {
        "name": "dec",
        "input": {"type": "wemb", "vocab": "out", "num_blocks": 1},
        "output": {"vocab": "out"},
    }
    decoder["body"] = {**body, "type": "transformer_decoder"}
    plugged = left + LegoNN.from_config({"vocabs": {"out": words}, "modules": [decoder]})
    assert [(c.source_vocab, c.target_vocab) for c in plugged.configs] == [("de", "en"), ("en", "en")]
    plugged.eval().save(tmp_path / "plugged")
    again = LegoNN.from_pretrained(tmp_path / "plugged")
    assert again("a b") == plugged("a b") and [m.ports[0].vocab.language for m in again] == ["de", "en"]
