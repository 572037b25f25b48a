"""What was made fast says what the plain way says: dropout, attention with dropout, joint layers, pooling."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from espnet2_legonn.model import attention
from espnet2_legonn.model.attention import MultiHeadAttention, joined
from espnet2_legonn.model.dropout import Dropout, dropout
from espnet2_legonn.model.losses import Labels, cross_entropy
from espnet2_legonn.model.parts.ctc import CTCInterface
from espnet2_legonn.model.parts.frames import _pool
from tests.modules import toys


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    number = 1_000_003  # no multiple of four: the last random number is not used up
    found = dropout(torch.ones(number), rate)
    kept = found[found != 0]
    assert abs(len(kept) / number - (1 - rate)) < 5 * (rate * (1 - rate) / number) ** 0.5
    assert kept.unique().numel() == 1 and abs(float(kept[0]) * (1 - rate) - 1) < 1e-4
    neighbours = ((found[1:] == 0) & (found[:-1] == 0)).float().mean()
    assert abs(float(neighbours) - rate**2) < 5e-3, "draws do not hang together"


def test_dropout_has_the_gradient_of_its_mask_and_follows_the_seed() -> None:
    x = torch.randn(5, 7, requires_grad=True)
    torch.manual_seed(3)
    found = dropout(x, 0.5)
    found.sum().backward()
    torch.testing.assert_close(x.grad * x, found)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), found)
    assert not torch.equal(dropout(x, 0.5), found)


def test_dropout_at_its_ends() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(dropout(x, 0.0), x) and not dropout(x, 1.0).any()
    layer = Dropout(0.5)
    assert torch.equal(layer.eval()(x), x) and not torch.equal(layer.train()(x), x)
    assert dropout(x.bfloat16(), 0.5).dtype == torch.bfloat16


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.usefixtures("float64")
def test_attention_with_dropout_is_the_fused_kernel_but_for_the_draws(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(8, 2, dropout=0.3), torch.randn(3, 5, 8)
    mask = None if causal else torch.tensor([5, 2, 1])[:, None, None, None] > torch.arange(5)
    wanted = layer.eval()(x, x, mask, causal)
    assert not torch.allclose(layer.train()(x, x, mask, causal), wanted)
    monkeypatch.setattr(attention, "dropout", lambda weights, rate: weights)
    torch.testing.assert_close(layer.train()(x, x, mask, causal), wanted, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_attention_with_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer, x = MultiHeadAttention(8, 2, dropout=0.3), torch.randn(1, 4, 8)
    wanted = layer.eval()(x, x)
    many = x.expand(20000, -1, -1)
    found = layer.train()(many, many).mean(0)
    assert (found - wanted[0]).abs().max() < 0.03 * wanted.abs().max()


class Adapted(nn.Linear):
    """As a layer with an adapter: it has a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@pytest.mark.usefixtures("float64")
def test_joint_layers_are_the_single_ones() -> None:
    x, layers = torch.randn(2, 3, 4), [nn.Linear(4, 4) for _ in range(3)]
    torch.testing.assert_close(joined(*layers)(x), torch.cat([layer(x) for layer in layers], -1), rtol=0, atol=1e-12)
    layers[1] = Adapted(4, 4)
    torch.testing.assert_close(joined(*layers)(x), torch.cat([layer(x) for layer in layers], -1), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_gradients_reach_every_layer_of_a_joint_one() -> None:
    layer, x = MultiHeadAttention(8, 2), torch.randn(2, 3, 8)
    layer(x, x).square().sum().backward()
    for linear in (layer.linear_q, layer.linear_k, layer.linear_v):
        assert linear.weight.grad is not None and linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 2, 5, 7), (1, 1, 1, 1)])
def test_pooling_before_relu_is_pooling_behind_it(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    wanted = F.max_pool2d(torch.relu(x), 2, ceil_mode=True)
    assert torch.equal(torch.relu(_pool(x)), wanted)
    assert torch.equal(torch.relu(_pool(-x.abs())), torch.zeros_like(wanted)), "padding is no maximum of its own"


def test_right_tokens_and_silent_slots_are_counted_without_their_places() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    logits[0, 0, targets[0, 0]] = 9.0
    targets[2:, 3:] = -1
    right, tokens = cross_entropy(logits, targets, 0.0).stats["acc"]
    inside = targets >= 0
    assert right == ((logits.argmax(-1) == targets) & inside).sum() and tokens == inside.sum()
    log_probs = torch.randn(3, 5, toys.BPE).log_softmax(-1)
    slots = torch.tensor([5, 4, 2])
    log_probs[0, 1, 0] = 0.0
    labels = Labels(torch.ones(3, 1, dtype=torch.long), torch.ones(3, dtype=torch.long))
    blanks, places = CTCInterface(8, toys.BPE).loss(log_probs, slots, labels).stats["blank"]
    inside = torch.arange(5) < slots[:, None]
    assert blanks == ((log_probs.argmax(-1) == 0) & inside).sum() > 0 and places == 11
