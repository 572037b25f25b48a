"""Warm starts and freezing by parts: what is taken, left and refused; nothing is half done or done in silence."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet2_legonn import CheckpointError, ConfigError, LegoNN
from espnet2_legonn.model.chain import Labels
from espnet2_legonn.model.description import override, parse, plain
from espnet2_legonn.model.freeze import ENCODER_PARTS
from espnet2_legonn.packs.load import init_modules
from espnet2_legonn.packs.warm import freeze_lines, summary

Data = dict[str, Any]


@pytest.fixture
def donor(chain: LegoNN) -> LegoNN:
    """Three modules that have seen data."""
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.train().losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    return chain


@pytest.fixture
def saved(donor: LegoNN, tmp_path: Path) -> Path:
    return donor.save(tmp_path / "pack")


@pytest.fixture
def other(data: Data, parts: Any) -> Data:
    """The same chain for another source language."""
    return parts.change(data, "vocabs.src", parts.vocab("k l", language="zz"))


def started(parts: Any, data: Data, **changes: Data) -> tuple[LegoNN, LegoNN, list[str]]:
    """A chain with changes by module, before and after its warm start, and what was said."""
    data = copy.deepcopy(data)
    for module in data["modules"]:
        module.update(changes.get(module["name"], {}))
    before, after = parts.build(data, 9), parts.build(data, 9)
    return before, after, init_modules(after)


def taken(before: LegoNN, after: LegoNN, donor: LegoNN, module: str) -> tuple[set[str], set[str]]:
    """Weights equal to the donor's, and weights as they were made; norms are the same everywhere and in neither."""
    theirs, mine, old = (c[module].first.state_dict() for c in (donor, after, before))
    equal = {k for k in mine if k in theirs and mine[k].shape == theirs[k].shape and torch.equal(mine[k], theirs[k])}
    kept = {k for k in mine if torch.equal(mine[k], old[k])}
    assert mine.keys() - equal - kept <= {k for k in mine if "seen" in k}
    return equal - kept, {k for k in kept - equal if "seen" not in k}


def faults(parts: Any, data: Data, **changes: Data) -> list[str]:
    with pytest.raises(CheckpointError) as error:
        started(parts, data, **changes)
    return error.value.faults


# -- init --------------------------------------------------------------------------------------------------------------


def test_an_encoder_for_another_source_language(parts: Any, other: Data, donor: LegoNN, saved: Path) -> None:
    before, after, lines = started(parts, other, first={"init": {"from": f"{saved}#first", "except": ["input"]}})
    found, kept = taken(before, after, donor, "first")
    assert kept == {"input.embed.weight"}
    assert {name.partition(".")[0] for name in found} == {"body", "length_control", "interface"}
    number = sum(v.numel() for k, v in after.first.state_dict().items() if not k.startswith("input."))
    assert lines == [
        f"first: {number} values from {saved}#first: body, length_control, interface; left as made: input; "
        "of another shape: input.embed.weight (7, 8) there, (5, 8) here"
    ]
    assert after.first.interface.seen.slots_per_token is None, "it learns, so what the donor saw is forgotten"


def test_parts_alone_and_nested_parts(parts: Any, data: Data, donor: LegoNN, saved: Path) -> None:
    init = {"from": str(saved), "only": ["body", "length_control"], "except": ["length_control.learned"]}
    before, after, lines = started(parts, data, first={"init": init})
    found, kept = taken(before, after, donor, "first")
    assert {n.partition(".")[0] for n in found} == {"body", "length_control"}
    assert kept == {"input.embed.weight", "length_control.learned.weight", "interface.ctc_lo.weight"}
    assert ": body, length_control.blocks; left as made: input, length_control.learned, interface" in lines[0]


def test_the_short_form_takes_everything(parts: Any, data: Data, donor: LegoNN, saved: Path) -> None:
    for init in (str(saved), {"from": f"{saved}#first"}):
        before, after, lines = started(parts, data, first={"init": init})
        assert not taken(before, after, donor, "first")[1]
        assert lines[0].endswith(": input, body, length_control, interface")


def test_the_left_side_may_speak_another_language_the_other_may_not(parts: Any, other: Data, saved: Path) -> None:
    assert faults(parts, other, first={"init": str(saved)}) == [
        f"first.init: {saved} reads another vocabulary, or another order (7 tokens there, 5 here)",
        f"first.init: {saved}: leave out what differs: except: [input]",
    ]
    other["vocabs"]["mid"] = parts.vocab("t s r q p")  # the same shapes
    init = {"from": str(saved), "except": ["input"]}
    assert faults(parts, other, first={"init": init}) == [
        f"first.init: {saved} writes another vocabulary, or another order (8 tokens there, 8 here)",
        f"first.init: {saved}: leave out what differs: except: [input, interface]",
    ]
    init["except"].append("interface")
    started(parts, other, first={"init": init})
    started(parts, other, first={"init": {"from": str(saved), "only": ["body"]}})


