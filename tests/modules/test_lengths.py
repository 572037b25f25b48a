"""Lengths: the formulas are what the modules make, for every T, ratio and maximum."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet2_legonn.model.description import parse_ratio
from espnet2_legonn.model.length_control import LengthController, slots_for
from espnet2_legonn.model.parts.frames import ConvSubsampling
from espnet2_legonn.model.parts.speech import LogMel, SpeechConfig, SpeechInput
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.position import SinusoidalPositions
from espnet2_legonn.model.transformer import BodyConfig
from tests.modules import reference as ref
from tests.modules import toys

RATIOS = ["1/1.2", "1/1.5", "2", "0.83", "1/2.92", "1/3.5", "1", "1.25", "0.05"]
ratios = st.one_of(
    st.sampled_from(RATIOS),
    st.builds(lambda n: f"{n / 100}", st.integers(1, 500)),
    st.builds(lambda n: f"1/{n / 100}", st.integers(20, 2000)),
)
fast = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1/1.2", Fraction(5, 6)),
        ("0.83", Fraction(83, 100)),
        (2, Fraction(2)),
        (0.83, Fraction(83, 100)),
        ("1/3", Fraction(1, 3)),
        (" 1 / 2.92 ", Fraction(25, 73)),
    ],
)
def test_ratios_are_exact(text: str | float, wanted: Fraction) -> None:
    assert parse_ratio(text) == wanted


@pytest.mark.parametrize("text", ["0", "-1", "1/0.0", "1/2/3", "x", "nan", "inf", "1/-2", "1e-9"])
def test_ratios_that_are_none(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        parse_ratio(text)


@fast
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=5), ratios, st.integers(1, 400))
def test_slots_are_the_ceiling_clamped(steps: list[int], ratio: str, maximum: int) -> None:
    parts = [Fraction(p) for p in ratio.split("/")]
    exact = parts[0] / parts[1] if len(parts) == 2 else parts[0]
    r = parse_ratio(ratio)
    found = slots_for(torch.tensor(steps), r.numerator, r.denominator, maximum)
    assert found.tolist() == [min(maximum, math.ceil(exact * t)) for t in steps]
    assert found.tolist() == [ref.slots(t, r.numerator, r.denominator, maximum) for t in steps]
    assert (found >= 1).all()


@fast
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), ratios, st.integers(1, 20), st.integers(0, 5))
def test_controller_makes_what_it_promises(steps: list[int], ratio: str, maximum: int, extra: int) -> None:
    r = parse_ratio(ratio)
    controller = LengthController(toys.sizes(1), (r.numerator, r.denominator), maximum).eval()
    lengths = torch.tensor(steps)
    with torch.no_grad():
        y, slots = controller(torch.randn(len(steps), max(steps) + extra, toys.D), lengths)
    assert (
        slots.tolist()
        == controller.slots(lengths).tolist()
        == [ref.slots(t, r.numerator, r.denominator, maximum) for t in steps]
    )
    assert max(slots.tolist()) <= y.shape[1] <= maximum
    assert torch.isfinite(y).all()
    for row, k in zip(y, slots.tolist()):
        assert (row[:k].abs().sum(-1) > 0).all() and not row[k:].any()


@fast
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=3), st.sampled_from([8000, 16000]))
def test_log_mel_frames(samples: list[int], fs: int) -> None:
    features = LogMel(fs, 6)
    x, frames = features(torch.randn(len(samples), max(samples)) * 0.1, torch.tensor(samples))
    assert x.shape == (len(samples), max(frames.tolist()), 6)
    window = features.mel.n_fft  # frames that lie wholly within the samples, and at least one
    for n, found in zip(samples, frames.tolist()):
        starts = [s for s in range(0, n, fs // 100) if s + window <= n]
        assert found == max(1, len(starts))


@fast
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 13))
def test_conv_subsampling_steps(frames: list[int], n_mels: int) -> None:
    conv, lengths = ConvSubsampling(n_mels, toys.D, (2, 3)), torch.tensor(frames)
    with torch.no_grad():
        x, steps = conv(torch.randn(len(frames), max(frames), n_mels), lengths)
    assert x.shape == (len(frames), max(steps.tolist()), toys.D)
    assert steps.tolist() == conv.steps(lengths).tolist() == [math.ceil(math.ceil(f / 2) / 2) for f in frames]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6000), min_size=1, max_size=3))
def test_speech_input_steps(samples: list[int]) -> None:
    speech = SpeechInput(SpeechConfig(fs=8000, n_mels=6, channels=[2, 3]), toys.D)
    lengths = torch.tensor(samples)
    with torch.no_grad():
        x, steps = speech(torch.randn(len(samples), max(samples)) * 0.1, lengths)
    assert x.shape == (len(samples), max(steps.tolist()), toys.D)
    assert steps.tolist() == speech.steps(lengths).tolist()


def test_a_step_is_40_ms() -> None:
    speech = SpeechInput(SpeechConfig(channels=[2, 3]), toys.D)
    assert speech.steps(torch.tensor([16000 * 20])).item() == pytest.approx(500, abs=1)


@fast
@given(st.lists(st.lists(st.integers(1, toys.SRC - 2), min_size=1, max_size=6), min_size=1, max_size=4))
def test_token_input_ends_each_source_with_eos(items: list[list[int]]) -> None:
    torch.manual_seed(0)
    module = TokenInput(toys.SRC, toys.D)
    seen: list[torch.Tensor] = []
    module.embed.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    x, lengths = module(*toys.padded(items))
    assert (
        lengths.tolist()
        == [len(i) + 1 for i in items]
        == module.steps(torch.tensor([len(i) for i in items])).tolist()
    )
    assert x.shape[1] == max(lengths.tolist())
    for row, item in zip(seen[0].tolist(), items):
        assert row[: len(item) + 1] == [*item, toys.SRC - 1]


def test_aligned_queries_stand_at_their_place_in_the_input() -> None:
    """Beyond the paper: slot k has the sinusoid of input step k * T / K, as close as the ratio is a fraction."""
    sizes = BodyConfig(1, 8, 2, 16)
    aligned = LengthController(sizes, (2, 5), 12, aligned=True)
    table = SinusoidalPositions(8)(torch.zeros(40, 8), torch.float32)
    nothing = torch.zeros(12, 8)
    torch.testing.assert_close(aligned.positions(nothing, torch.float32)[::2], table[:30:5], rtol=0, atol=1e-5)
    paper = LengthController(sizes, (2, 5), 12)
    torch.testing.assert_close(paper.positions(nothing, torch.float32), table[:12], rtol=0, atol=1e-5)
    x = torch.randn(2, 10, 8, dtype=torch.float64)
    aligned.double().eval()
    both, slots = aligned(x, torch.tensor([10, 5]))
    alone, _ = aligned(x[1:, :5], torch.tensor([5]))
    assert slots.tolist() == [4, 2]
    torch.testing.assert_close(both[1:, :2], alone, rtol=0, atol=1e-10)
