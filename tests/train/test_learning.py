"""Learning rates by module and step, the averaging of checkpoints, and the sums that make the loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.model.chain import ModuleLoss
from espnet2_legonn.training.averaging import average, average_nbest_models, choose, epochs_in, windows
from espnet2_legonn.training.compat import load
from espnet2_legonn.training.optimizers import parameter_groups
from tests.train.toys import DECODER, ENCODER, config, control

# ---- parameter groups


def chain(encoder: dict[str, Any] | None = None, decoder: dict[str, Any] | None = None) -> LegoNN:
    first = {**ENCODER, "length_control": control(ratio="3/2"), **(encoder or {})}
    return LegoNN.from_config(config([first, {**DECODER, **(decoder or {})}]))


def test_every_trainable_parameter_is_in_one_group() -> None:
    pair = chain()
    for exclude in (False, True):
        groups = parameter_groups(pair, {"lr": 1.0}, exclude)
        inside = [id(p) for g in groups for p in g["params"]]
        assert sorted(inside) == sorted(id(p) for p in pair.parameters()) and len(set(inside)) == len(inside)


def test_learning_rate_by_module() -> None:
    pair = chain({"lr_scale": 0.1})
    groups = parameter_groups(pair, {"lr": 2.0e-3})
    optimizer = torch.optim.AdamW(groups, lr=2.0e-3)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {round(rates[id(p)], 9) for p in pair.mods["encoder"].parameters()} == {2.0e-4}
    assert {rates[id(p)] for p in pair.mods["decoder"].parameters()} == {2.0e-3}


@pytest.mark.parametrize("mode", [True, "eval"])
def test_frozen_modules_have_no_group(mode: Any) -> None:
    pair = chain({"freeze": mode})
    inside = {id(p) for g in parameter_groups(pair, {"lr": 1.0}) for p in g["params"]}
    assert inside == {id(p) for p in pair.mods["decoder"].parameters()}


def test_frozen_parts_are_in_no_group() -> None:
    pair = chain({"freeze": ["input", "body"]})
    inside = {id(p) for g in parameter_groups(pair, {"lr": 1.0}) for p in g["params"]}
    out = {name for name, p in pair.named_parameters() if id(p) not in inside}
    assert out == {n for n, _ in pair.named_parameters() if n.startswith(("mods.encoder.input", "mods.encoder.body"))}


def test_scaled_rate_without_a_rate() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.lr_scale.*optim_conf.*lr"):
        parameter_groups(chain({"lr_scale": 0.1}), {"betas": [0.9, 0.98]})


def test_everything_is_frozen() -> None:
    with pytest.raises(ConfigError, match="freeze"):
        parameter_groups(chain({"freeze": True}, {"freeze": "eval"}), {"lr": 1.0})


def test_vectors_are_not_decayed() -> None:
    pair = chain()
    groups = parameter_groups(pair, {"lr": 1.0}, exclude_weight_decay=True)
    for group in groups:
        assert {p.dim() < 2 for p in group["params"]} == {"weight_decay" in group}
    assert all(g["weight_decay"] == 0 for g in groups if "weight_decay" in g)


# ---- schedules


def rates(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[list[float]]:
    """Rates of all groups of updates 0 ... steps - 1."""
    found = []
    for _ in range(steps):
        found.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def sgd(*lrs: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=lrs[0])


def test_inverse_square_root() -> None:
    from espnet2_legonn.training.schedulers import InverseSquareRootLR

    optimizer = sgd(1.0e-3, 1.0e-4)
    found = rates(InverseSquareRootLR(optimizer, warmup_steps=10, init_lr=1.0e-6), optimizer, 41)
    for step, (full, tenth) in enumerate(found):
        warm = 1.0e-6 + (1.0e-3 - 1.0e-6) * step / 10
        assert full == pytest.approx(warm if step < 10 else 1.0e-3 * math.sqrt(10 / step)), step
        assert tenth == pytest.approx(full / 10), "groups keep their proportion"
    assert found[40][0] == pytest.approx(5.0e-4)


def test_inverse_square_root_continues_from_its_state() -> None:
    from espnet2_legonn.training.schedulers import InverseSquareRootLR

    optimizer = sgd(1.0e-3)
    scheduler = InverseSquareRootLR(optimizer, warmup_steps=4)
    whole = rates(scheduler, optimizer, 12)
    first = sgd(1.0e-3)
    half = InverseSquareRootLR(first, warmup_steps=4)
    rates(half, first, 6)
    second = sgd(1.0e-3)
    other = InverseSquareRootLR(second, warmup_steps=4)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(half.state_dict())
    assert rates(other, second, 6) == whole[6:]


def test_espnets_tristage_is_the_papers() -> None:
    """Table XIII: 1e-6 to 1e-3 over 35k updates, held to 36k, 5e-6 at 80k."""
    optimizer = sgd(1.0e-3)
    options = {"warmup_ratio": 35 / 80, "hold_ratio": 1 / 80, "decay_ratio": 44 / 80}
    kind = load("espnet2.schedulers.tristage_lr").TristageLR
    scheduler = kind(optimizer, max_steps=80_000, init_lr_scale=1.0e-3, final_lr_scale=5.0e-3, **options)
    for step, rate in ((0, 1e-6), (17_500, 5.005e-4), (34_999, 1e-3), (35_500, 1e-3), (35_999, 1e-3), (79_999, 5e-6)):
        scheduler.last_epoch = step
        assert scheduler.get_lr()[0] == pytest.approx(rate, rel=1e-3, abs=4e-8), step
    scheduler.last_epoch = 58_000 - 1
    assert scheduler.get_lr()[0] == pytest.approx(1e-3 * 0.005**0.5, rel=1e-3), "half of the decay, on a log scale"


# ---- averaging


def save(exp: Path, epoch: int, value: float, **more: torch.Tensor) -> Path:
    exp.mkdir(exist_ok=True)
    path = exp / f"{epoch}epoch.pth"
    torch.save({"w": torch.full((2,), value), "n": torch.tensor(epoch), **more}, path)
    return path


def test_mean_of_floats_last_of_integers(tmp_path: Path) -> None:
    half = torch.tensor([1.0], dtype=torch.bfloat16)
    found = average([save(tmp_path, e, v, h=half * e) for e, v in ((1, 1.0), (2, 2.0), (4, 6.0))])
    assert found["w"].tolist() == [3.0, 3.0] and found["w"].dtype == torch.float32
    assert found["n"] == 4 and found["n"].dtype == torch.int64
    assert found["h"].dtype == torch.bfloat16


def test_average_of_one_is_itself(tmp_path: Path) -> None:
    assert average([save(tmp_path, 1, 0.1)])["w"].tolist() == torch.full((2,), 0.1).tolist()


def test_what_cannot_be_averaged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to average"):
        average([])
    with pytest.raises(CheckpointError, match=r"2epoch\.pth: other tensors than in .*1epoch\.pth"):
        average([save(tmp_path, 1, 1.0), save(tmp_path, 2, 1.0, x=torch.zeros(1))])


def test_epochs_are_sorted_by_number(tmp_path: Path) -> None:
    for epoch in (10, 9, 1):
        save(tmp_path, epoch, 0.0)
    (tmp_path / "latest.pth").symlink_to("10epoch.pth")
    (tmp_path / "valid.acc.ave_2best.pth").touch()
    assert [p.name for p in epochs_in(tmp_path)] == ["1epoch.pth", "9epoch.pth", "10epoch.pth"]


def test_moving_windows() -> None:
    paths = [Path(str(i)) for i in range(1, 7)]
    names = lambda found: ["".join(p.name for p in window) for window in found]  # noqa: E731
    assert names(windows(paths, 3)) == ["456", "345", "234", "123"]
    assert names(windows(paths, 3, stride=2)) == ["456", "234"]
    assert names(windows(paths, 6)) == names(windows(paths, 9)) == ["123456"]


def test_windows_around_the_best_epochs_and_the_newest() -> None:
    """Kept are the best (3 to 7 without 5) and the newest (21 to 23); none reaches from the ones to the others."""
    paths = [Path(f"{i}epoch.pth") for i in (3, 4, 6, 7, 21, 22, 23)]
    labels = ["-".join(p.name.removesuffix("epoch.pth") for p in window) for window in windows(paths, 3)]
    assert labels == ["21-22-23", "4-6-7", "3-4-6"]
    assert len(windows([Path(f"{i}epoch.pth") for i in (1, 9)], 2)) == 1, "too few for another"
    assert windows([Path(f"{i}epoch.pth") for i in (1, 2, 9)], 2)[0] == [Path("2epoch.pth"), Path("9epoch.pth")]


def test_the_window_with_the_best_decoded_score_wins(tmp_path: Path) -> None:
    for epoch in range(1, 6):
        save(tmp_path, epoch, float(epoch))
    assert len(choose(tmp_path, 2, lambda state: 0.0, candidates=0)[1]) == 4, "0: all that there are"
    path, tried = choose(tmp_path, 2, lambda state: -abs(float(state["w"][0]) - 3.6), candidates=3)
    assert [label for label, _ in tried] == ["4-5", "3-4", "2-3"] and path.name == "valid.decoded.ave.pth"
    assert [score for _, score in tried] == pytest.approx([-0.9, -0.1, -1.1])
    assert torch.load(path, weights_only=True)["w"].tolist() == [3.5, 3.5]
    with pytest.raises(CheckpointError, match="no <n>epoch.pth; train first"):
        choose(tmp_path / "nowhere", 2, lambda state: 0.0)


class Reporter:
    """ESPnet's reporter as far as averaging asks it."""

    table = {("valid", "acc"): [3, 1, 2], ("valid", "loss"): [1, 2, 3], ("train", "total_count"): [3, 2, 1]}

    def has(self, phase: str, key: str) -> bool:
        return (phase, key) in self.table

    def sort_epochs_and_values(self, phase: str, key: str, mode: str) -> list[tuple[int, float]]:
        return [(epoch, 0.0) for epoch in self.table[phase, key]]