@pytest.mark.parametrize(
    ("place", "value", "bad", "fact", "remedy"),
    [
        ("modules.0.length_control.max_length", 50, "length_control.learned.weight is (40, 8), should be (50, 8)",
         "length_control.max_length: 40 there, 50 here", "length_control.learned"),
        ("modules.0.length_control.num_blocks", 2, "tensors missing: mods.first.length_control.blocks.decoders.1",
         "length_control.num_blocks: 1 there, 2 here", "length_control"),
        ("modules.0.length_control", None, "tensors unexpected: mods.first.length_control",
         "length_control: one there, none here", "length_control"),
        ("modules.0.body.linear_units", 20, "of another shape: mods.first.body",
         "body.linear_units: 16 there, 20 here", "body, length_control"),
        ("modules.1.input.k", 2, "input.embed.conv.weight is (8, 12, 1), should be (8, 8, 1)",
         "input.k: 3 there, 2 here", "input.embed.conv"),
    ],
)  # fmt: skip
def test_another_shape_is_an_error_with_the_remedy(
    parts: Any, data: Data, saved: Path, place: str, value: Any, bad: str, fact: str, remedy: str
) -> None:
    """The remedy works: the parts it names can be left out."""
    name = ("first", "middle")[int(place.split(".")[1])]
    changed = parts.change(data, place, value)
    found = faults(parts, changed, **{name: {"init": str(saved)}})
    assert bad in found[0] and found[0].startswith(f"{name}.init: {saved}: module {name}: ")
    assert found[-1] == (
        f"{name}.init: {saved}: {fact}; make them equal, or leave out what differs: except: [{remedy}]"
    )
    _, _, lines = started(parts, changed, **{name: {"init": {"from": str(saved), "except": remedy.split(", ")}}})
    assert len(lines) == 1


def test_all_faults_of_all_modules_at_once_and_nothing_is_changed(parts: Any, other: Data, saved: Path) -> None:
    other["modules"][0]["init"] = str(saved)
    other["modules"][1]["init"] = {"from": f"{saved}#midle"}
    other["modules"][2]["init"] = {"from": str(saved), "only": ["body", "input.embd"], "except": ["body.decoder"]}
    chain = parts.build(other, 9)
    before = copy.deepcopy(chain.state_dict())
    with pytest.raises(CheckpointError) as error:
        init_modules(chain)
    assert error.value.faults == [
        f"first.init: {saved} reads another vocabulary, or another order (7 tokens there, 5 here)",
        f"first.init: {saved}: leave out what differs: except: [input]",
        f"middle.init: {saved} has no module 'midle', only first, middle, decoder (did you mean 'middle'?)",
        "decoder.init.only: no part 'input.embd' here nor in the donor (did you mean 'input.embed'?)",
        "decoder.init.except: no part 'body.decoder' here nor in the donor (did you mean 'body.decoders'?)",
    ]
    other["modules"][2]["init"] = str(saved)  # fits, but the others do not
    with pytest.raises(CheckpointError):
        init_modules(chain)
    assert all(torch.equal(v, before[k]) for k, v in chain.state_dict().items())


def test_a_donor_that_is_gone_is_named_once(parts: Any, data: Data, tmp_path: Path) -> None:
    gone = {"init": str(tmp_path / "gone")}
    found = faults(parts, data, first=gone, middle=gone)
    assert len(found) == 1 and "gone: no such folder or zip" in found[0]


def test_facts_that_no_shape_betrays_are_said(parts: Any, data: Data, saved: Path) -> None:
    data = parts.change(parts.change(data, "modules.0.body.heads", 4), "modules.0.length_control.aligned", True)
    _, _, lines = started(parts, data, first={"init": str(saved)})
    assert lines[0].endswith("; body.heads: 2 there, 4 here; length_control.aligned: False there, True here")
    _, _, lines = started(parts, data, first={"init": {"from": str(saved), "only": ["interface"]}})
    assert "heads" not in lines[0] and "aligned" not in lines[0]


# -- tied matrices -----------------------------------------------------------------------------------------------------


def is_one(chain: LegoNN) -> bool:
    last = chain.last
    return last.embed.weight is last.output.weight is last.input.embed.weight


def test_a_tied_matrix_is_taken_if_any_of_its_names_is(parts: Any, data: Data, donor: LegoNN, saved: Path) -> None:
    _, after, lines = started(parts, data, decoder={"init": {"from": str(saved), "except": ["input"]}})
    assert is_one(after) and torch.equal(after.last.embed.weight, donor.last.embed.weight)
    assert "input.embed, body, embed, output; left as made: input.encoder, input.seen" in lines[0]
    left = {"from": str(saved), "except": ["input", "embed", "output"]}
    before, after, lines = started(parts, data, decoder={"init": left})
    assert is_one(after) and torch.equal(after.last.embed.weight, before.last.embed.weight)
    assert ": body; left as made: input, embed, output" in lines[0]


