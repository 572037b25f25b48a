"""Freezing, what ports see in training, evaluation mode and bf16 autocast."""

from __future__ import annotations

import pytest
import torch

from espnet2_legonn.errors import DataError
from espnet2_legonn.model.chain import Chain, Labels
from espnet2_legonn.model.module import consumed, produced
from espnet2_legonn.model.transformer import BodyConfig, CrossTransformer, TransformerEncoder
from tests.modules import toys

SOURCES = [[3, 4, 5], [2, 3], [7, 1, 2, 2]]
PHONES = [[2, 3], [4, 4], [3, 2, 4]]
WORDS = [[2, 3, 4], [5], [3, 2, 4, 5]]
TARGETS = {"first": PHONES, "second": WORDS, "decoder": WORDS}


def run(model: Chain) -> dict:
    labels = {n: toys.labels(*TARGETS.get(n, WORDS)) for n in model.names}
    return model.losses(*toys.padded(SOURCES), labels)


def frozen(*how: bool | str, **more: float) -> Chain:
    modules = toys.three(**more)
    for module, freeze in zip(modules, how):
        module["freeze"] = freeze
    return toys.chain(modules)


def backward(model: Chain) -> dict:
    parts = run(model)
    sum(p.total for p in parts.values()).backward()
    return parts


def learns(model: Chain, name: str) -> bool:
    grads = [p.grad is not None for p in model[name].last.parameters()]
    assert all(grads) or not any(grads)
    return all(grads)


# -- freeze ----------------------------------------------------------------------------------------


COMBINATIONS = [
    (False, False, False),
    (True, False, False),
    (False, True, False),
    (False, False, True),
    (True, True, False),
    ("eval", False, "eval"),
    (True, False, True),
]


@pytest.mark.parametrize("how", COMBINATIONS)
def test_frozen_modules_get_no_gradient_and_the_others_do(how: tuple) -> None:
    model = frozen(*how).train()
    backward(model)
    for name, freeze in zip(model.names, how):
        assert learns(model, name) is not bool(freeze)
        assert all(p.requires_grad is not bool(freeze) for p in model.mods[name].parameters())


def test_gradient_passes_through_a_frozen_decoder() -> None:
    model = frozen(False, False, True).train()
    run(model)["decoder"].total.backward()
    assert learns(model, "first") and learns(model, "second") and not learns(model, "decoder")


def test_leading_frozen_modules_keep_no_graph() -> None:
    model = frozen(True, True, False).train()
    kept: dict[str, bool] = {}
    for name in model.names:
        last = model.mods[name].output if name == "decoder" else model.mods[name].interface
        last.register_forward_hook(lambda _m, _i, output, name=name: kept.__setitem__(name, output.requires_grad))
    run(model)
    assert kept == {"first": False, "second": False, "decoder": True}
    model = frozen(False, True, False).train()
    model.mods["second"].interface.register_forward_hook(
        lambda _m, _i, output: kept.__setitem__("second", output.requires_grad)
    )
    run(model)
    assert kept["second"], "a frozen module behind a learning one passes the gradient on"


def test_freeze_true_keeps_dropout_and_freeze_eval_does_not() -> None:
    model = frozen(True, "eval", False, dropout=0.3).train()
    modes = {n: {m.training for m in model.mods[n].modules()} for n in model.names}
    assert modes == {"first": {True}, "second": {False}, "decoder": {True}}
    ids, lengths = toys.padded(SOURCES)
    assert not torch.equal(model.mods["first"](ids, lengths)[0], model.mods["first"](ids, lengths)[0])
    log_probs = toys.random_log_probs(3, 6, toys.PHN).float()
    first, second = (model.mods["second"](log_probs, torch.tensor([6, 4, 5]))[0] for _ in range(2))
    assert torch.equal(first, second)
    model.eval().train()
    assert not model.mods["second"].training and model.mods["first"].training
    assert not any(m.training for m in model.eval().modules())


