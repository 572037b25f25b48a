"""What a CTC interface may learn from besides: intermediate CTC, self-conditioned CTC and consistency (CR-CTC)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model import losses
from espnet2_legonn.model.chain import Chain, Labels
from espnet2_legonn.model.description import parse, plain
from espnet2_legonn.model.losses import ModuleLoss, consistency_loss
from espnet2_legonn.model.parts.ctc import CTCInterface, RegularizedCTC
from espnet2_legonn.model.precision import converted
from tests.modules import reference as ref
from tests.modules import toys
from tests.modules.test_invariance import all_valid
from tests.zoo.toys import change

SOURCES = [[3, 4, 5, 6], [2, 3], [7, 1, 2, 2, 5, 6]]
WORDS = [[2, 3, 4], [5], [2, 2, 4, 5]]
WEIGHT = 0.3


def encoder(conditioned: bool = False, control: bool = True, consistency: float = 0.0, **more: Any) -> dict[str, Any]:
    """Three blocks at the slots' time scale; distributions are read behind the first and the second."""
    inner = {"blocks": [1, 2], "weight": WEIGHT, "self_conditioned": conditioned}
    output = {"vocab": "bpe", "intermediate": inner, "consistency": consistency, "ctc_weight": 0.7}
    module = toys.encoder("enc", toys.TEXT, "bpe", **more)
    if control:
        return {**module, "output": output, "length_control": {"ratio": "2", "max_length": 20, "num_blocks": 3}}
    return {**module, "output": output, "body": {**module["body"], "num_blocks": 3}}


def reference(w: ref.Weights, ids: list[int], conditioned: bool, control: bool) -> list[np.ndarray]:
    """Log-probabilities (K, V) behind the first block, the second, and at the end."""
    x = ref.token_input(ids, ref.part(w, "input"))
    if control:
        x = ref.encoder(x, ref.part(w, "body"), toys.HEADS)
        stack, blocks = ref.part(w, "length_control.blocks"), "decoders"
        size = ref.slots(len(x), 2, 1, 20)
        h = ref.positions(size, x.shape[1]) + w["length_control.learned.weight"][:size]
    else:
        stack, blocks, h = ref.part(w, "body"), "encoders", x
    found = []
    for i in range(3):
        own = ref.part(stack, f"{blocks}.{i}")
        h = ref.cross_block(h, x, own, toys.HEADS) if control else ref.encoder_block(h, own, toys.HEADS)
        normed = ref.layer_norm(h, ref.part(stack, "after_norm"))
        found.append(ref.ctc_distribution(normed, ref.part(w, "interface")))
        if conditioned and i < 2:
            h = h + ref.linear(np.exp(found[-1]), ref.part(w, "interface.conditioning"))
    return found


def run(model: Chain, chosen: tuple[int, ...] = (0, 1, 2), extra: int = 0) -> dict[str, ModuleLoss]:
    words = toys.labels(*(WORDS[i] for i in chosen), extra=extra)
    return model.losses(*toys.padded([SOURCES[i] for i in chosen], -1, extra), dict.fromkeys(model.names, words))


# -- equations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [True, False], ids=["length_control", "body"])
@pytest.mark.parametrize("conditioned", [True, False], ids=["self_conditioned", "intermediate"])
def test_intermediate_ctc(conditioned: bool, control: bool) -> None:
    """(1 - w) CTC + w mean of CTC between the blocks, all by one projection; conditioning is felt to the end."""
    model = toys.doubled(toys.chain([encoder(conditioned, control)], sharp=3.0)).eval()
    w = ref.part(toys.weights(model), "mods.enc")
    found, wanted, last = run(model)["enc"], 0.0, []
    inner = 0.0
    for ids, words in zip(SOURCES, WORDS):
        *between, end = reference(w, ids, conditioned, control)
        middle = np.mean([ref.ctc_by_forward(x, words) for x in between])
        wanted += 0.7 * ((1 - WEIGHT) * ref.ctc_by_forward(end, words) + WEIGHT * middle)
        inner += float(middle)
        last.append(end)
    assert found.total.item() == pytest.approx(wanted, rel=1e-9) and int(found.tokens) == 8
    assert float(found.stats["intermediate"][0]) == pytest.approx(inner, rel=1e-9)
    written, slots = model.last(*toys.padded(SOURCES))
    for row, length, want in zip(written.detach().numpy(), slots, last):
        np.testing.assert_allclose(row[:length], want, atol=1e-9)


