"""Glancing training: the path that is shown, how much of it, and what the second pass makes of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model import glancing
from espnet2_legonn.model.chain import Chain, Labels
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.glancing import glance, likeliest_path
from espnet2_legonn.model.losses import ModuleLoss
from espnet2_legonn.model.parts.ctc import CTCInterface, RegularizedCTC
from tests.modules import reference as ref
from tests.modules import toys
from tests.zoo.toys import change

SOURCES = [[3, 4, 5, 6], [2, 3], [7, 1, 2, 2, 5, 6]]
WORDS = [[2, 3, 4], [5], [2, 2, 4, 5]]


def distributions(slots: list[int], size: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(len(slots), max(slots), size, generator=generator, dtype=torch.float64)).log_softmax(-1)


def said(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token]


@pytest.mark.parametrize("seed", range(5))
def test_likeliest_path_by_enumeration(seed: int) -> None:
    slots, words = [4, 5, 3, 4], [[1, 2], [2, 2, 3], [4], []]
    log_probs = distributions(slots, seed=seed)
    found = likeliest_path(log_probs, torch.tensor(slots), toys.labels(*words))
    for row, x, length, word in zip(found.tolist(), log_probs.numpy(), slots, words):
        paths = [p for p in itertools.product(range(5), repeat=length) if said(p) == word]
        assert row == [*max(paths, key=lambda p: sum(x[k, v] for k, v in enumerate(p))), *[0] * (5 - length)]


def test_likeliest_path_is_forced_alignment() -> None:
    """Of longer items, one by one, what torchaudio finds; an item alone and in a padded batch have the same path."""
    from torchaudio.functional import forced_align

    slots, lengths = [40, 31, 23], [12, 15, 1]
    generator = np.random.default_rng(0)
    words = [generator.integers(1, 9, length).tolist() for length in lengths]
    log_probs = distributions(slots, 9)
    found = likeliest_path(log_probs, torch.tensor(slots), toys.labels(*words, extra=4))
    for i, length in enumerate(slots):
        alone = log_probs[i : i + 1, :length]
        wanted, _ = forced_align(alone, torch.tensor([words[i]], dtype=torch.int32), blank=0)
        assert found[i, :length].tolist() == wanted[0].tolist() and not found[i, length:].any()
        assert (
            found[i, :length].tolist()
            == likeliest_path(alone, torch.tensor([length]), toys.labels(words[i]))[0].tolist()
        )


def test_how_many_are_shown() -> None:
    """floor(share * wrong slots) of all slots of an item; none where CTC has no path or all is right."""
    slots = [9, 6, 2, 5]
    words = [[1, 2, 3], [4, 4], [1, 2, 3], [2]]
    log_probs = distributions(slots)
    log_probs[3] = torch.full((9, 5), -20.0, dtype=torch.float64)
    log_probs[3, torch.arange(9), torch.tensor([0, 2, 2, 0, 0, 0, 0, 0, 0])] = 0.0
    labels, counts = toys.labels(*words), torch.tensor(slots)
    path = likeliest_path(log_probs[:2], counts[:2], Labels(labels.ids[:2], labels.lengths[:2]))
    wrong = [int((log_probs[i, :n].argmax(-1) != path[i, :n]).sum()) for i, n in enumerate(slots[:2])]
    assert min(wrong) >= 3, "the comparison sees the share"
    places = set()
    for _ in range(50):
        tokens, shown = glance(log_probs, counts, labels, 0.5)
        assert shown.sum(1).tolist() == [wrong[0] // 2, wrong[1] // 2, 0, 0]
        assert torch.equal(tokens[:2], path) and not shown[1, 6:].any()
        places |= {tuple(place) for place in shown.nonzero().tolist()}
    assert {k for i, k in places if i == 0} == set(range(9)) and {k for i, k in places if i == 1} == set(range(6))
    assert not glance(log_probs, counts, labels, 0.0)[1].any()


def encoder(glances: float = 0.5, **more: Any) -> dict[str, Any]:
    module = toys.encoder("enc", toys.TEXT, "bpe", **more)
    output = {"vocab": "bpe", "glancing": glances, "ctc_weight": 0.7}
    return {**module, "output": output, "length_control": {"ratio": "2", "max_length": 20, "num_blocks": 2}}


def run(model: Chain, extra: int = 0) -> dict[str, ModuleLoss]:
    words = toys.labels(*WORDS, extra=extra)
    return model.losses(*toys.padded(SOURCES, -1, extra), dict.fromkeys(model.names, words))


@pytest.mark.parametrize("extra", [0, 3], ids=["", "padding"])
def test_second_pass(extra: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """CTC of slots whose queries have rows of the projection, times sqrt(D), where something is shown (NumPy)."""
    model = toys.doubled(toys.chain([encoder()], sharp=3.0)).train()
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def noting(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        kept.append(glance(*args))
        return kept[-1]

    monkeypatch.setattr("espnet2_legonn.model.parts.ctc.glance", noting)
    found = run(model, extra)["enc"]
    (tokens, shown), w, wanted = kept[0], ref.part(toys.weights(model), "mods.enc"), 0.0
    assert shown.any() and len(kept) == 1
    for i, (ids, words) in enumerate(zip(SOURCES, WORDS)):
        x = ref.encoder(ref.token_input(ids, ref.part(w, "input")), ref.part(w, "body"), toys.HEADS)
        size = ref.slots(len(x), 2, 1, 20)
        h = ref.positions(size, x.shape[1]) + w["length_control.learned.weight"][:size]
        rows = w["interface.ctc_lo.weight"][tokens[i, :size].numpy()] * toys.D**0.5
        blocks, ends = ref.part(w, "length_control.blocks"), []
        for queries in (h, h + rows * shown[i, :size, None].numpy()):
            y = queries
            for number in range(2):
                y = ref.cross_block(y, x, ref.part(blocks, f"decoders.{number}"), toys.HEADS)
            states = ref.layer_norm(y, ref.part(blocks, "after_norm"))
            ends.append(ref.ctc_distribution(states, ref.part(w, "interface")))
        path = likeliest_path(torch.tensor(ends[0])[None], torch.tensor([size]), toys.labels(words))
        assert tokens[i, :size].tolist() == path[0].tolist(), "of the first pass, which was shown nothing"
        wanted += 0.7 * ref.ctc_by_forward(ends[1], words)
    assert found.total.item() == pytest.approx(wanted, rel=1e-9) and int(found.tokens) == 8


def test_gradients() -> None:
    """Through what is shown, too: a token's row learns from the slots that read it."""
    model = toys.doubled(toys.chain([encoder()], sharp=3.0)).train()
    torch.manual_seed(0)
    run(model)["enc"].total.backward()
    weight = model.first.interface.ctc_lo.weight
    assert weight.grad is not None
    for row, column in ((2, 1), (0, 3)):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[row, column] += step
            torch.manual_seed(0)
            values.append(run(model)["enc"].total.item())
            with torch.no_grad():
                weight[row, column] -= step
        assert float(weight.grad[row, column]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_autocasts_copies_are_thrown_away_between_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of PyTorch keep half copies of weights that were made without a gradient, and go on with them."""
    model, events = toys.chain([encoder()]).train(), []
    whole = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (events.append("clear"), whole()))
    for name in ("length_control", "interface.ctc_lo"):
        part = model.first.get_submodule(name)
        part.register_forward_hook(lambda *_, name=name: events.append(f"{name} {torch.is_grad_enabled()}"))
    with torch.autocast("cpu", torch.bfloat16):
        total = run(model)["enc"].total
    wanted = ["length_control False", "interface.ctc_lo False", "clear", "length_control True", "interface.ctc_lo True"]
    assert events[:-1] == wanted and events[-1] == "clear", "the last one is autocast's own"
    total.backward()
    learned = [*model.first.length_control.blocks.parameters(), *model.first.interface.ctc_lo.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned)


@pytest.mark.parametrize("conditioned", [False, True], ids=["intermediate", "self_conditioned"])
def test_first_pass_keeps_nothing_for_the_loss(conditioned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intermediate CTC is of the second pass alone, and a decoder behind reads it."""
    module = encoder()
    module["output"]["intermediate"] = {"blocks": [1], "self_conditioned": conditioned}
    model = toys.chain([module, toys.decoder(toys.wemb("bpe"))]).train()
    passes: list[int] = []
    whole = RegularizedCTC.loss_of_passes
    monkeypatch.setattr(
        RegularizedCTC,
        "loss_of_passes",
        lambda self, made, *more: passes.extend(map(len, made)) or whole(self, made, *more),
    )
    parts = run(model)
    assert passes == [2] and set(parts) == {"enc", "decoder"}
    sum(part.total for part in parts.values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.first.interface.parameters())


def test_a_frozen_body_leaves_the_rest_to_glance() -> None:
    module = {**encoder(), "freeze": False}
    model = toys.chain([module]).train()
    model.first.body.requires_grad_(False)
    run(model)["enc"].total.backward()
    assert model.first.interface.ctc_lo.weight.grad is not None


def test_nothing_is_shown_outside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(
        "espnet2_legonn.model.parts.ctc.glance", lambda *args: calls.append(1) or glancing.glance(*args)
    )
    run(toys.chain([encoder()]).eval())
    run(toys.chain([{**encoder(), "freeze": True}]).train())
    toys.chain([encoder()]).train().last(*toys.padded(SOURCES))
    assert not calls
    run(toys.chain([encoder()]).train())
    assert calls


def test_a_pack_is_that_of_a_plain_interface() -> None:
    """No weight more, the same answers; a model that does not ask is made as before."""
    plain, rich = toys.chain([encoder(0.0)]).eval(), toys.chain([encoder()]).eval()
    assert type(plain.first.interface) is CTCInterface and type(rich.first.interface) is RegularizedCTC
    plain.load_state_dict(rich.state_dict())
    x = toys.padded(SOURCES)
    assert torch.equal(rich.last(*x)[0], plain.last(*x)[0])


@pytest.mark.parametrize(("consistency", "wanted"), [(0.0, [1, 2]), (0.2, [2, 4])])
def test_only_the_length_controller_passes_twice(consistency: float, wanted: list[int]) -> None:
    """The body once. With consistency, both of its passes are shown something of their own."""
    module = encoder(dropout=0.3)
    module["output"]["consistency"] = consistency
    model, counted = toys.chain([module]).train(), [0, 0]
    model.first.body.register_forward_hook(lambda *_: counted.__setitem__(0, counted[0] + 1))
    model.first.length_control.register_forward_hook(lambda *_: counted.__setitem__(1, counted[1] + 1))
    assert ("consistency" in run(model)["enc"].stats) is (consistency > 0) and counted == wanted


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("0.length_control", None, "enc.output.glancing: shows tokens to the slots that length_control makes"),
        ("0.output.ctc_weight", 0.0, "enc.output.glancing: is a part of the CTC loss, and ctc_weight is 0"),
        ("0.output.glancing", 1.0, "enc.output.glancing: 1.0 is not at least 0 and less than 1"),
        ("1.output.glancing", 0.5, "decoder.output.glancing: is for CTC, which encoder modules have"),
    ],
)
def test_faults(key: str, value: Any, message: str) -> None:
    modules = change([encoder(), toys.decoder(toys.wemb("bpe"))], key, value)
    with pytest.raises(ConfigError, match=message):
        parse({"vocabs": toys.VOCABS, "modules": modules})
