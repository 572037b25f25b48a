"""A chain in YAML: round trips, overrides, and every fault with its place and the nearest valid name."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn import ConfigError, DataError, LegoNN, LegoNNError
from espnet2_legonn.files.schema import read_yaml
from espnet2_legonn.model.description import override, parse, parse_ratio, plain

Data = dict[str, Any]


def everything(parts: Any) -> Data:
    """A description that uses each class of the schema."""
    speech = parts.speech()
    speech["input"] |= {"normalize": "global", "specaug": {"freq_width": 5, "num_time": 1}}
    middle = parts.encoder(
        "middle", "mid", "tgt", "1/2.92", type="wemb", receptive_field=3, num_blocks=1, collapse=True
    )
    last = parts.decoder("decoder", "tgt", type="beam_conv", k=2, embed_size=4, attention_dropout=0.0)
    last |= {"freeze": "eval", "lr_scale": 0.1, "init": "folder#decoder"}
    vocabs = {"mid": parts.vocab("p q", language="en", normalization="lc"), "tgt": parts.vocab("x y")}
    return {"vocabs": vocabs, "modules": [speech, middle, last]}


def states(parts: Any) -> Data:
    encoder = parts.encoder("encoder", "src", "tgt")
    del encoder["length_control"]
    encoder["output"] = {"type": "states"}
    decoder = {**parts.decoder("decoder", "tgt"), "input": {"type": "states"}}
    return {"vocabs": {"src": parts.vocab("a"), "tgt": parts.vocab("x")}, "modules": [encoder, decoder]}


@pytest.mark.parametrize("make", [everything, states])
def test_round_trips(make: Any, parts: Any, tmp_path: Path) -> None:
    config = parse(make(parts))
    assert parse(plain(config)) == config
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain(config), sort_keys=False), encoding="utf-8")
    assert parse(read_yaml(path)) == config
    assert plain(parse(read_yaml(path))) == plain(config)


def test_from_config_takes_a_path_plain_data_or_a_parsed_description(data: Data, tmp_path: Path) -> None:
    before = copy.deepcopy(data)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    chains = [LegoNN.from_config(c) for c in (path, str(path), data, parse(data))]
    assert all(c.configs == chains[0].configs and c.vocabs == chains[0].vocabs for c in chains)
    assert chains[0].names == ["first", "middle", "decoder"]
    assert data == before, "the user's data is not touched"


def test_files_are_looked_up_beside_the_config(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "src.txt").write_text("\n".join(data["vocabs"]["src"]["tokens"]), encoding="utf-8")
    data["vocabs"]["src"]["tokens"] = "src.txt"
    (folder / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert len(LegoNN.from_config(folder / "config.yaml").vocabs["src"]) == 7
    data["vocabs"]["src"]["tokens"] = "none.txt"
    (folder / "config.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(DataError, match=r"exp/none.txt: no such token list"):
        LegoNN.from_config(folder / "config.yaml")


def test_an_espnet_config_may_hold_other_keys(data: Data) -> None:
    assert len(LegoNN.from_config({**data, "optim": "adam", "max_epoch": 3})) == 3


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", " 2 ", "4/2", "1/0.5"])
def test_ratios(value: Any) -> None:
    assert parse_ratio(value) == 2


def test_ratios_are_exact() -> None:
    assert parse_ratio("1/1.2") == Fraction(5, 6)
    assert parse_ratio(0.83) == Fraction(83, 100)
    assert parse_ratio("1/2.92") == Fraction(25, 73)


def test_numbers_that_yaml_reads_as_strings(data: Data) -> None:
    """YAML 1.1 has no 1e-3: it needs a dot. People write it all the same."""
    assert yaml.safe_load("1e-3") == "1e-3"
    data["modules"][0] |= {"lr_scale": "1e-3"}
    data["modules"][0]["body"] |= {"dropout": "2e-1"}
    module = parse(data).modules[0]
    assert (module.lr_scale, module.body.dropout) == (0.001, 0.2)


# -- faults ------------------------------------------------------------------------------------------------------------

SCHEMA_FAULTS = [
    (
        "modules.0.body.num_block",
        3,
        "first.body: unknown key 'num_block' (did you mean 'num_blocks'?); known: num_blocks, ",
    ),
    ("modules.0.inptu", {}, "first: unknown key 'inptu' (did you mean 'input'?)"),
    (
        "modules.0.input.type",
        "token",
        "first.input: type 'token' is not one of beam_conv, espnet_frontend, features, hf_embedding, pretrained, "
        "speech, states, tokens, wemb (did you mean 'tokens'?)",
    ),
    ("modules.0.input", "tokens", "first.input: must be a mapping with type: beam_conv | "),
    ("modules.0.body", 7, "first.body: must be a mapping with type: transformer | transformer_decoder | "),
    ("modules.0.body.num_blocks", "two", "first.body.num_blocks: must be int, found 'two'"),
    ("modules.0.body.num_blocks", 2.5, "first.body.num_blocks: must be int, found 2.5"),
    ("modules.0.body.num_blocks", True, "first.body.num_blocks: must be int, found True"),
    ("modules.0.body.dropout", "much", "first.body.dropout: must be float, found 'much'"),
    ("modules.0.length_control.ratio", [1], "first.length_control.ratio: must be str or float, found [1]"),
    ("modules.0.name", 3, "modules[0].name: must be str, found 3"),
    ("modules.0", "first", "modules[0]: must be a mapping, found 'first'"),
    ("modules.2.input.collapse", "yes", "decoder.input.collapse: must be bool, found 'yes'"),
    ("vocabs.src", "tokens.txt", "vocabs.src: must be a mapping, found 'tokens.txt'"),
    ("vocabs.src.units", "bpe", "vocabs.src: unknown key 'units' (did you mean 'unit'?)"),
    ("module", [], "module: unknown key (did you mean 'modules'?)"),
]
CROSS_FAULTS = [
    ("modules.0.input.vocab", "scr", "first.input.vocab: 'scr' is not in vocabs (did you mean 'src'?)"),
    ("modules.0.output.vocab", "middle", "first.output.vocab: 'middle' is not in vocabs"),
    (
        "modules.0.body.type",
        "transfomer",
        "first.body: type 'transfomer' is not one of transformer, transformer_decoder",
    ),
    ("modules.0.body.size", 9, "first.body: size 9 must be even and a multiple of heads (2)"),
    ("modules.0.body.heads", 3, "first.body: size 8 must be even and a multiple of heads (3)"),
    ("modules.0.freeze", "evil", "first.freeze: 'evil' is not true, false or eval"),
    (
        "modules.0.body.type",
        "transformer_decoder",
        "first: a decoder module ends a chain, but first is followed by another",
    ),
    (
        "modules.2.length_control",
        {"ratio": 1, "max_length": 3},
        "decoder.length_control: a decoder module has no slots",
    ),
    ("modules.2.output", {"type": "states"}, "decoder.output: a decoder module writes tokens, not states"),
    (
        "modules.2.input",
        {"type": "tokens", "vocab": "src"},
        "decoder.input: a decoder module reads marginals",
    ),
    ("modules.2.input.receptive_field", 2, "decoder.input.receptive_field: 2 is not an odd number >= 1"),
    ("modules.2.input.top_k", 0, "decoder.input.top_k: 0 is not at least 1"),
    ("modules.2.input.receptive_field", -1, "decoder.input.receptive_field: -1 is not an odd number >= 1"),
    (
        "modules.0.length_control",
        {"max_length": 3},
        "first.length_control: give ratio, or slots_per_token to derive it",
    ),
    (
        "modules.0.length_control.ratio",
        "0",
        "first.length_control.ratio: '0' is not a positive number or quotient",
    ),
    ("modules.0.length_control.ratio", "1/0", "first.length_control.ratio: '1/0' is not a positive number"),
    ("modules.0.length_control.ratio", -2, "first.length_control.ratio: -2.0 is not a positive number"),
    ("modules.0.length_control.ratio", "half", "first.length_control.ratio: 'half' is not a positive number"),
    (
        "modules.0.length_control.ratio",
        "1/2/3",
        "first.length_control.ratio: '1/2/3' is not a positive number",
    ),
    (
        "modules.0.name",
        "my module",
        "my module: a module's name is letters, digits and '_', beginning with a letter",
    ),
    ("modules.0.name", "decoder", "modules: names must differ, found decoder, middle, decoder"),
    ("modules.1.input.vocab", "tgt", "first -> middle: vocabulary 'mid' is written, 'tgt' is read"),
    ("modules.0.output", {"type": "states"}, "first -> middle: first writes states, middle reads marginals"),
    (
        "modules.1.input",
        {"type": "tokens", "vocab": "mid"},
        "first -> middle: first writes marginals, middle reads tokens",
    ),
]


@pytest.mark.parametrize(("place", "value", "message"), SCHEMA_FAULTS + CROSS_FAULTS)
def test_each_fault(data: Data, parts: Any, place: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(parts.change(data, place, value))
    assert any(fault.startswith(message) for fault in error.value.faults), error.value.faults


def test_missing_keys(data: Data) -> None:
    del (
        data["modules"][0]["body"]["size"],
        data["modules"][1]["input"]["k"],
        data["modules"][2]["output"]["vocab"],
    )
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert error.value.faults == [
        "first.body: key 'size' is missing",
        "middle.input: key 'k' is missing",
        "decoder.output: key 'vocab' is missing",
    ]


@pytest.mark.parametrize(
    "faults",
    [
        [SCHEMA_FAULTS[i] for i in (0, 1, 8, 12, 14, 15)],
        [CROSS_FAULTS[i] for i in (0, 1, 3, 5, 7, 10, 13)],
    ],
)
def test_all_faults_at_once(data: Data, parts: Any, faults: list[tuple[str, Any, str]]) -> None:
    for place, value, _ in faults:
        data = parts.change(data, place, value)
    with pytest.raises(ConfigError) as error:
        parse(data)
    for _, _, message in faults:
        assert any(fault.startswith(message) for fault in error.value.faults), message


def test_speech_faults(parts: Any) -> None:
    data = everything(parts)
    data["modules"][0]["input"] |= {"normalize": "speaker", "channels": [3]}
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert error.value.faults == [
        "recognizer.input.normalize: 'speaker' is not utterance, global or none",
        "recognizer.input.channels: two numbers, one for each block",
    ]
    data["modules"][0]["input"]["channels"] = [3, "x"]
    with pytest.raises(ConfigError, match=r"recognizer.input.channels\[1\]: must be int, found 'x'"):
        parse(data)


def test_states_of_another_width(parts: Any) -> None:
    data = parts.change(states(parts), "modules.1.body.size", 12)
    with pytest.raises(ConfigError, match="encoder -> decoder: states of width 8 are written, 12 are read"):
        parse(data)


def test_slots_per_token_waits_for_the_data(data: Data, parts: Any) -> None:
    data = parts.change(
        data, "modules.0.length_control", {"slots_per_token": 2, "max_length": 9, "num_blocks": 1}
    )
    assert parse(data).modules[0].length_control.slots_per_token == 2.0
    with pytest.raises(
        ConfigError, match=r"slots_per_token needs the data's lengths .*; run stage 10 \(statistics\) first"
    ):
        LegoNN.from_config(data)


@pytest.mark.parametrize("bad", [None, [], "text", {}, {"vocabs": {}}])
def test_not_a_chain(bad: Any) -> None:
    with pytest.raises(
        ConfigError, match="a chain is a mapping with 'vocabs' and 'modules'; see conf/reference.yaml"
    ):
        parse(bad)


@pytest.mark.parametrize("bad", [[], {}, None, "encoder"])
def test_no_modules(bad: Any) -> None:
    with pytest.raises(ConfigError, match="modules: must be a list with at least one module, in order"):
        parse({"modules": bad})


def test_vocabs_of_another_type(data: Data) -> None:
    with pytest.raises(ConfigError, match="vocabs: must be a mapping of names to vocabularies"):
        parse({**data, "vocabs": ["src"]})


def test_unreadable_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.yaml: No such file or directory"):
        LegoNN.from_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("modules:\n- {name: a\n- b", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad.yaml: not YAML: .*line \d"):
        LegoNN.from_config(tmp_path / "bad.yaml")
    (tmp_path / "code.yaml").write_text("modules: !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(ConfigError, match="code.yaml: line 1: tag .*python.* is not plain data"):
        LegoNN.from_config(tmp_path / "code.yaml")


@pytest.mark.parametrize("text", ["", "- first\n- second\n", "42\n"])
def test_yaml_that_describes_no_chain(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="a chain is a mapping"):
        LegoNN.from_config(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("modules.0.body.heads", 0),
        ("modules.0.body.size", 0),
        ("modules.0.body.linear_units", -4),
        ("modules.0.body.num_blocks", -1),
        ("modules.0.body.dropout", 1.5),
        ("modules.0.length_control.ratio", 0.00001),  # becomes 0/1 after rounding: no slots at all
        ("modules.0.length_control.max_length", 0),
        ("modules.0.length_control", {"slots_per_token": -2, "max_length": 9}),
        ("modules.1.input.k", 0),
        ("modules.0.output.ctc_weight", -1),
        ("modules.2.output.label_smoothing", 2.0),
        ("modules.0.lr_scale", -1),
    ],
)
def test_numbers_that_cannot_be(data: Data, parts: Any, place: str, value: Any) -> None:
    """They must be refused with their place, not crash in a constructor or train nonsense."""
    with pytest.raises(ConfigError, match=place.split(".")[-1]):
        parse(parts.change(data, place, value))


@pytest.mark.parametrize(
    "tokens",
    [None, 5, ["<blank>", "<unk>", True, False, "<sos/eos>"], ["<blank>", "<unk>", 1.0, "<sos/eos>"]],
)
def test_token_lists_that_yaml_turned_into_something_else(data: Data, parts: Any, tokens: Any) -> None:
    """Unquoted ``yes``, ``no`` and ``1.0`` are no strings in YAML: ``str(False)`` is not the word ``no``."""
    with pytest.raises(LegoNNError, match="src"):
        LegoNN.from_config(parts.change(data, "vocabs.src.tokens", tokens))


def test_a_bad_inline_vocabulary_is_named(data: Data, parts: Any) -> None:
    with pytest.raises(LegoNNError, match="src"):
        LegoNN.from_config(parts.change(data, "vocabs.src.tokens", ["a", "b"]))


def test_a_vocabulary_name_is_no_path(data: Data) -> None:
    """It becomes a file name when the chain is saved."""
    data["vocabs"]["../../stray"] = data["vocabs"]["src"]
    with pytest.raises(ConfigError, match="stray"):
        parse(data)


@pytest.mark.parametrize("name", ["keys", "type", "train"])
def test_module_names_that_torch_cannot_take(data: Data, parts: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        LegoNN.from_config(parts.change(data, "modules.0.name", name))


# -- overrides ---------------------------------------------------------------------------------------------------------


def test_override_by_module_name(data: Data) -> None:
    before = copy.deepcopy(data)
    changed = override(
        data, {"decoder": {"body": {"num_blocks": 3}, "freeze": True}, "first": {"lr_scale": 0.5}}
    )
    config = parse(changed)
    assert config.modules[2].body.num_blocks == 3 and config.modules[2].freeze is True
    assert config.modules[2].body.size == 8, "what is not named stays"
    assert config.modules[0].lr_scale == 0.5
    assert data == before


def test_override_replaces_what_is_no_mapping(data: Data) -> None:
    assert override(data, {"first": {"length_control": None}})["modules"][0]["length_control"] is None
    changed = override(data, {"decoder": {"length_control": {"ratio": 1}}})
    assert changed["modules"][2]["length_control"] == {"ratio": 1}


def test_override_of_unknown_modules(data: Data) -> None:
    with pytest.raises(ConfigError) as error:
        override(data, {"decodr": {}, "frist": {}, "q": {}})
    assert error.value.faults == [
        "modules_conf: no module is called 'decodr' (did you mean 'decoder'?)",
        "modules_conf: no module is called 'frist' (did you mean 'first'?)",
        "modules_conf: no module is called 'q'",
    ]


def test_override_with_an_unknown_key_is_found_by_parse(data: Data) -> None:
    with pytest.raises(ConfigError, match=r"decoder.body: unknown key 'blocks'"):
        parse(override(data, {"decoder": {"body": {"blocks": 3}}}))


def test_override_with_no_mapping(data: Data) -> None:
    with pytest.raises(ConfigError, match="decoder"):
        override(data, {"decoder": 3})