@pytest.mark.parametrize("place", ["dropout", "attention_dropout", "activation_dropout"])
@pytest.mark.parametrize("kind", [TransformerEncoder, CrossTransformer])
def test_each_dropout_works_in_training_alone(kind: type, place: str) -> None:
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, place: 0.5}
    torch.manual_seed(0)
    stack = kind(BodyConfig(1, toys.D, toys.HEADS, toys.UNITS, **rates))
    x, lengths = torch.randn(2, 6, toys.D), torch.tensor([6, 4])
    inputs = (x, lengths) if kind is TransformerEncoder else (x, x, lengths)
    assert not torch.equal(stack.train()(*inputs), stack(*inputs))
    assert torch.equal(stack.eval()(*inputs), stack(*inputs))


def test_a_step_of_the_optimizer_leaves_frozen_weights() -> None:
    model = frozen(True, False, "eval").train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    backward(model)
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) is not name.startswith("mods.second"), name


def test_sharing_a_module_keeps_evaluation_mode() -> None:
    """``asr[:-1] + mt[-1:]`` of two chains that are ready to decode is ready to decode."""
    a, b = toys.chain(toys.three(dropout=0.3)).eval(), toys.chain(toys.three()).eval()
    assert not a[:-1].training and not a["first"].training
    plugged = a[:-1] + b[-1:]
    assert not any(m.training for m in (*a.modules(), *b.modules(), *plugged.modules()))


def test_a_slice_of_a_training_chain_trains() -> None:
    model = toys.chain(toys.three()).train()
    assert all(m.training for m in model[1:].modules())


def test_missing_labels_are_named() -> None:
    model = toys.chain(toys.three())
    with pytest.raises(DataError, match="no labels for module second, decoder"):
        model.losses(*toys.padded(SOURCES), {"first": toys.labels(*PHONES)})


# -- what ports saw --------------------------------------------------------------------------------


def seen(model: Chain) -> dict[str, tuple[float, float, int]]:
    found = {}
    for name, module in model.mods.items():
        for side, port in (("in", module.input), ("out", getattr(module, "interface", None))):
            if hasattr(port, "seen"):
                found[f"{name}.{side}"] = (*port.seen.totals.tolist(), int(port.seen.longest))
    return found


# Slots: 2 x (source + 1) = 8, 6, 10; then ceil of 5/6: 7, 5, 9. Tokens: 7 phones, 8 words.
FIRST, SECOND = (24.0, 7.0, 10), (21.0, 8.0, 9)
NOTHING = (0.0, 0.0, 0)


def test_both_sides_of_an_interface_note_slots_and_tokens() -> None:
    model = frozen().train()
    run(model)
    assert seen(model) == {"first.out": FIRST, "second.in": FIRST, "second.out": SECOND, "decoder.in": SECOND}
    run(model)
    assert seen(model)["first.out"] == (48.0, 14.0, 10)
    out, into = produced(model.mods["first"]), consumed(model.mods["second"])
    assert out.slots_per_token == into.slots_per_token == pytest.approx(24 / 7)
    assert out.longest == into.longest == 10 and out.grounded


def test_slots_per_token_is_also_logged() -> None:
    stats = run(frozen())["second"].stats
    assert [v.item() for v in stats["slots_per_token"]] == [21, 8]
    assert stats["blank"][1].item() == 21


def test_evaluation_notes_nothing() -> None:
    model = frozen().eval()
    run(model)
    assert set(seen(model).values()) == {NOTHING}
    assert produced(model.mods["first"]).slots_per_token is None


@pytest.mark.parametrize("how", [True, "eval"])
def test_frozen_modules_keep_what_they_saw(how: bool | str) -> None:
    model = frozen(how, False, how).train()
    run(model)
    found = seen(model)
    assert found["first.out"] == found["decoder.in"] == NOTHING
    assert (found["second.in"], found["second.out"]) == (FIRST, SECOND)


