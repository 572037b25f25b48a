"""Encoders of ESPnet's as bodies: an item does not depend on its padding, keys are checked, packs hold them."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.schema import Reader, to_plain
from espnet2_legonn.model import espnet_body
from espnet2_legonn.model.bodies import BODIES
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.espnet_body import ENCODERS, REFUSED, EspnetBody, EspnetBodyConfig
from espnet2_legonn.model.precision import converted
from espnet2_legonn.model.registry import Configs
from tests.modules import toys

D = 16
SIZES = {"output_size": D, "attention_heads": 2, "linear_units": 12, "num_blocks": 2}
SMALL: dict[str, dict[str, Any]] = {
    "conformer": {**SIZES, "cnn_module_kernel": 5},
    "e_branchformer": {**SIZES, "cgmlp_linear_units": 12, "cgmlp_conv_kernel": 5, "use_ffn": True, "macaron_ffn": True},
    "espnet:transformer": SIZES,
    "espnet:conformer": {**SIZES, "rel_pos_type": "legacy", "cnn_module_kernel": 5, "macaron_style": True},
    "espnet:branchformer": {"output_size": D, "attention_heads": 2, "num_blocks": 2, "cgmlp_linear_units": 12},
    "espnet:e_branchformer": {**SIZES, "input_layer": "linear", "cgmlp_conv_kernel": 5, "merge_conv_kernel": 7},
    "espnet:multiconv_conformer": {**SIZES, "cgmlp_linear_units": 48, "multicgmlp_kernel_sizes": "3,5"},
    "espnet:rnn": {"output_size": D, "hidden_size": 6, "num_layers": 2},
    "espnet:contextual_block_transformer": {**SIZES, "block_size": 8, "hop_size": 4, "look_ahead": 2},
    "espnet:contextual_block_conformer": {**SIZES, "block_size": 8, "hop_size": 4, "look_ahead": 2},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SMALL},
    "positionwise conv1d": ("conformer", {"positionwise_layer_type": "conv1d"}),
    "positionwise conv1d-linear": ("conformer", {"positionwise_layer_type": "conv1d-linear"}),
    "conv positions": ("e_branchformer", {"attention_layer_type": "selfattn", "pos_enc_layer_type": "conv"}),
    "scaled positions": ("conformer", {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "scaled_abs_pos"}),
    "fast attention": ("e_branchformer", {"attention_layer_type": "fast_selfattn", "pos_enc_layer_type": "abs_pos"}),
    "learned average": ("espnet:branchformer", {"merge_method": "learned_ave"}),
    "linear transformer": ("espnet:transformer", {"input_layer": "linear", "positionwise_layer_type": "conv1d",
                                                  "positionwise_conv_kernel_size": 3}),
}  # fmt: skip
LENGTHS = (40, 3, 17, 1)


def config(kind: str, **more: Any) -> EspnetBodyConfig:
    reader = Reader()
    built = reader.choose(Configs(BODIES), {"type": kind, **SMALL[kind], **more}, "m.body")
    assert not reader.faults and isinstance(built, EspnetBodyConfig)
    return built


def body(kind: str, **more: Any) -> EspnetBody:
    torch.manual_seed(0)
    made = BODIES[kind](config(kind, **more))
    toys.scramble(made)
    for part in made.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            assert part.running_mean is not None
            part.running_mean.normal_()  # of some training
    return made.eval()


def gap(made: EspnetBody, fill: float = 1e4) -> float:
    items = [torch.randn(n, D) for n in LENGTHS]
    return toys.gap(lambda x, lengths: (made(x, lengths), lengths), items, fill)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("fill", [0.0, 1e4, float("nan")])
@pytest.mark.parametrize("name", VARIANTS)
def test_item_alone_is_item_in_a_batch(name: str, fill: float) -> None:
    kind, more = VARIANTS[name]
    assert gap(body(kind, **more), fill) < 1e-9


@pytest.mark.parametrize("name", VARIANTS)
def test_and_in_float32(name: str) -> None:
    kind, more = VARIANTS[name]
    assert gap(body(kind, **more)) < 1e-5


def test_every_encoder_is_tried() -> None:
    tried = {kind.removeprefix("espnet:") for kind in SMALL}
    assert tried == set(ENCODERS)
    assert {name for name, cls in BODIES.items() if cls is EspnetBody} == {
        *(f"espnet:{name}" for name in ENCODERS), "conformer", "e_branchformer",
    }  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "espnet:branchformer", "espnet:multiconv_conformer"])
def test_without_the_mask_convolutions_read_padding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espnet_body._Padding, "hide", lambda self, module, inputs: inputs)
    assert gap(body(kind)) > 1e-3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["espnet:conformer", "espnet:contextual_block_conformer"])
def test_together_these_would_depend_on_the_batch(kind: str) -> None:
    made = body(kind)
    made.alone = False
    try:
        assert gap(made) > 1e-3
    except RuntimeError:  # some cannot read items of one step in a batch
        assert kind.startswith("espnet:contextual")


@pytest.mark.usefixtures("float64")
def test_in_training_padding_is_no_data() -> None:
    """Batch norm: statistics and gradients are those of PyTorch's own over the items' steps, laid end to end."""
    made = body("conformer").train()
    norm = next(part for part in made.modules() if isinstance(part, espnet_body.ItemNorm))
    assert norm.running_mean is not None and norm.running_var is not None
    own = torch.nn.BatchNorm1d(D).train()
    own.load_state_dict(norm.state_dict())
    items = [torch.randn(n, D) for n in LENGTHS]
    x, lengths = toys.padded(items, 1e4, 3)
    norm.padding.lengths = lengths
    wide = norm(x.transpose(1, 2)).transpose(1, 2)
    flat = own(torch.cat(items))
    torch.testing.assert_close(torch.cat([row[:n] for row, n in zip(wide, LENGTHS)]), flat)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)
    sum(row[:n].square().sum() for row, n in zip(wide, LENGTHS)).backward()  # type: ignore[union-attr]
    flat.square().sum().backward()
    torch.testing.assert_close(norm.weight.grad, own.weight.grad)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "espnet:transformer"])
def test_it_is_espnets_encoder(kind: str) -> None:
    """One item, no padding: what ESPnet's class computes of the same input."""
    made = body(kind)
    x, lengths = torch.randn(1, 9, D), torch.tensor([9])
    fresh = espnet_body.build(config(kind)).eval()
    fresh.load_state_dict(made.encoder.state_dict())
    # Its positions scale what they get by sqrt(D); here the input part brings values of their size.
    scaled = x if kind == "espnet:transformer" else x / D**0.5
    torch.testing.assert_close(made(x, lengths), fresh(scaled, lengths)[0], rtol=0, atol=1e-9)


