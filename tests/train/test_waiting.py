"""An update waits for the device at most twice: for its figures, and in ESPnet's trainer for the norm of gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from espnet2_legonn import LegoNN
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.training.model import LegoNNModel
from tests.train import toys


class Waits(TorchDispatchMode):
    """Counts what needs a value of a tensor on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if function.overloadpacket in (aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal):
            self.number += 1
        return function(*args, **(kwargs or {}))


def batch(kind: str, model: LegoNNModel) -> dict[str, torch.Tensor]:
    """Three items."""
    found = {"src_text": torch.randint(2, 6, (3, 4)), "src_text_lengths": torch.tensor([4, 3, 2])}
    if kind == "speech":
        found = {"speech": 0.1 * torch.randn(3, 8000), "speech_lengths": torch.tensor([8000, 7000, 6000])}
    for name in model.chain.names:
        found |= {f"text_{name}": torch.randint(2, 6, (3, 3)), f"text_{name}_lengths": torch.tensor([3, 2, 3])}
    return found


@pytest.mark.parametrize("kind", ["tokens", "speech"])
def test_an_update_does_not_wait(kind: str) -> None:
    config = toys.config(toys.MODULES[kind])
    for module in config["modules"]:
        if "length_control" in module:
            module["length_control"] = {"ratio": "2", "max_length": 40, "num_blocks": 1}
    model = LegoNNModel(LegoNN.from_config(config)).train()
    data = batch(kind, model)
    with Waits() as waits:
        loss, stats, weight = model(**data)
        loss.backward()
    # Each length controller computes with one number that the host knows; that is no wait.
    assert waits.number == sum(isinstance(part, LengthController) for part in model.modules())
    assert all(value.shape == (1,) and value.device.type == "cpu" for value in (*stats.values(), weight))
    with Waits() as waits:
        float(loss.detach())
    assert waits.number == 1, "a wait would be seen"