def test_consistency_and_its_gradient() -> None:
    """Half of both divergences; the one that is compared with is held fixed, so a gradient is (p - q) / 2."""
    logits = [2 * torch.randn(3, 5, 4, dtype=torch.float64) for _ in range(2)]
    logits[0].requires_grad_()
    slots = torch.tensor([5, 2, 0])
    found = consistency_loss(*(x.log_softmax(-1) for x in logits), slots)
    a, b = (ref.softmax(x.detach().numpy()) for x in logits)
    apart = 0.5 * ((a - b) * (np.log(a) - np.log(b))).sum(-1)
    np.testing.assert_allclose(found.detach(), [apart[0].sum(), apart[1, :2].sum(), 0.0], rtol=1e-12)
    found.sum().backward()
    inside = (np.arange(5) < slots.numpy()[:, None])[..., None]
    np.testing.assert_allclose(logits[0].grad, 0.5 * (a - b) * inside, atol=1e-12)


def passes_of(model: Chain, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleLoss, list[list[np.ndarray]]]:
    """Loss of the encoder, and the log-probabilities of every pass that it is made of."""
    kept: list[list[np.ndarray]] = []
    whole = RegularizedCTC.loss_of_passes

    def noting(self: Any, passes: Any, slots: torch.Tensor, labels: Labels) -> ModuleLoss:
        kept.extend([x.detach().numpy() for x in each] for each in passes)
        return whole(self, passes, slots, labels)

    monkeypatch.setattr(RegularizedCTC, "loss_of_passes", noting)
    return run(model)["enc"], kept


