"""Fresh weights: at every input the content stands beside the positions as an equal (docs/initialisation.md)."""

from __future__ import annotations

import math
import re

import pytest
import torch

from espnet2_legonn.model.attention import MultiHeadAttention
from espnet2_legonn.model.parts.beam_conv import BeamConvolution
from espnet2_legonn.model.parts.frames import ConvSubsampling
from espnet2_legonn.model.position import SinusoidalPositions
from tests.docs.pages import read
from tests.modules import contents

LEAST, MOST = 0.5, 2.0
CASES = [(size, content) for size in contents.SIZES for content in contents.contents(size)]


def test_positions_have_the_size_that_content_is_held_to() -> None:
    table = contents.positions(SinusoidalPositions(64), torch.zeros(200, 64))
    assert contents.rms(table) == pytest.approx(0.5**0.5, rel=0.01)


@pytest.mark.parametrize(("size", "content"), CASES)
def test_content_is_as_large_as_positions(size: str, content: str) -> None:
    assert LEAST <= contents.measure(size, content) <= MOST


@pytest.mark.parametrize("seed", range(1, 6))
def test_speech_of_few_channels_is_as_large_whatever_the_seed(seed: int) -> None:
    """Eight channels average little: one draw may be lucky."""
    assert LEAST <= contents.measure("demo", "speech", seed) <= MOST


def test_speech_without_features_is_zero() -> None:
    """Biases begin at zero, so that nothing constant stands beside what varies."""
    conv = ConvSubsampling(10, 8, (2, 3))
    x, _ = conv(torch.zeros(1, 9, 10), torch.tensor([9]))
    assert not x.any()


@pytest.mark.parametrize("k", [2, 8, 40])
def test_ranks_fall(k: int) -> None:
    """Rank r weighs 1 / (r + 1) at first, all together as much as an embedding."""
    torch.manual_seed(0)
    embed_size, size = 24, 256
    conv = BeamConvolution(300, size, 3, k, embed_size).conv.weight.detach()
    weights = conv.view(size, k, embed_size, 3).square().mean((0, 2, 3)).sqrt()
    wanted = weights[0] / torch.arange(1, k + 1)
    torch.testing.assert_close(weights, wanted, rtol=0.05, atol=0)
    assert math.isclose(weights.square().sum() * 3, 1.0, rel_tol=0.05)


def test_attention_begins_as_the_table_says() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(256, 4)
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        assert contents.weight_std(attention, f"{name}.weight") * 16 == pytest.approx(1.0, rel=0.02)
        assert not attention.get_parameter(f"{name}.bias").any()


def test_the_document_has_a_row_for_every_input() -> None:
    rows = re.findall(r"^\| ([\w, ]+?) \|", read("docs/initialisation.md"), re.M)
    assert set(contents.contents("demo")) <= set(rows)
