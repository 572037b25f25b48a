"""Gradients: CTC by finite differences on logits, open at WEmb, shut at BeamConv, none where infeasible."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from espnet2_legonn.model.chain import Chain, Labels
from espnet2_legonn.model.losses import ctc_loss
from espnet2_legonn.model.parts.ctc import CTCInterface
from tests.modules import reference as ref
from tests.modules import toys

SOURCES = [[3, 4, 5], [2, 3], [7, 1, 2, 2]]
WORDS = [[2, 2, 4], [5], [3, 2, 4, 5]]
STEP = 1e-5


def differences(objective: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Central differences of a scalar function."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += STEP
        down[place] -= STEP
        gradient[place] = (objective(up) - objective(down)) / (2 * STEP)
    return gradient


def keep_logits(model: Chain, name: str) -> list[torch.Tensor]:
    """The CTC logits of a module, filled in by the next forward pass, gradient kept."""
    kept: list[torch.Tensor] = []

    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    model[name].last.interface.ctc_lo.register_forward_hook(hook)
    return kept


def run(model: Chain, words: list[list[int]] = WORDS) -> dict:
    labels = toys.labels(*words)
    return model.losses(*toys.padded(SOURCES), {"enc": labels, "decoder": labels})


def gradients(model: Chain, name: str) -> list[torch.Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in model[name].parameters()]


# -- CTC -------------------------------------------------------------------------------------------


def test_ctc_gradient_of_logits_by_finite_differences() -> None:
    logits = torch.randn(3, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    slots, words = torch.tensor([8, 3, 6]), [[2, 2, 3], [1], [4, 1, 4, 1]]
    leaf = logits.clone().requires_grad_()
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    losses, _ = ctc_loss(leaf.log_softmax(-1), slots, *toys.labels(*words))
    (losses * weights).sum().backward()
    for i, (k, word) in enumerate(zip(slots.tolist(), words)):
        wanted = differences(
            lambda x, w=word: ref.ctc_by_forward(ref.log_softmax(x), w), logits[i, :k].numpy()
        )
        np.testing.assert_allclose(leaf.grad[i, :k], weights[i].item() * wanted, atol=1e-8)
        assert not leaf.grad[i, k:].any(), "slots beyond the item get no gradient"


def test_ctc_gradient_through_the_interface() -> None:
    torch.manual_seed(0)
    interface = CTCInterface(toys.D, 5).double()
    x = torch.randn(2, 6, toys.D, dtype=torch.float64, requires_grad=True)
    slots, labels = torch.tensor([6, 4]), toys.labels([2, 2, 3], [1])
    inputs = (x, interface.ctc_lo.weight, interface.ctc_lo.bias)
    assert torch.autograd.gradcheck(lambda *_: ctc_loss(interface(x), slots, *labels)[0], inputs)


def test_ctc_gradient_of_logits_in_a_chain() -> None:
    model = toys.doubled(toys.chain(toys.two(toys.wemb("bpe"), {"ctc_weight": 0.7}), sharp=3.0)).eval()
    kept = keep_logits(model, "enc")
    run(model)["enc"].total.backward()
    for i, (source, word) in enumerate(zip(SOURCES, WORDS)):
        k = 2 * (len(source) + 1)
        at = kept[0][i, :k].detach().numpy()
        wanted = differences(lambda x, w=word: 0.7 * ref.ctc_by_forward(ref.log_softmax(x), w), at)
        np.testing.assert_allclose(kept[0].grad[i, :k], wanted, atol=1e-8)
        assert not kept[0].grad[i, k:].any()


def test_joint_gradient_of_states_with_an_auxiliary_ctc() -> None:
    """w CTC + (1 - w) CE as a function of the hidden states, against differences of the NumPy reference."""
    encoder = {**toys.encoder("enc", toys.TEXT, "bpe", "2"), "output": toys.HYBRID}
    model = toys.doubled(toys.chain([encoder, toys.decoder({"type": "states"})], sharp=3.0)).eval()
    kept: list[torch.Tensor] = []
    model["enc"].last.interface.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), kept.append(out))[1])
    parts = run(model)
    (parts["enc"].total + parts["decoder"].total).backward()
    weights = toys.weights(model)
    interface, own = ref.part(weights, "mods.enc.interface"), ref.part(weights, "mods.decoder")

    def objective(states: np.ndarray, word: list[int]) -> float:
        ctc = ref.ctc_by_forward(ref.ctc_distribution(states, interface), word)
        return 0.3 * ctc + 0.7 * ref.cross_entropy(ref.decoder(states, word, own, toys.HEADS), word)

    for i, word in enumerate(WORDS[:2]):
        k = 2 * (len(SOURCES[i]) + 1)
        wanted = differences(lambda x, w=word: objective(x, w), kept[0][i, :k].detach().numpy())
        np.testing.assert_allclose(kept[0].grad[i, :k], wanted, atol=2e-6)  # cross-entropy is float32


# -- through the interface -------------------------------------------------------------------------


@pytest.mark.parametrize("field", [1, 3])
def test_joint_gradient_of_logits_ctc_and_wemb(field: int) -> None:
    """Equation 9 as a function of the first module's logits, against differences of the NumPy reference."""
    model = toys.doubled(toys.chain(toys.two(toys.wemb("bpe", receptive_field=field)), sharp=3.0)).eval()
    kept = keep_logits(model, "enc")
    parts = run(model)
    (parts["enc"].total + parts["decoder"].total).backward()
    own = ref.part(toys.weights(model), "mods.decoder")

    def objective(logits: np.ndarray, word: list[int]) -> float:
        log_probs = ref.log_softmax(logits)
        memory = ref.ingestor(np.exp(log_probs), ref.part(own, "input"), toys.HEADS)
        ce = ref.cross_entropy(ref.decoder(memory, word, own, toys.HEADS), word)
        return ref.ctc_by_forward(log_probs, word) + ce

    for i, word in enumerate(WORDS[:2]):
        k = 2 * (len(SOURCES[i]) + 1)
        wanted = differences(lambda x, w=word: objective(x, w), kept[0][i, :k].detach().numpy())
        np.testing.assert_allclose(kept[0].grad[i, :k], wanted, atol=1e-8)
        assert not kept[0].grad[i, k:].any()