def test_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over both of all CTC terms, and their difference; dropout is drawn anew."""
    model = toys.doubled(toys.chain([encoder(True, consistency=0.2, dropout=0.3)], sharp=3.0)).train()
    found, passes = passes_of(model, monkeypatch)
    assert len(passes) == 2 and np.abs(passes[0][-1] - passes[1][-1]).max() > 1e-2
    terms = {"ctc": 0.0, "intermediate": 0.0, "consistency": 0.0}
    for i, words in enumerate(WORDS):
        slots = 2 * (len(SOURCES[i]) + 1)
        a, b = ([x[i, :slots] for x in each] for each in passes)
        terms["ctc"] += np.mean([ref.ctc_by_forward(x[-1], words) for x in (a, b)])
        terms["intermediate"] += np.mean([ref.ctc_by_forward(x, words) for x in (*a[:-1], *b[:-1])])
        terms["consistency"] += 0.5 * ((np.exp(a[-1]) - np.exp(b[-1])) * (a[-1] - b[-1])).sum()
    wanted = 0.7 * ((1 - WEIGHT) * terms["ctc"] + WEIGHT * terms["intermediate"] + 0.2 * terms["consistency"])
    assert found.total.item() == pytest.approx(wanted, rel=1e-9)
    for name, value in terms.items():
        assert float(found.stats[name][0]) == pytest.approx(value, rel=1e-9) and int(found.stats[name][1]) == 8


def test_what_has_no_ctc_path_adds_nothing() -> None:
    """Two of the three need more slots than there are."""
    model = toys.chain([encoder(consistency=0.2, dropout=0.3)]).train()
    model.last.length_control.max_length = 2
    parts = run(model)["enc"]
    assert int(parts.stats["infeasible"][0]) == 2 and int(parts.tokens) == 1
    one = run(toys.chain([encoder(consistency=0.2)]).train(), (1,))["enc"]
    assert float(one.stats["consistency"][0]) == 0.0, "no dropout, no difference"
    losses_of = consistency_loss(*torch.randn(2, 3, 2, 7).log_softmax(-1), torch.tensor([0, 2, 0]))
    assert losses_of[0] == losses_of[2] == 0.0 < losses_of[1]
    assert float(parts.stats["consistency"][0]) > 0.0


# -- padding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", [True, False], ids=["length_control", "body"])
def test_losses_are_the_sum_of_the_items(control: bool) -> None:
    model = toys.doubled(toys.chain([encoder(True, control, 0.2)], sharp=4.0)).train()
    batch = run(model, extra=3)["enc"]
    alone = [run(model, (i,))["enc"] for i in range(3)]
    assert float(batch.total) == pytest.approx(sum(float(part.total) for part in alone), rel=1e-9)
    for key in ("ctc", "intermediate"):
        assert float(batch.stats[key][0]) == pytest.approx(sum(float(p.stats[key][0]) for p in alone), rel=1e-9)
    items = [torch.tensor(ids) for ids in SOURCES]
    assert toys.gap(model.last, items, 5.0) < 1e-9


def test_consistency_reads_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(2, 2, 6, 5, dtype=torch.float64).log_softmax(-1)
    slots = torch.tensor([6, 2])
    alone = consistency_loss(a[1:, :2], b[1:, :2], slots[1:])
    torch.testing.assert_close(consistency_loss(a, b, slots)[1:], alone)
    monkeypatch.setattr(losses, "valid_mask", all_valid)
    assert float(consistency_loss(a, b, slots)[1] - alone[0]) > 1e-3, "the comparison sees a missing mask"


# -- off, and inference ------------------------------------------------------------------------------------------------


def test_off_is_bitwise_the_plain_interface() -> None:
    """The same class, keys, random numbers and losses as where a description says nothing of it."""
    silent = toys.two(toys.wemb("bpe"), {"dropout": 0.2})
    said = change(silent, "0.output", {**silent[0]["output"], "intermediate": None, "consistency": 0.0})
    models = [toys.chain(modules, sharp=3.0).train() for modules in (silent, said)]
    assert all(type(model.first.interface) is CTCInterface for model in models)
    found = []
    for model in models:
        torch.manual_seed(1)
        parts = run(model)
        found.append([parts["enc"].total, parts["decoder"].total, torch.rand(1)])
        assert "intermediate" not in parts["enc"].stats and "consistency" not in parts["enc"].stats
    assert found[0] == found[1]


def test_inference_runs_nothing_of_it_but_self_conditioning(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights, a model that was trained so answers as a plain one, bit by bit; a conditioned one not."""
    rich = toys.chain([encoder(consistency=0.2)], sharp=3.0).eval()
    bare = encoder()
    bare["output"] = {"vocab": "bpe", "ctc_weight": 0.7}
    base = toys.chain([bare]).eval()
    base.load_state_dict(rich.state_dict())
    x = toys.padded(SOURCES)
    assert torch.equal(rich.last(*x)[0], base.last(*x)[0])
    conditioned = toys.chain([encoder(True)]).eval()
    conditioned.load_state_dict(rich.state_dict(), strict=False)
    assert not torch.allclose(conditioned.last(*x)[0], base.last(*x)[0])
    projected = []
    model = rich.last
    monkeypatch.setattr(model.interface.ctc_lo, "forward", lambda y: projected.append(1) or y @ torch.zeros(8, 7))
    model(*x)
    assert len(projected) == 1, "no distribution between the blocks is made for nobody"


def test_validation_and_frozen_modules_pass_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.chain([encoder(consistency=0.2, dropout=0.3)])
    assert "consistency" in run(model.train())["enc"].stats
    assert "consistency" not in run(model.eval())["enc"].stats
    frozen = toys.chain([{**encoder(consistency=0.2, dropout=0.3), "freeze": True}]).train()
    assert "consistency" not in run(frozen)["enc"].stats