CRITERIA = [(*key, "max") for key in (*Reporter.table, ("valid", "gone"))]


def nbest(exp: Path, function: Any, sizes: Any) -> dict[str, float]:
    for epoch in (1, 2, 3):
        save(exp, epoch, float(epoch**2))
    function(reporter=Reporter(), output_dir=exp, best_model_criterion=CRITERIA, nbest=sizes)
    return {p.name: float(torch.load(p, weights_only=True)["w"][0]) for p in exp.glob("*.ave*")}


def test_every_criterion_gets_its_own_average(tmp_path: Path) -> None:
    found = nbest(tmp_path, average_nbest_models, [1, 2])
    wanted = {"valid.acc.ave_1best.pth": 9, "valid.acc.ave_2best.pth": 5, "valid.acc.ave.pth": 5}
    wanted |= {"valid.loss.ave_1best.pth": 1, "valid.loss.ave_2best.pth": 2.5, "valid.loss.ave.pth": 2.5}
    wanted |= {"train.total_count.ave_1best.pth": 9, "train.total_count.ave_2best.pth": 6.5}
    assert found == {**wanted, "train.total_count.ave.pth": 6.5}
    assert (tmp_path / "valid.acc.ave.pth").readlink() == Path("valid.acc.ave_2best.pth")