def test_values_are_counted_once(parts: Any, data: Data, saved: Path) -> None:
    _, after, lines = started(parts, data, decoder={"init": {"from": str(saved), "only": ["embed"]}})
    assert lines[0].startswith(f"decoder: {after.last.embed.weight.numel()} values")


def test_an_untied_donor_of_a_tied_module(parts: Any, data: Data, tmp_path: Path) -> None:
    """Which of its matrices is meant must be said; then the others follow."""
    donor = parts.build(parts.change(data, "modules.2.output.tie", False), 3)
    saved = donor.save(tmp_path / "untied")
    found = faults(parts, data, decoder={"init": str(saved)})
    assert "3 tensors tied here but different there" in found[0]
    assert "output.tie: False there, True here" in found[-1] and "except: [embed, input.embed, output]" in found[-1]
    init = {"from": str(saved), "except": ["embed", "input.embed"]}
    _, after, _ = started(parts, data, decoder={"init": init})
    assert is_one(after) and torch.equal(after.last.embed.weight, donor.last.output.weight)


def test_a_tied_donor_of_an_untied_module(parts: Any, data: Data, donor: LegoNN, saved: Path) -> None:
    untied = parts.change(data, "modules.2.output.tie", False)
    before, after, _ = started(parts, untied, decoder={"init": {"from": str(saved), "except": ["embed"]}})
    assert torch.equal(after.last.output.weight, donor.last.embed.weight)
    assert torch.equal(after.last.embed.weight, before.last.embed.weight)
    assert after.last.embed.weight is not after.last.output.weight


# -- freeze ------------------------------------------------------------------------------------------------------------


def test_frozen_parts_stay_and_the_others_learn(parts: Any, data: Data) -> None:
    data["modules"][0]["freeze"] = ["input", "body"]
    data["modules"][1]["freeze"] = {"body": "eval", "input.embed": True, "interface": False}
    chain = parts.build(data).train()
    still = {n for n, p in chain.named_parameters() if not p.requires_grad}
    places = ("mods.first.input.", "mods.first.body.", "mods.middle.body.", "mods.middle.input.embed.")
    assert still == {n for n, _ in chain.named_parameters() if n.startswith(places)}
    assert chain.first.body.training, "true keeps dropout"
    middle = list(chain)[1]
    assert not any(m.training for m in middle.body.modules()) and middle.input.training
    chain.eval().train()
    assert not middle.body.training and middle.training
    before = {n: p.clone() for n, p in chain.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in chain.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    parts_of_loss = chain.losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    sum(p.total for p in parts_of_loss.values()).backward()
    optimizer.step()
    assert {n for n, p in chain.named_parameters() if torch.equal(p, before[n])} == still


def test_a_frozen_input_keeps_no_graph_and_the_body_behind_learns(parts: Any, data: Data) -> None:
    data["modules"][0]["freeze"] = ["input"]
    chain = parts.build(data).train()
    graphs: dict[str, bool] = {}
    for part in ("input", "body"):
        getattr(chain.first, part).register_forward_hook(
            lambda _m, _i, out, part=part: graphs.__setitem__(part, (out[0] if part == "input" else out).requires_grad)
        )
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    loss = chain.losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))["first"]
    assert graphs == {"input": False, "body": True} and loss.total.requires_grad


@pytest.mark.parametrize(
    ("freeze", "counts"),
    [(False, True), (["body", "interface"], True), (True, False), (dict.fromkeys(ENCODER_PARTS, True), False)],
)
def test_a_module_that_learns_counts_what_it_sees(parts: Any, data: Data, freeze: Any, counts: bool) -> None:
    data["modules"][1]["freeze"] = freeze
    chain = parts.build(data).train()
    labels = Labels(torch.tensor([[2, 3]]), torch.tensor([2]))
    chain.losses(*chain.batch(["a b c"]), dict.fromkeys(chain.names, labels))
    middle = list(chain)[1]
    assert (middle.interface.seen.slots_per_token is not None) is counts
    assert (middle.input.seen.slots_per_token is not None) is counts


@pytest.mark.parametrize(("freeze", "kept"), [(["input"], False), ("eval", True)])
def test_what_the_donor_saw_is_kept_by_frozen_modules_alone(
    parts: Any, data: Data, saved: Path, freeze: Any, kept: bool
) -> None:
    _, after, _ = started(parts, data, decoder={"init": str(saved), "freeze": freeze})
    assert (after.last.input.seen.slots_per_token is not None) is kept