def encoder(body: dict[str, Any], source: dict[str, Any] | None = None) -> dict[str, Any]:
    module = toys.encoder("enc", source or toys.TEXT, "bpe", "2")
    return {**module, "body": body}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("source", [toys.TEXT, toys.SPEECH], ids=["text", "speech"])
@pytest.mark.parametrize("kind", ["e_branchformer", "conformer"])
def test_module_alone_is_in_a_batch(kind: str, source: dict[str, Any]) -> None:
    model = toys.chain([encoder({"type": kind, **SMALL[kind]}, source)]).eval()
    assert model.last.input.positions is None, "the body has relative ones"
    items = [0.1 * torch.randn(n) for n in (9000, 2000, 5003)]
    if source is toys.TEXT:
        items = [torch.tensor(ids) for ids in ([3, 4, 5, 1], [2], [7, 7, 3])]
    assert toys.gap(model.last, items, 0) < 1e-9


def test_a_body_without_positions_gets_those_of_the_input_part() -> None:
    model = toys.chain([encoder({"type": "espnet:transformer", **SIZES})])
    assert model.last.input.positions is not None


def test_gradients_reach_every_weight_and_no_map_is_kept() -> None:
    model = toys.chain([encoder({"type": "e_branchformer", **SMALL["e_branchformer"]})]).train()
    losses = model.losses(*toys.padded([[3, 4, 5, 1], [2]]), {"enc": toys.labels([2, 3], [4])})
    losses["enc"].total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent
    twin = copy.deepcopy(model).eval()  # ESPnet's attention would keep a map with its graph, which cannot be copied
    x, lengths = toys.padded([[3, 4, 5, 1], [2]])
    torch.testing.assert_close(twin.last(x, lengths)[0], model.eval().last(x, lengths)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "espnet:transformer", "espnet:rnn"])
def test_products_in_fewer_bits(kind: str, dtype: str) -> None:
    model = toys.chain([encoder({"type": kind, **SMALL[kind]}, toys.SPEECH)]).eval()
    x, lengths = toys.padded([0.1 * torch.randn(9000), 0.1 * torch.randn(3000)], 0.0)
    with torch.inference_mode():
        narrow, wide = (m(x, lengths)[0].exp() for m in (converted(model, dtype).last, model.last))
    assert narrow.dtype == torch.float32 and 0 < (narrow - wide).abs().max() < 0.1


def test_what_decoding_made_serves_training() -> None:
    made = body("conformer", max_pos_emb_len=4)
    x, lengths = torch.randn(2, 9, D), torch.tensor([9, 4])
    with torch.inference_mode():
        made(x, lengths)
    made.train()(x, lengths).sum().backward()


# -- the description -----------------------------------------------------------------------------------------------