def test_only_modules_that_ask_pass_twice() -> None:
    """The one behind reads the first pass, the ports count a batch once."""
    modules = [encoder(True, consistency=0.2, dropout=0.3), toys.decoder(toys.wemb("bpe"), dropout=0.3)]
    model = toys.chain(modules).train()
    counted: list[int] = []
    model.first.body.register_forward_hook(lambda *_: counted.append(1))
    model.last.body.register_forward_hook(lambda *_: counted.append(10))
    parts = run(model)
    assert sum(counted) == 12 and "consistency" not in parts["decoder"].stats
    assert model.first.interface.seen.totals.tolist() == [30.0, 8.0]
    sum(part.total for part in parts.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.first.interface.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_precisions_decode(dtype: str) -> None:
    model = toys.chain([encoder(True)], sharp=3.0).eval()
    x = toys.padded(SOURCES)
    wanted, found = model.last(*x)[0], converted(model, dtype).last(*x)[0]
    assert found.dtype == torch.float32 and (found.exp() - wanted.exp()).abs().max() < 0.1


def test_autocast_keeps_distributions_in_float32() -> None:
    model = toys.chain([encoder(True, consistency=0.2, dropout=0.3)]).train()
    kept: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        states, _ = model.last.states(*toys.padded(SOURCES), kept)
    assert states.dtype == torch.float32 and [x.dtype for x in kept] == [torch.float32] * 2


# -- descriptions and packs --------------------------------------------------------------------------------------------


def described(**changes: Any) -> dict[str, Any]:
    module = encoder()
    for place, value in changes.items():
        module = change(module, place.replace("__", "."), value)
    return {"vocabs": {n: toys.VOCABS[n] for n in ("src", "bpe")}, "modules": [module]}


WIDE = {"type": "conformer", "output_size": 8, "attention_heads": 2, "linear_units": 8, "num_blocks": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output__intermediate__blocks": [3]}, r"enc.output.intermediate.blocks: \[3\].*1 to 2; length_control has 3"),
        ({"output__intermediate__blocks": []}, r"blocks: \[\]: must be different numbers"),
        ({"output__intermediate__blocks": [1, 1]}, r"blocks: \[1, 1\]: must be different numbers"),
        ({"output__intermediate__blocks": [0]}, r"blocks: \[0\]"),
        ({"length_control": None}, "enc.output.intermediate: stands between blocks, and body has 1"),
        ({"length_control": None, "body": WIDE}, "between the blocks of a body of type conformer; give length_control"),
        ({"length_control": None, "body": {"type": "none", "size": 8}}, "a body of type none; give length_control"),
        ({"output__intermediate__weight": 1.0}, "enc.output.intermediate.weight: 1.0 is not at least 0"),
        ({"output__intermediate__blokcs": [1]}, r"unknown key 'blokcs' \(did you mean 'blocks'\?\)"),
        ({"output__consistency": -0.1}, "enc.output.consistency: -0.1 is not at least 0"),
        ({"output__ctc_weight": 0.0}, "enc.output.intermediate: is a part of the CTC loss, and ctc_weight is 0"),
        ({"output__consistancy": 0.2}, r"unknown key 'consistancy' \(did you mean 'consistency'\?\)"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(described(**changes))


def test_faults_of_two_kinds_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(described(length_control=None, output__glancing=0.5))
    told = str(caught.value)
    assert len(caught.value.faults) == 2
    assert "output.glancing: shows tokens" in told and "output.intermediate: stands between blocks" in told


def test_decoder_modules_have_none() -> None:
    data = toys.decoder(toys.wemb("bpe"))
    data["output"] |= {"intermediate": {"blocks": [1]}, "consistency": 0.2}
    with pytest.raises(ConfigError) as caught:
        parse({"vocabs": {"bpe": toys.VOCABS["bpe"]}, "modules": [data]})
    assert len(caught.value.faults) == 2 and "decoder.output.consistency: is for CTC" in str(caught.value)


def test_behind_another_body_it_stands_in_length_control() -> None:
    """Which has blocks of ours, whatever the body is."""
    assert parse(described(body=WIDE)).modules[0].output.intermediate.blocks == [1, 2]
    config = parse(described(body={"type": "none", "size": 8, "heads": 2, "linear_units": 8}))
    assert parse(plain(config)) == config
    chain = Chain.from_config(config).train()
    assert "intermediate" in run(chain)["enc"].stats


def test_packs_keep_it(tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = LegoNN.from_config(described(output__intermediate__self_conditioned=True, output__consistency=0.2)).eval()
    toys.scramble(made)
    made.save(tmp_path / "pack")
    again = LegoNN.from_pretrained(tmp_path / "pack")
    assert isinstance(again.last.interface, RegularizedCTC) and again.configs == made.configs
    x = toys.padded(SOURCES)
    assert torch.equal(again.last(*x)[0], made.last(*x)[0])
    assert torch.equal(again.last.interface.conditioning.weight, made.last.interface.conditioning.weight)
