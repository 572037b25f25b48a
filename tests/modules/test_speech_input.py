"""Features, normalisation and SpecAugment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from espnet2_legonn.errors import DataError
from espnet2_legonn.model.parts.frames import MaskPolicy, Normalization, SpecAugment
from espnet2_legonn.model.parts.speech import LogMel, SpeechConfig, SpeechInput
from tests.modules import toys

MELS = 6


def features(frames: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return toys.padded([3 + 2 * torch.randn(n, MELS, generator=generator) for n in frames], 99.0, 2)


# -- features and normalisation --------------------------------------------------------------------


def test_log_mel_of_a_tone_peaks_where_it_should() -> None:
    module = LogMel(8000, 20)
    times = torch.arange(8000) / 8000
    x, frames = module(
        torch.stack([torch.sin(2 * np.pi * f * times) for f in (300.0, 3000.0)]), torch.tensor([8000, 8000])
    )
    low, high = x.mean(1).argmax(-1).tolist()
    assert low < 6 and high > 14 and frames.tolist() == [97, 97]


def test_silence_is_finite() -> None:
    module = SpeechInput(SpeechConfig(fs=8000, n_mels=MELS, channels=[2, 3]), toys.D)
    x, _ = module(torch.zeros(1, 2000), torch.tensor([2000]))
    assert torch.isfinite(x).all()


def test_utterance_normalisation() -> None:
    x, lengths = features([9, 4, 1])
    found = Normalization("utterance", MELS)(x, lengths)
    for row, item, n in zip(found.numpy(), x.double().numpy(), lengths.tolist()):
        item = item[:n]
        wanted = (item - item.mean(0)) / np.sqrt(item.var(0) + 1e-5)
        np.testing.assert_allclose(row[:n], wanted, atol=1e-4)
        assert not row[n:].any()


def test_no_normalisation_still_zeroes_the_padding() -> None:
    x, lengths = features([9, 4])
    found = Normalization("none", MELS)(x, lengths)
    assert torch.equal(found[1, :4], x[1, :4]) and not found[1, 4:].any()


def write_stats(path: Path, data: np.ndarray) -> Path:
    """As ESPnet's collect_stats."""
    np.savez(path, count=len(data), sum=data.sum(0), sum_square=(data**2).sum(0))
    return path


def test_global_normalisation_from_a_file(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(3.0, 2.0, (500, MELS)) * np.arange(1, MELS + 1)
    module = Normalization("global", MELS)
    module.load_stats(write_stats(tmp_path / "feats_stats.npz", data))
    x, lengths = features([9, 4])
    found = module(x, lengths)
    wanted = (x[1, :4].numpy() - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(found[1, :4], wanted, atol=1e-4)
    assert not found[1, 4:].any()
    again = Normalization("global", MELS)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x, lengths), found), "statistics travel with the weights"


def test_a_constant_filter_does_not_divide_by_zero(tmp_path: Path) -> None:
    module = Normalization("global", MELS)
    module.load_stats(write_stats(tmp_path / "s.npz", np.ones((10, MELS))))
    assert torch.isfinite(module(*features([3]))).all()