def test_what_was_seen_travels_with_the_weights_and_can_be_reset() -> None:
    model, other = frozen().train(), frozen()
    run(model)
    other.load_state_dict(model.state_dict())
    assert seen(other) == seen(model)
    other.mods["first"].interface.seen.reset()
    assert seen(other)["first.out"] == NOTHING and seen(other)["second.in"] == FIRST


def test_an_ungrounded_encoder_says_so() -> None:
    model = toys.chain(toys.two(toys.wemb("bpe"), {"ctc_weight": 0.0}))
    assert not produced(model.mods["enc"]).grounded


# -- encoder only ----------------------------------------------------------------------------------


def test_encoder_only_training() -> None:
    model = toys.chain([toys.encoder("enc", toys.TEXT, "bpe", "2")]).train()
    parts = backward(model)
    assert list(parts) == ["enc"] and learns(model, "enc")
    assert seen(model) == {"enc.out": (24.0, 8.0, 10)}


def test_joint_training_lowers_every_loss() -> None:
    model = toys.chain(toys.three()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        history.append({n: p.total.item() for n, p in backward(model).items()})
        optimizer.step()
    assert all(history[-1][n] < 0.5 * history[0][n] for n in model.names)


# -- bf16 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["text", "speech"])
@pytest.mark.parametrize("read", ["wemb", "wemb_3", "beam_conv", "collapsed"])
def test_bf16_autocast_keeps_distributions_in_float32(source: str, read: str) -> None:
    readers = {
        "wemb": toys.wemb("bpe"),
        "wemb_3": toys.wemb("bpe", receptive_field=3),
        "beam_conv": toys.beam_conv("bpe"),
        "collapsed": toys.wemb("bpe", collapse=True),
    }
    first = toys.TEXT if source == "text" else toys.SPEECH
    model = toys.chain([toys.encoder("enc", first, "bpe", "2"), toys.decoder(readers[read])]).train()
    torch.manual_seed(0)
    x, lengths = (
        toys.padded(SOURCES)
        if source == "text"
        else (0.1 * torch.randn(3, 8000), torch.tensor([8000, 5000, 6000]))
    )
    labels = {n: toys.labels(*WORDS) for n in model.names}
    exact = model.losses(x, lengths, labels)
    kinds: list[torch.dtype] = []
    model.mods["enc"].interface.register_forward_hook(lambda _m, _i, output: kinds.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.losses(x, lengths, labels)
    sum(p.total for p in rough.values()).backward()
    assert kinds == [torch.float32]
    for name, part in rough.items():
        assert part.total.dtype == torch.float32
        assert part.total.item() == pytest.approx(exact[name].total.item(), rel=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_bf16_steps_of_decoding_are_near() -> None:
    model = toys.chain([toys.decoder(toys.wemb("bpe"))]).eval().last
    log_probs, slots = toys.random_log_probs(2, 6, toys.BPE).float(), torch.tensor([6, 4])
    found = {}
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            state = model.start(log_probs, slots)
            for tokens in ([6, 6], [2, 3]):
                found[enabled] = model.step(torch.tensor(tokens), state)
    assert found[True].dtype == torch.float32
    torch.testing.assert_close(found[True], found[False], rtol=0.1, atol=0.1)


def test_a_table_grown_while_decoding_serves_training() -> None:
    """Positions grow on demand, also under inference_mode; what grows there must not poison training."""
    model = toys.chain([toys.encoder("enc", toys.TEXT, "bpe")])
    with torch.inference_mode():
        model.last(torch.full((1, 600), 3), torch.tensor([600]))
    parts = model.losses(
        torch.full((1, 600), 3), torch.tensor([600]), {"enc": Labels(torch.tensor([[2]]), torch.tensor([1]))}
    )
    parts["enc"].total.backward()
    assert learns(model, "enc")