def test_freezing_is_said_with_what_it_ties(parts: Any, data: Data, saved: Path) -> None:
    init = {"from": str(saved), "except": ["input"]}
    _, after, lines = started(parts, data, first={"init": init, "freeze": ["input"]}, decoder={"freeze": ["input"]})
    assert lines[0].endswith("; frozen as made: input"), "an embedding that nobody trained"
    total = sum(p.numel() for p in after.last.parameters())
    frozen = sum(p.numel() for p in after.last.parameters() if not p.requires_grad)
    assert freeze_lines(after)[1] == (
        f"decoder: input: {frozen} of {total} values stay; embed.weight, output.weight too, "
        "one matrix with a frozen part"
    )
    whole = parts.build(parts.change(data, "modules.1.freeze", "eval"))
    assert re.fullmatch(r"middle: all: (\d+) of \1 values stay", freeze_lines(whole)[0])


def test_frozen_parts_that_are_not_there(parts: Any, data: Data) -> None:
    data["modules"][0] |= {"freeze": ["length_control"], "length_control": None}
    data["modules"][2]["freeze"] = ["body.decoder.0", "embed"]
    with pytest.raises(ConfigError) as error:
        parts.build(data)
    assert error.value.faults == [
        "first.freeze: no part 'length_control'; it has input, body, interface, ...",
        "decoder.freeze: no part 'body.decoder.0' (did you mean 'body.decoders.0'?); "
        "it has input, body, embed, output, ...",
    ]


# -- the description ---------------------------------------------------------------------------------------------------


def test_faults_of_the_description_all_at_once(data: Data) -> None:
    data["modules"][0] |= {"init": {"form": "x", "except": "input"}, "freeze": {"inptu": True, "body": "evil"}}
    data["modules"][1]["init"] = ["x"]
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert error.value.faults == [
        "first.init: unknown key 'form' (did you mean 'from'?); known: from, only, except",
        "first.init: key 'from' is missing",
        "first.init.except: must be list, found 'input'",
        "middle.init: must be str or mapping, found ['x']",
    ]
    data["modules"][0]["init"] = {"from": "", "only": ["bodi"], "except": ["embed"]}
    data["modules"][1] |= {
        "init": {"from": "x", "except": ["input", "body", "length_control", "interface"]},
        "freeze": "no",
    }
    with pytest.raises(ConfigError) as error:
        parse(data)
    known = "there are input, body, length_control, interface"
    assert error.value.faults == [
        "first.freeze.body: 'evil' is not true, false or eval",
        "first.init.from: is empty; name a pack or an experiment",
        f"first.freeze: no part 'inptu' (did you mean 'input'?); {known}",
        f"first.init.only: no part 'bodi' (did you mean 'body'?); {known}",
        f"first.init.except: no part 'embed'; {known}",
        "middle.freeze: 'no' is not true, false or eval; parts are a list, [input, body]",
        "middle.init: leaves nothing to take; drop init instead",
    ]  # fmt: skip


def test_description_and_plain_data_are_the_same(data: Data) -> None:
    data["modules"][0] |= {"init": {"from": "x#y", "except": ["input"]}, "freeze": ["input.embed"]}
    data["modules"][2]["freeze"] = {"body": "eval"}
    config = parse(data)
    assert plain(config)["modules"][0]["init"] == {"from": "x#y", "only": [], "except": ["input"]}
    assert parse(plain(config)) == config


def test_parts_travel_with_slices_sums_and_packs(parts: Any, data: Data, tmp_path: Path) -> None:
    data["modules"][0] |= {"init": {"from": "x#y", "except": ["input"]}, "freeze": ["input"]}
    chain = parts.build(data)
    again = LegoNN.from_pretrained((chain[:1] + chain[1:]).save(tmp_path / "pack"))
    assert again.configs == chain.configs
    assert not again.first.input.embed.weight.requires_grad and again.first.interface.ctc_lo.weight.requires_grad


def test_changes_by_module_name_keep_the_short_form(data: Data) -> None:
    data["modules"][0]["init"] = "exp/both#first"
    changed = override(data, {"first": {"init": {"except": ["input"]}}, "middle": {"init": {"from": "x"}}})
    assert changed["modules"][0]["init"] == {"from": "exp/both#first", "except": ["input"]}
    assert changed["modules"][1]["init"] == {"from": "x"}
    assert override(changed, {"first": {"init": "y"}})["modules"][0]["init"] == "y"


def test_summary_names_the_fewest_parts() -> None:
    names = ["a.x", "a.y.p", "a.y.q", "b.z"]
    assert summary(names, names) == "a, b"
    assert summary(["a.x", "a.y.p", "a.y.q"], names) == "a"
    assert summary(["a.y.p", "a.y.q", "b.z"], names) == "a.y, b"
    assert summary(["a.y.q"], names) == "a.y.q" and summary([], names) == ""
