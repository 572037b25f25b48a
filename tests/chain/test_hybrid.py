"""The hybrid CTC/attention baseline: states go on; the CTC beside them is read, trained, kept and described."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import ConfigError, DataError, InterfaceMismatch, LegoNN
from espnet2_legonn.model.build import least_values
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.description import parse, plain
from espnet2_legonn.model.module import produced
from espnet2_legonn.packs.card import read_card
from espnet2_legonn.packs.check import Verdict, check
from espnet2_legonn.packs.model_card import port_words
from espnet2_legonn.search.beam import BeamOptions

Data = dict[str, Any]
TEXTS = ["a b c", "d", "c c a b d a"]


@pytest.fixture
def hybrid(data: Data, parts: Any) -> Data:
    """Source words -> states, CTC over target words beside them -> text."""
    encoder = {**parts.encoder("encoder", "src", "tgt"), "output": {"type": "states", "ctc": {"vocab": "tgt"}}}
    decoder = {**parts.decoder("decoder", "tgt"), "input": {"type": "states"}}
    vocabs = {name: data["vocabs"][name] for name in ("src", "tgt")}
    return {"vocabs": vocabs, "modules": [encoder, decoder]}


def losses(chain: LegoNN) -> dict[str, Any]:
    labels = Labels(torch.tensor([[2, 3], [4, -1]]), torch.tensor([2, 1]))
    return chain.losses(*chain.batch(["a b c", "d"]), dict.fromkeys(chain.names, labels))


def test_the_decoder_gets_states_and_the_interface_is_found(hybrid: Data, parts: Any) -> None:
    chain = parts.build(hybrid)
    found, x, lengths = chain.encode(*chain.batch(TEXTS))
    assert list(found) == ["encoder"] and x.shape == (3, int(lengths.max()), 8)
    marginals = found["encoder"]
    assert marginals.log_probs.shape == (*x.shape[:2], 6) and marginals.interface.vocab == chain.vocabs["tgt"]
    assert torch.equal(marginals.lengths, lengths) and marginals.interface.grounded
    with torch.inference_mode():
        torch.testing.assert_close(marginals.log_probs, chain.first.interface.log_probs(x))
    for i, answer in enumerate(chain.answer(TEXTS, BeamOptions(2))):
        torch.testing.assert_close(answer.interfaces["encoder"].marginals.log_probs, marginals[i].log_probs)
    assert chain.marginals(TEXTS).greedy_texts() == marginals.greedy_texts()


def test_the_answers_are_those_of_the_plain_baseline(hybrid: Data, parts: Any) -> None:
    """What is beside the states does not change them."""
    chain = parts.build(hybrid)
    alone = copy.deepcopy(hybrid)
    alone["modules"][0]["output"] = {"type": "states"}
    plainly = LegoNN.from_config(alone).eval()
    plainly.load_state_dict({k: v for k, v in chain.state_dict().items() if "interface" not in k})
    torch.testing.assert_close(plainly.encode(*chain.batch(TEXTS))[1], chain.encode(*chain.batch(TEXTS))[1])


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9])
def test_weight_shares_the_loss_as_espnet_does(hybrid: Data, parts: Any, weight: float) -> None:
    chain = parts.build(parts.change(hybrid, "modules.0.output.ctc.weight", weight))
    found = losses(chain)
    assert found["encoder"].total.item() == pytest.approx(weight * found["encoder"].stats["ctc"][0].item())
    assert found["decoder"].total.item() == pytest.approx((1 - weight) * found["decoder"].stats["ce"][0].item())
    assert produced(chain.first).grounded is (weight > 0)


def test_labels_are_missed_and_what_training_showed_is_kept(hybrid: Data, parts: Any) -> None:
    chain = parts.build(hybrid).train()
    with pytest.raises(DataError, match="no labels for module encoder"):
        chain.losses(*chain.batch(["a"]), {"decoder": Labels(torch.tensor([[2]]), torch.tensor([1]))})
    losses(chain)
    assert produced(chain.first).slots_per_token == pytest.approx(12 / 3)


def test_slices_sums_and_packs(hybrid: Data, parts: Any, tmp_path: Path) -> None:
    chain = parts.build(hybrid)
    losses(chain.train())
    saved = chain.eval().save(tmp_path / "pack")
    again = LegoNN.from_pretrained(saved)
    assert again.configs == chain.configs and again(TEXTS) == chain(TEXTS)
    assert again.marginals(TEXTS).greedy_texts() == chain.marginals(TEXTS).greedy_texts()
    alone = LegoNN.from_pretrained(chain[:-1].save(tmp_path / "alone"))
    assert set(alone.vocabs) == {"src", "tgt"} and alone(TEXTS, ctc_weight=0) == chain.marginals(TEXTS).greedy_texts()
    with pytest.warns(UserWarning, match="hidden states are no interface"):
        assert (alone + again[-1:])(TEXTS) == chain(TEXTS)
    with pytest.raises(InterfaceMismatch, match="encoder writes states, decoder reads marginals"):
        alone + parts.build({"vocabs": hybrid["vocabs"], "modules": [parts.decoder("decoder", "tgt")]})


def test_vocabularies_of_a_sum_are_renamed_in_the_auxiliary_too(hybrid: Data, parts: Any) -> None:
    """A denoiser before a hybrid encoder whose target is called as the denoiser's own, other vocabulary."""
    other = copy.deepcopy(hybrid)
    other["vocabs"] = {"src": hybrid["vocabs"]["src"], "tgt": parts.vocab("u v w")}
    other["modules"][0]["input"] = {"type": "wemb", "vocab": "src", "num_blocks": 1}
    writer = parts.encoder("writer", "tgt", "src")
    first = parts.build({"vocabs": hybrid["vocabs"], "modules": [writer]})
    plugged = first + parts.build(other)
    assert plugged.configs[1].target.vocab == plugged.configs[2].output.vocab == "tgt_2"
    assert plugged.vocabs["tgt_2"].tokens[2] == "u"
    assert plugged[:2].vocabs.keys() == {"src", "tgt", "tgt_2"}


