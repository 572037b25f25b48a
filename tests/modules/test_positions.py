"""Sums of content and positions: no state of their own, any length and device, and no digit lost to bfloat16."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.parts.beam_conv import BeamConvolution
from espnet2_legonn.model.parts.ingestor import Ingestor
from espnet2_legonn.model.parts.speech import SpeechConfig, SpeechInput
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.parts.wemb import WeightedEmbedding
from espnet2_legonn.model.position import SinusoidalPositions
from tests.modules import reference as ref
from tests.modules import toys

D = toys.D
Pair = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def positions(length: int) -> torch.Tensor:
    return torch.from_numpy(ref.positions(length, D))


# -- no state --------------------------------------------------------------------------------------


def test_no_position_is_a_buffer() -> None:
    """DDP broadcasts buffers, and the lengths that a process met differ from process to process."""
    model = toys.chain(toys.three())
    assert {name.rpartition(".")[2] for name, _ in model.named_buffers()} == {"totals", "longest"}
    speech = SpeechInput(SpeechConfig(channels=[2, 3]), D)
    assert {name for name, _ in speech.named_buffers() if not name.startswith("features.mel")} == set()


def test_copies_carry_no_table() -> None:
    module = SinusoidalPositions(D)
    before = pickle.dumps(module)
    x = torch.randn(1, 5000, D)
    wanted = module(x, x.dtype)
    assert pickle.dumps(module) == before and not module.state_dict()
    for copied in (copy.deepcopy(module), pickle.loads(before)):
        assert torch.equal(copied(x, x.dtype), wanted)


def test_what_decoding_made_is_no_inference_tensor() -> None:
    """A gradient may be taken through it, and it may be written to: autograd and DDP refuse inference tensors."""
    model = toys.chain(toys.two(toys.wemb("bpe")))
    ids, lengths = torch.full((1, 3000), 3), torch.tensor([3000])
    with torch.inference_mode():
        model.first.input(ids, lengths)
    scale = torch.ones(3001, D, requires_grad=True)
    (model.first.input.positions(torch.zeros(3001, D), torch.float32) * scale).sum().backward()
    torch.testing.assert_close(scale.grad, positions(3001).float(), rtol=0, atol=1e-7)


def test_double_is_double() -> None:
    module = TokenInput(toys.SRC, D).double().eval()
    ids = torch.full((1, 700), 3)
    found, _ = module(ids, torch.tensor([700]))
    content = module.embed(torch.cat([ids[0], torch.tensor([toys.SRC - 1])])) * D**0.5
    torch.testing.assert_close(found[0], content + positions(701), rtol=0, atol=1e-12)


# -- bfloat16 --------------------------------------------------------------------------------------

SMALL = 0.01  # content beside positions of 0.7


def small(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight.mul_(SMALL)


def speech() -> tuple[nn.Module, Pair, Callable[[nn.Module], nn.Module]]:
    module = SpeechInput(SpeechConfig(fs=8000, n_mels=10, channels=[2, 3]), D)
    small(module.conv.out.weight)
    nn.init.zeros_(module.conv.out.bias)  # what does not vary over time
    return module, (0.1 * torch.randn(1, 80000), torch.tensor([80000])), lambda m: m.dropout


def wemb() -> tuple[nn.Module, Pair, Callable[[nn.Module], nn.Module]]:
    module = Ingestor(WeightedEmbedding(toys.BPE, D), toys.sizes(1))
    small(module.embed.weight)
    return module, (toys.random_log_probs(1, 200, toys.BPE).float(), torch.tensor([200])), lambda m: m.dropout


def beam_conv() -> tuple[nn.Module, Pair, Callable[[nn.Module], nn.Module]]:
    module = Ingestor(BeamConvolution(toys.BPE, D, 1, 3, 4), toys.sizes(1))
    small(module.embed.embed.weight)
    return module, (toys.random_log_probs(1, 200, toys.BPE).float(), torch.tensor([200])), lambda m: m.dropout


def control() -> tuple[nn.Module, Pair, Callable[[nn.Module], nn.Module]]:
    module = LengthController(toys.sizes(1), (1, 1), 200)
    small(module.learned.weight)
    return module, (torch.randn(1, 200, D).bfloat16(), torch.tensor([200])), lambda m: m.blocks


def summed(module: nn.Module, batch: Pair, where: Callable[[nn.Module], nn.Module], amp: bool) -> torch.Tensor:
    """The sum of content and positions (T, D) that the module makes of a batch of one."""
    kept: list[torch.Tensor] = []
    handle = where(module).register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        module(*batch)
    handle.remove()
    return kept[0][0]


@pytest.mark.parametrize("make", [speech, wemb, beam_conv, control])
def test_autocast_keeps_small_content(make: Callable[[], tuple[nn.Module, Pair, Callable]]) -> None:
    """What is left of the content after its positions are taken away again; summed in bfloat16, a quarter was lost."""
    module, batch, where = make()
    module.eval()
    rough = summed(module, batch, where, True)
    if make is control:
        batch = (batch[0].float(), batch[1])
    exact = summed(module, batch, where, False)
    assert rough.dtype == torch.float32, "the residual stream stays in float32"
    content = exact.double() - positions(len(exact))
    assert content.pow(2).mean().sqrt() < 0.05, "it is small"
    error = (rough.double() - exact.double()).norm() / content.norm()
    assert error < 0.02, "what is left is the rounding of the layers before"


def test_weights_in_bfloat16_round_the_sum_once() -> None:
    """Weights converted for decoding read bfloat16; positions rounded first and then the sum would be two errors."""
    module = TokenInput(toys.SRC, D).bfloat16().eval()
    ids = torch.full((1, 300), 3)
    found, _ = module(ids, torch.tensor([300]))
    content = module.embed(torch.cat([ids[0], torch.tensor([toys.SRC - 1])])) * D**0.5
    assert found.dtype == torch.bfloat16
    wanted = (content.double() + positions(301)).float().bfloat16()
    assert torch.equal(found[0], wanted)


@pytest.mark.parametrize("amp", [False, True])
def test_a_chain_in_bfloat16_runs(amp: bool) -> None:
    """Its LayerNorms take bfloat16 alone, under autocast too."""
    model = toys.chain(toys.three(toys.beam_conv("phn"))).bfloat16().eval()
    words = Labels(*toys.padded([[2, 3, 4]]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        parts = model.losses(*toys.padded([[3, 4, 5]]), dict.fromkeys(model.names, words))
    assert all(torch.isfinite(part.total) for part in parts.values())