def test_fewer_epochs_than_asked_for(tmp_path: Path) -> None:
    found = nbest(tmp_path, average_nbest_models, 10)
    assert found["valid.acc.ave_3best.pth"] == found["valid.acc.ave.pth"] == pytest.approx(14 / 3)


def test_a_suffix_and_a_removed_epoch(tmp_path: Path) -> None:
    nbest(tmp_path, average_nbest_models, [2])
    (tmp_path / "1epoch.pth").unlink()
    average_nbest_models(tmp_path, Reporter(), CRITERIA[:1], [3], suffix="till3epoch")
    assert float(torch.load(tmp_path / "valid.acc.ave_2best.till3epoch.pth", weights_only=True)["w"][0]) == 6.5
    assert (tmp_path / "valid.acc.ave.till3epoch.pth").is_symlink()


# ---- equation 9 over a batch


def parts() -> dict[str, ModuleLoss]:
    number = lambda x: torch.tensor(float(x))  # noqa: E731
    ctc = ModuleLoss(number(12).requires_grad_(), torch.tensor(4), {"ctc": (number(8), torch.tensor(4))})
    five = torch.tensor(5)
    ce = ModuleLoss(number(10).requires_grad_(), five, {"acc": (torch.tensor(3), five), "ce": (number(9), five)})
    return {"encoder": ctc, "decoder": ce}


def test_loss_is_the_sum_of_means_by_token() -> None:
    from espnet2_legonn.training.model import combine

    given = parts()
    loss, stats, weight = combine(given)
    loss.sum().backward()
    assert loss.item() == 12 / 4 + 10 / 5 and float(weight) == 5
    assert given["encoder"].total.grad == 1 / 4 and given["decoder"].total.grad == 1 / 5
    wanted = {"loss_encoder": 3, "ctc_encoder": 2, "loss_decoder": 2, "ce_decoder": 1.8, "acc": 0.6, "loss": 5}
    assert {k: float(v) for k, v in stats.items()} == pytest.approx(wanted)
    assert not any(v.requires_grad for v in stats.values())


def test_batch_without_a_feasible_utterance() -> None:
    """No token to divide by: the loss is 0 instead of NaN, and ESPnet divides by the weight in turn."""
    from espnet2_legonn.training.model import combine

    zero = ModuleLoss(torch.zeros((), requires_grad=True), torch.tensor(0), {"ctc": (torch.zeros(()), torch.tensor(0))})
    loss, stats, weight = combine({"encoder": zero})
    assert loss.item() == 0 and float(weight) == 1 and all(math.isfinite(v) for v in stats.values())


@pytest.mark.parametrize("asked", [{"candidates": -1}, {"size": 0}, {"stride": 0}, {"size": -1}])
def test_an_average_of_nothing_is_refused(tmp_path: Path, asked: dict[str, int]) -> None:
    """What an earlier call left stays."""
    for name in ("1epoch.pth", "2epoch.pth", "valid.decoded.ave.pth"):
        torch.save({"w": torch.ones(1)}, tmp_path / name)
    with pytest.raises(CheckpointError, match="at least [01] is needed; nothing was averaged"):
        choose(tmp_path, **{"size": 2, "score": lambda state: 1.0, **asked})
    assert torch.load(tmp_path / "valid.decoded.ave.pth", weights_only=True)["w"] == 1