def test_card_and_check(hybrid: Data, parts: Any, tmp_path: Path) -> None:
    chain = parts.build(hybrid)
    losses(chain.train())
    saved = chain.save(tmp_path / "pack")
    writes = read_card(saved).module("encoder").writes
    assert (writes.kind, writes.vocab, writes.size, writes.slots_per_token) == ("states", "tgt", 8, 4.0)
    assert port_words(writes).startswith("states tgt width 8")
    report = check([f"{saved}#encoder", f"{saved}#decoder"])
    assert report.verdict is Verdict.DIFFERS and "hidden states are no interface" in str(report)


def test_a_description_asks_for_the_interface_too(hybrid: Data) -> None:
    chain = LegoNN.from_config(hybrid)
    values = sum(p.numel() for p in chain.parameters())
    config = parse(hybrid)
    without = copy.deepcopy(hybrid)
    without["modules"][0]["output"] = {"type": "states"}
    gap = least_values(config, chain.vocabs) - least_values(parse(without), chain.vocabs)
    assert gap == 0, "a source table of 7 rows is larger than an interface of 6: they might be one"
    assert least_values(config, chain.vocabs) <= values
    without["modules"][0]["input"] = hybrid["modules"][0]["input"] = {"type": "speech", "n_mels": 8, "channels": [2, 3]}
    assert least_values(parse(hybrid), chain.vocabs) - least_values(parse(without), chain.vocabs) == 6 * 8


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("modules.0.output.ctc.vocab", "tgz", "encoder.output.ctc.vocab: 'tgz' is not in vocabs (did you mean 'tgt'?)"),
        ("modules.0.output.ctc.weight", 1.0, "encoder.output.ctc.weight: 1.0 is not at least 0 and less than 1"),
        ("modules.0.output.ctc.weigth", 0.3, "encoder.output.ctc: unknown key 'weigth' (did you mean 'weight'?)"),
        ("modules.0.output.ctc", 0.3, "encoder.output.ctc: must be a mapping, found 0.3"),
        ("modules.1.input.ctc", {"vocab": "tgt"}, "decoder.input: unknown key 'ctc'"),
    ],
)
def test_faults(hybrid: Data, parts: Any, place: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(parts.change(hybrid, place, value))
    assert any(fault.startswith(message) for fault in error.value.faults), error.value.faults


def test_round_trip(hybrid: Data) -> None:
    config = parse(hybrid)
    assert parse(plain(config)) == config
    assert plain(config)["modules"][0]["output"]["ctc"] == {"vocab": "tgt", "weight": 0.3}