def fault(kind: str, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        toys.chain([encoder({"type": kind, **SMALL.get(kind, SIZES), **more})])
    return str(caught.value)


def test_a_mistyped_key_is_met_with_the_nearest_one() -> None:
    said = fault("e_branchformer", cgmlp_conv_kernal=31, usa_ffn=True)
    assert "'cgmlp_conv_kernal' (did you mean 'cgmlp_conv_kernel'?)" in said and "(did you mean 'use_ffn'?)" in said


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("conformer", {"cnn_module_kernel": "wide"}, "cnn_module_kernel: must be int, found 'wide'"),
        ("conformer", {"input_layer": "conv2d"}, "'conv2d' makes steps, as the input part does: null, linear"),
        ("conformer", {"interctc_layer_idx": [1]}, "every module of a chain has its own CTC interface"),
        ("conformer", {"activation_type": "none"}, "ESPnet refuses it"),
        ("conformer", {"cnn_module_kernel": 4}, "ESPnet refuses it"),
        ("e_branchformer", {"max_pos_emb_len": 10**9}, "1000000000 is more than 100000"),
        ("espnet:rnn", {"num_layers": 5000}, "5000 is more than 1000"),
        ("espnet:rnn", {"attention_heads": 2}, "unknown key 'attention_heads'"),
        ("conformer", {"attention_heads": 3}, "size 16 must be even and a multiple of heads (3)"),
        ("conformer", {"num_blocks": 5000}, "num_blocks: 5000 is not at least 0 and less than 1000"),
        ("espnet:conformr", {}, "did you mean 'espnet:conformer'?"),
    ],
)
def test_faults(kind: str, more: dict[str, Any], words: str) -> None:
    assert words in fault(kind, **more)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_encoders_say_why(name: str) -> None:
    assert f"espnet:{name}: {REFUSED[name]}" in fault(f"espnet:{name}")


def test_every_encoder_of_the_task_is_known() -> None:
    from espnet2_legonn.foreign import load

    choices = load("espnet2.tasks.asr").encoder_choices.classes
    ours = {"legonn", "legonn_chain", "legonn_wemb", "legonn_beam_conv"}  # registered by other tests
    assert set(choices) - ours == set(ENCODERS) | set(REFUSED)
    for name, entry in ENCODERS.items():
        assert choices[name].__name__ == entry.name


def test_width_is_needed() -> None:
    with pytest.raises(ConfigError, match="enc.body: key 'output_size' is missing"):
        toys.chain([encoder({"type": "conformer", "num_blocks": 1})])


@pytest.mark.parametrize("kind", SMALL)
def test_plain_data_and_back(kind: str) -> None:
    vocabs = {n: toys.VOCABS[n] for n in ("src", "bpe")}
    description = {"vocabs": vocabs, "modules": [encoder({"type": kind, **SMALL[kind]})]}
    parsed = parse(description)
    again = yaml.safe_load(yaml.safe_dump(to_plain(parsed)))
    assert parse(again) == parsed and SMALL[kind].items() <= again["modules"][0]["body"].items()


@pytest.mark.parametrize("kind", SMALL)
def test_values_are_counted_without_memory(kind: str) -> None:
    assert config(kind).least_values == sum(p.numel() for p in body(kind).parameters())


# -- packs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["e_branchformer", "espnet:conformer"])
def test_a_pack_holds_it(kind: str, tmp_path: Path) -> None:
    model = LegoNN.from_config(
        {"vocabs": {n: toys.VOCABS[n] for n in ("src", "bpe")}, "modules": [encoder({"type": kind, **SMALL[kind]})]}
    ).eval()
    model.save(tmp_path / "pack")
    loaded = LegoNN.from_pretrained(tmp_path / "pack")
    x, lengths = toys.padded([[3, 4, 5, 1], [2]])
    torch.testing.assert_close(loaded.last(x, lengths)[0], model.last(x, lengths)[0], rtol=0, atol=0)
    assert f"body: {kind} 2 x 16" in (tmp_path / "pack/card.yaml").read_text()


def test_absurd_sizes_of_a_stranger_are_not_built(tmp_path: Path) -> None:
    kind = "e_branchformer"
    LegoNN.from_config(
        {"vocabs": {n: toys.VOCABS[n] for n in ("src", "bpe")}, "modules": [encoder({"type": kind, **SMALL[kind]})]}
    ).save(tmp_path / "pack")
    (tmp_path / "pack/card.yaml").unlink()
    path = tmp_path / "pack/config.yaml"
    data = yaml.safe_load(path.read_text())
    data["modules"][0]["body"] |= {"output_size": 90_000, "linear_units": 90_000, "num_blocks": 900}
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(CheckpointError, match="values or more; they do not belong together"):
        LegoNN.from_pretrained(tmp_path / "pack")


def test_espnet_is_imported_when_a_body_is_built_and_not_before() -> None:
    data = {"vocabs": {n: toys.VOCABS[n] for n in ("src", "bpe")},
            "modules": [encoder({"type": "e_branchformer", **SMALL["e_branchformer"]})]}  # fmt: skip
    code = f"""
import sys
from espnet2_legonn import LegoNN
from espnet2_legonn.model.description import parse
data = {data!r}
parse(data)
print("espnet2" in sys.modules)
LegoNN.from_config(data)
print("espnet2" in sys.modules, "espnet2.tasks" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_without_espnet_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError("pip install 'espnet2_legonn[train]'")

    monkeypatch.setattr(espnet_body, "load", absent)
    assert "body type conformer is ESPnet's: pip install" in fault("conformer")