@pytest.mark.parametrize("more", [{}, {"receptive_field": 3}, {"collapse": True}])
def test_wemb_lets_the_decoders_gradient_through(more: dict) -> None:
    model = toys.chain(toys.two(toys.wemb("bpe", **more)), sharp=3.0).double()
    run(model)["decoder"].total.backward()
    for name, parameter in model["enc"].named_parameters():
        if not name.endswith("linear_k.bias"):  # softmax does not see what is added to all keys
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7, name


@pytest.mark.parametrize("more", [{}, {"receptive_field": 3}, {"collapse": True}])
def test_beam_conv_gradient_is_exactly_absent(more: dict) -> None:
    model = toys.chain(toys.two(toys.beam_conv("bpe", **more)))
    run(model)["decoder"].total.backward()
    assert all(g is None for g in gradients(model, "enc"))
    assert all(g is not None and g.any() for g in gradients(model, "decoder"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_beam_conv_encoder_learns_from_ctc_alone_bit_for_bit(dropout: float) -> None:
    model = toys.chain(toys.two(toys.beam_conv("bpe"), {"dropout": dropout}, dropout=dropout)).train()
    torch.manual_seed(7)
    run(model)["enc"].total.backward()
    alone = gradients(model, "enc")
    model.zero_grad()
    torch.manual_seed(7)
    parts = run(model)
    (parts["enc"].total + parts["decoder"].total).backward()
    for a, b in zip(alone, gradients(model, "enc")):
        assert a is not None and torch.equal(a, b)


def test_three_modules_gradient_stops_at_beam_conv_only() -> None:
    labels = {n: toys.labels([2], [3], [2, 3]) for n in ("first", "second", "decoder")}
    model = toys.chain(toys.three(toys.beam_conv("phn"), toys.wemb("bpe")))
    model.losses(*toys.padded(SOURCES), labels)["decoder"].total.backward()
    assert all(g is None for g in gradients(model, "first"))
    assert all(g is not None for g in gradients(model, "second"))
    model = toys.chain(toys.three())
    model.losses(*toys.padded(SOURCES), labels)["decoder"].total.backward()
    assert all(g is not None for g in gradients(model, "first"))


def test_ungrounded_encoder_gets_the_decoders_gradient_alone() -> None:
    model = toys.chain(toys.two(toys.wemb("bpe"), {"ctc_weight": 0.0}))
    parts = run(model)
    assert parts["enc"].total.item() == 0 and parts["enc"].stats["ctc"][0] > 0
    parts["decoder"].total.backward(retain_graph=True)
    alone = gradients(model, "enc")
    parts["enc"].total.backward()
    assert all(torch.equal(a, b) for a, b in zip(alone, gradients(model, "enc")))


# -- infeasible items ------------------------------------------------------------------------------

TOO_LONG = [WORDS[0], [2, 2, 2, 2], WORDS[2]]  # 4 labels + 3 repeats need 7 slots, the second item has 6


def test_infeasible_items_give_exactly_no_gradient_and_are_counted() -> None:
    model = toys.doubled(toys.chain(toys.two(toys.beam_conv("bpe")))).eval()
    kept = keep_logits(model, "enc")
    part = run(model, TOO_LONG)["enc"]
    part.total.backward()
    assert [n.item() for n in part.stats["infeasible"]] == [1, 3]
    assert not kept[0].grad[1].any()
    assert kept[0].grad[0].any() and kept[0].grad[2].any()
    assert part.tokens.item() == len(TOO_LONG[0]) + len(TOO_LONG[2])
    assert part.stats["ctc"][1].item() == part.tokens.item()
    wanted = sum(
        ref.ctc_by_forward(kept[0][i].log_softmax(-1)[: 2 * len(SOURCES[i]) + 2].detach().numpy(), w)
        for i, w in enumerate(TOO_LONG)
        if i != 1
    )
    assert part.total.item() == pytest.approx(wanted, rel=1e-10)


def test_a_batch_of_infeasible_items_alone_is_finite() -> None:
    model = toys.chain(toys.two(toys.beam_conv("bpe")))
    part = run(model, [[2] * 20] * 3)["enc"]
    part.total.backward()
    assert (part.total.item(), part.tokens.item()) == (0.0, 0)
    assert part.stats["infeasible"][0].item() == 3
    assert not any(g.any() for g in gradients(model, "enc") if g is not None)


def test_repeats_in_the_padding_do_not_count() -> None:
    labels = Labels(torch.tensor([[2, 3, 3, 3, 3]]), torch.tensor([2]))
    _, impossible = ctc_loss(toys.random_log_probs(1, 2, 5), torch.tensor([2]), *labels)
    assert not impossible.any()


def test_extreme_logits_stay_finite() -> None:
    logits = torch.zeros(1, 6, 5)
    logits[..., 4] = 1e4
    logits.requires_grad_()
    losses, impossible = ctc_loss(logits.log_softmax(-1), torch.tensor([6]), *toys.labels([2, 2, 3]))
    losses.sum().backward()
    assert not impossible.any() and torch.isfinite(losses).all() and torch.isfinite(logits.grad).all()
