"""Products in fewer bits: close to float32, and an answer is that of its input alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.attention import joined
from espnet2_legonn.model.precision import Int8Linear, converted
from espnet2_legonn.search.options import BeamOptions
from tests.modules import toys


def layer(bias: bool = True, size: int = 32, out: int = 24) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, out, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_close(bias: bool) -> None:
    plain = layer(bias, 256, 64)
    x = torch.randn(3, 50, 256) * torch.logspace(-6, 6, 50)[:, None]  # rows of every size
    wanted, found = plain(x), Int8Linear.of(plain)(x)
    assert found.shape == wanted.shape and found.dtype == torch.float32
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert error.max() < 0.03, "7 bits of inputs and 8 of weights: 1.5 % in the mean"


def test_int8_rounds_as_it_says() -> None:
    """Against the same sums in float64: weights in 127 steps of their row, inputs in 63."""
    plain, x = layer(), torch.randn(5, 32)
    weights = plain.weight.double()
    scales = (weights.abs().amax(1, keepdim=True) / 127).float().double()
    most = x.abs().amax(1, keepdim=True).double()
    whole = (x.double() / most * 63).float().round().double()
    wanted = whole @ (weights / scales).float().round().double().T * scales.T * most / 63 + plain.bias.double()
    torch.testing.assert_close(Int8Linear.of(plain)(x).double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_row_does_not_depend_on_its_batch() -> None:
    low, x = Int8Linear.of(layer()), torch.randn(6, 32)
    x[1] *= 1000
    x[2] = 0.0
    x[3] = torch.nan
    found = low(x)
    for i in (0, 1, 2, 4, 5):
        assert torch.equal(low(x[i : i + 1])[0], found[i])
    assert torch.equal(found[2], low.bias), "of zeros the bias is left"
    assert found[3].isnan().all(), "NaN is told"


def test_joint_int8_layers_are_the_single_ones() -> None:
    torch.manual_seed(0)
    layers = [Int8Linear.of(nn.Linear(16, n)) for n in (8, 12, 4)]
    x, together = torch.randn(3, 16), joined(*layers)
    assert torch.equal(together(x), torch.cat([low(x) for low in layers], -1))
    assert joined(*layers) is together, "made once"
    assert not list(layers[0].children()), "and it is no part of the first"


def chain() -> LegoNN:
    torch.manual_seed(1)
    config = [toys.encoder("enc", toys.TEXT, "bpe", "2"), toys.decoder(toys.wemb("bpe"))]
    return LegoNN.from_config({"vocabs": toys.VOCABS, "modules": config}).eval()


TEXTS = ["s0 s1 s2", "s3", "s4 s5 s1 s1 s0"]


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_a_chain_answers_nearly_the_same(dtype: str, weight: float) -> None:
    model = chain()
    plain = model.generate(TEXTS, ctc_weight=weight, maxlenratio=-3, minlenratio=-3)
    found = model.generate(TEXTS, ctc_weight=weight, maxlenratio=-3, minlenratio=-3, dtype=dtype)
    for (a, *_), (b, *_) in zip(plain, found):
        assert abs(a.log_prob - b.log_prob) < 0.1 * abs(a.log_prob)
        assert a.log_prob != b.log_prob, "the products were made in fewer bits"


def test_int8_answers_are_those_of_the_input_alone() -> None:
    model = chain()
    options = BeamOptions(dtype="int8", ctc_weight=0.4)
    together = [answer.best for answer in model.answer(TEXTS, options)]
    for text, best in zip(TEXTS, together):
        alone = model.answer(text, options)[0].best
        assert alone.ids == best.ids and alone.log_prob == pytest.approx(best.log_prob, abs=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "bfloat16"])
def test_what_is_converted_is_a_copy(dtype: str) -> None:
    model = chain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = model.converted(dtype)
    assert model.converted(dtype) is twin, "made once"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].last.embed.weight.dtype == torch.float32
    assert next(iter(twin)).interface.seen.totals.dtype == torch.float64
    with torch.no_grad():
        model.last.embed.weight.mul_(2)
    assert model.converted(dtype) is not twin, "new weights, a new copy"
    assert model.converted("float32") is model


def test_tied_tables_stay_tied_in_bfloat16() -> None:
    decoder = converted(chain().last, "bfloat16")
    assert decoder.output.weight is decoder.embed.weight is decoder.input.embed.weight
    assert decoder.output.weight.dtype == torch.bfloat16


def test_speech_in_fewer_bits() -> None:
    torch.manual_seed(0)
    model = LegoNN.from_config({"vocabs": toys.VOCABS, "modules": [toys.encoder("asr", toys.SPEECH, "bpe")]}).eval()
    wave = torch.randn(8000) / 10
    plain = model.marginals(wave).log_probs
    for dtype, most in (("int8", 0.2), ("bfloat16", 0.2)):
        found = model.converted(dtype).marginals(wave).log_probs
        assert found.dtype == torch.float32 and 0 < (found - plain).abs().max() < most


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ConfigError, match="dtype: 'int4' is not one of float32, bfloat16, float16, int8"):
        BeamOptions(dtype="int4")
    with pytest.raises(ConfigError, match="dtype: 'fp8' is not one of float32"):
        converted(layer(), "fp8")
    with pytest.raises(ConfigError, match="int8 is made for CPUs; give bfloat16"):
        converted(nn.Linear(2, 2, device="meta"), "int8")