def test_bad_statistics_are_named(tmp_path: Path) -> None:
    module = Normalization("global", MELS)
    with pytest.raises(DataError, match=r"gone\.npz: not statistics of features .*stage 10"):
        module.load_stats(tmp_path / "gone.npz")
    np.savez(tmp_path / "other.npz", count=3)
    with pytest.raises(DataError, match=r"other\.npz: not statistics"):
        module.load_stats(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text\.npz: not statistics"):
        module.load_stats(tmp_path / "text.npz")
    with pytest.raises(DataError, match="statistics of 80 filters, this module has 6"):
        module.load_stats(write_stats(tmp_path / "wide.npz", np.ones((4, 80))))


@pytest.mark.parametrize("how", ["zeros", "half", "flipped", "empty", "array", "pickle", "nan", "nothing counted"])
def test_damaged_statistics_are_named(tmp_path: Path, how: str) -> None:
    """As a machine that crashed leaves them, or of something else."""
    path = write_stats(tmp_path / "s.npz", np.ones((10, MELS)) * (np.nan if how == "nan" else 1))
    content = path.read_bytes()
    flipped = content.replace(b"NUMPY", b"NUMQY", 1)
    damaged = {"zeros": bytes(500), "half": content[: len(content) // 2], "flipped": flipped, "empty": b""}
    if how in damaged:
        path.write_bytes(damaged[how])
    elif how in ("array", "pickle"):
        with path.open("wb") as f:
            np.save(f, np.ones(3) if how == "array" else np.array([{}], dtype=object))
    elif how == "nothing counted":
        np.savez(path, count=0, sum=np.zeros(MELS), sum_square=np.zeros(MELS))
    with np.errstate(all="ignore"), pytest.raises(DataError, match=r"s\.npz: not statistics of features .*stage 10"):
        Normalization("global", MELS).load_stats(path)


def test_statistics_for_a_module_that_wants_none(tmp_path: Path) -> None:
    path = write_stats(tmp_path / "s.npz", np.ones((4, MELS)))
    with pytest.raises(DataError):
        Normalization("utterance", MELS).load_stats(path)


# -- SpecAugment -----------------------------------------------------------------------------------


def runs(hidden: torch.Tensor) -> list[tuple[int, int]]:
    """(start, width) of each run of True."""
    edges = torch.diff(torch.nn.functional.pad(hidden.int(), (1, 1))).tolist()
    starts = [i for i, e in enumerate(edges) if e == 1]
    return [(s, t - s) for s, t in zip(starts, [i for i, e in enumerate(edges) if e == -1])]


def masks(
    policy: MaskPolicy, lengths: list[int], filters: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden frames (B, frames) and hidden filters (B, filters)."""
    torch.manual_seed(seed)
    x = torch.ones(len(lengths), max(lengths), filters)
    hidden = SpecAugment(policy).train()(x, torch.tensor(lengths)) == 0
    return hidden.all(2), hidden.all(1)


LENGTHS = [400, 37, 3, 120, 350, 1] * 40


def test_masks_stay_within_the_policy_and_the_item() -> None:
    policy = MaskPolicy(freq_width=5, num_freq=2, time_width=30, num_time=2, time_share=0.2)
    frames, filters = masks(policy, LENGTHS, 20)
    for row, n in zip(frames, LENGTHS):
        widest = min(30, int(n * 0.2))
        assert len(runs(row)) <= 2
        assert row.sum() <= 2 * widest, "time masks are at most a share of the utterance"
        assert not row[n:].any(), "never beyond the item's length"
    for row in filters:
        assert len(runs(row)) <= 2 and row.sum() <= 10
    assert len({tuple(r) for r in filters.tolist()}) > 50, "each item has masks of its own"


def test_one_time_mask_has_every_width_and_place() -> None:
    policy = MaskPolicy(num_freq=0, num_time=1, time_width=4, time_share=1.0)
    found = [runs(row) for row in masks(policy, [9] * 3000, 3)[0]]
    widths = np.bincount([r[0][1] if r else 0 for r in found], minlength=5)
    assert len(widths) == 5, "no mask is wider than the policy"
    np.testing.assert_allclose(widths / 3000, 0.2, atol=0.04)  # uniform; 5 standard deviations
    for width in range(1, 5):
        places = {r[0][0] for r in found if r and r[0][1] == width}
        assert places == set(range(9 - width + 1)), "from the first frame to the last"


def test_frequency_masks_have_every_width_and_place() -> None:
    policy = MaskPolicy(num_time=0, num_freq=1, freq_width=3)
    found = [runs(row) for row in masks(policy, [4] * 2000, 5)[1]]
    widths = np.bincount([r[0][1] if r else 0 for r in found], minlength=4)
    np.testing.assert_allclose(widths / 2000, 0.25, atol=0.05)
    assert {r[0] for r in found if r} == {(s, w) for w in (1, 2, 3) for s in range(5 - w + 1)}


def test_a_policy_wider_than_the_filters() -> None:
    frames, filters = masks(MaskPolicy(freq_width=27, num_freq=1, num_time=0), [5] * 200, 4)
    assert filters.any() and not filters[:, :].all(1).all()


def test_specaugment_changes_nothing_else_and_is_off_in_eval() -> None:
    torch.manual_seed(0)
    x, lengths = torch.randn(4, 60, 20), torch.tensor([60, 30, 44, 5])
    module = SpecAugment(MaskPolicy(5, 2, 30, 2, 0.2))
    found = module.train()(x, lengths)
    assert (found != x).any() and torch.equal(found[found != 0], x[found != 0])
    assert torch.equal(module.eval()(x, lengths), x)


def test_specaugment_is_off_in_an_evaluated_chain() -> None:
    source = {**toys.SPEECH, "specaug": {"freq_width": 5, "time_width": 20}}
    model = toys.chain([toys.encoder("enc", source, "bpe")])
    wave, lengths = 0.1 * torch.randn(1, 16000), torch.tensor([16000])
    with torch.no_grad():
        model.eval()
        assert torch.equal(model.last(wave, lengths)[0], model.last(wave, lengths)[0])
        model.train()
        assert not torch.equal(model.last(wave, lengths)[0], model.last(wave, lengths)[0])
