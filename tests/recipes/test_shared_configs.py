"""``defaults`` and ``definitions``: what configurations share stands once, and every reader knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.bin.legonn_inference import parse_args
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.files import configs
from espnet2_legonn.files.configs import files_of, read_config, sources
from espnet2_legonn.recipes.origin import origin, same
from espnet2_legonn.recipes.plan import load_plan
from espnet2_legonn.recipes.stages import chain_config
from tests.recipes.test_origin import data, exp  # noqa: F401  # fixtures

BODY = "{type: transformer, num_blocks: 1, size: 16, heads: 2, linear_units: 32}"
SHARED = f"""definitions:
  vocabs:
    src: {{tokens: [<blank>, <unk>, a, <sos/eos>], unit: word}}
    tgt: {{tokens: [<blank>, <unk>, b, <sos/eos>], unit: word}}
    other: {{tokens: not/there.txt, unit: word}}
  modules:
    encoder: &encoder {{name: encoder, input: {{type: tokens, vocab: src}}, body: &body {BODY}, output: {{vocab: tgt}}}}
    again: {{<<: *encoder, name: again, input: {{type: wemb, vocab: tgt}}}}
"""


def write(folder: Path, **files: str) -> Path:
    """``<name>.yaml`` of each; the last one's path."""
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return path


def test_order_of_merging(tmp_path: Path) -> None:
    """Left to right, depth first, the file itself last; mappings by key, lists and values as a whole."""
    path = write(
        tmp_path,
        a="a: 1\nb: 1\nc: 1\nconf: {x: 1, y: {p: 1, q: 1}}\nlist: [1, 2]\n",
        b="defaults: [a.yaml]\nb: 2\nc: 2\nconf: {y: {q: 2}}\nlist: [3]\n",
        c="c: 3\nconf: {y: null}\n",
        own="defaults: [b.yaml, c.yaml]\nd: 4\n",
    )
    assert read_config(path) == {"a": 1, "b": 2, "c": 3, "d": 4, "conf": {"x": 1, "y": None}, "list": [3]}
    assert [file.name for file in sources(path)] == ["a.yaml", "b.yaml", "c.yaml", "own.yaml"]


def test_a_file_named_twice_is_merged_once_at_its_first_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        base="x: 1\ny: 1\n",
        left="defaults: [base.yaml]\nx: 2\n",
        right="defaults: [base.yaml]\ny: 3\n",
        own="defaults: [left.yaml, right.yaml]\n",
    )
    assert read_config(path) == {"x": 2, "y": 3}
    assert [file.name for file in sources(path)] == ["base.yaml", "left.yaml", "right.yaml", "own.yaml"]


def test_files_are_relative_to_the_one_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf/tuning").mkdir(parents=True)
    write(tmp_path, top="x: 1\n")
    write(tmp_path / "conf", base="defaults: [../top.yaml]\n")
    write(tmp_path / "conf/tuning", own="defaults: [../base.yaml]\n")
    monkeypatch.chdir(tmp_path / "conf")
    assert read_config("tuning/own.yaml") == {"x": 1}


def test_modules_by_name_bring_their_vocabularies(tmp_path: Path) -> None:
    own = "defaults: [shared.yaml]\ndefinitions: {modules: {encoder: {body: {size: 32}}}}\n"
    path = write(tmp_path, shared=SHARED, own=f"{own}modules: [encoder]\nseed: 3\n")
    config = read_config(path)
    assert set(config) == {"vocabs", "modules", "seed"} and set(config["vocabs"]) == {"src", "tgt"}
    (encoder,) = config["modules"]
    assert encoder["body"]["size"] == 32 and encoder["body"]["num_blocks"] == 1
    assert chain_config(path).modules[0].body.size == 32
    both = read_config(write(tmp_path, both="defaults: [shared.yaml]\nmodules: [encoder, again]\n"))
    both["modules"][0]["body"]["size"] = 64
    assert both["modules"][1]["body"]["size"] == 16, "what an alias names is not one object"
    assert read_config(write(tmp_path, none="defaults: [shared.yaml]\nx: 1\n")) == {"x": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"own": "x: 1\n# a comment\ndefaults:\n- gone.yaml\n"}, r"own\.yaml:4: defaults: gone\.yaml: no such file"),
        ({"own": "defaults: [own.yaml]\n"}, r"own\.yaml:1: .*a circle: own\.yaml -> own\.yaml"),
        (
            {"a": "x: 1\ndefaults: [b.yaml]\n", "b": "defaults: [a.yaml]\n", "own": "defaults: [a.yaml]\n"},
            r"b\.yaml:1: defaults: a\.yaml: a circle: a\.yaml -> b\.yaml -> a\.yaml",
        ),
        ({"own": "x: 1\ndefaults: other.yaml\n"}, r"own\.yaml:2: defaults: must be a list of files"),
        ({"own": "defaults: [[a.yaml]]\n"}, r"own\.yaml:1: defaults: must be a list of files"),
        ({"a": "- 1\n", "own": "defaults: [a.yaml]\n"}, r"a\.yaml: must be a mapping .*own\.yaml:1"),
        ({"a": "x: [1\n", "own": "defaults: [a.yaml]\n"}, r"a\.yaml: not YAML.*line 2"),
        ({"own": SHARED + "modules: [encodr]\n"}, r"own\.yaml: modules: 'encodr' is not among.*encoder"),
        ({"own": "definitions: {module: {}}\n"}, r"own\.yaml: definitions.*module.*modules"),
    ],
)
def test_faults_name_file_and_line(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path, **files))


def test_what_is_no_mapping_stays_as_it_is(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, own="- 1\n")) == [1] and read_config(write(tmp_path, own="")) is None


def test_the_whole_configuration_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, shared=SHARED, own="defaults: [shared.yaml]\nmodules: [encoder, again]\n")
    assert not configs.main([str(path)])
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == read_config(path) and "&" not in text
    assert configs.main([]) == 2 and "configs FILE" in capsys.readouterr().err


def test_training_takes_what_is_inherited(tmp_path: Path) -> None:
    """And the options of the command line win."""
    from espnet2_legonn.training.task import LegoNNTask

    path = write(
        tmp_path,
        shared=SHARED + "optim_conf: {lr: 0.1, weight_decay: 0.2}\nmax_epoch: 7\nseed: 4\n",
        own="defaults: [shared.yaml]\nmodules: [encoder]\noptim_conf: {lr: 0.3}\nmax_epoch: 9\n",
    )
    args = LegoNNTask.get_parser().parse_args(["--config", str(path), "--seed", "5"])
    assert (args.optim_conf, args.max_epoch, args.seed) == ({"lr": 0.3, "weight_decay": 0.2}, 9, 5)
    assert args.config == str(path) and [m["name"] for m in args.modules] == ["encoder"]
    assert not {"defaults", "definitions"} & vars(args).keys()
    write(tmp_path, shared=SHARED + "max_epohc: 7\n")
    with pytest.raises(ConfigError, match="max_epohc.*max_epoch"):
        LegoNNTask.get_parser().parse_args(["--config", str(path)])


def test_a_search_and_a_plan_inherit(tmp_path: Path) -> None:
    search = write(tmp_path, paper="beam_size: 7\nctc_weight: 0.0\n", own="defaults: [paper.yaml]\nbatch_size: 3\n")
    needed = ["--legonn_train_config", "x", "--output_dir", "y", "--data_path_and_name_and_type", "z,text,text"]
    args = parse_args(["--config", str(search), *needed])
    assert (args.beam_size, args.ctc_weight, args.batch_size) == (7, 0.0, 3)
    definitions: dict[str, Any] = yaml.safe_load(SHARED)["definitions"]
    text = yaml.safe_dump({**definitions, "training": {"max_epoch": 1}})
    experiment = "{name: x, modules: [encoder], train: train, valid: valid}"
    plan = load_plan(write(tmp_path, parts=text, plan=f"defaults: [parts.yaml]\nexperiments: [{experiment}]\n"))
    before = plan.made(plan.experiments[0])
    write(tmp_path, parts=text.replace("max_epoch: 1", "max_epoch: 2"))
    changed = load_plan(tmp_path / "plan.yaml")
    assert changed.made(changed.experiments[0]) != before


def test_a_change_of_an_inherited_search_is_noticed(exp: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    path = write(tmp_path, paper="beam_size: 2\n", own="defaults: [paper.yaml]\n")
    before = origin(exp, None, data / "src_text", ["--config", str(path)])
    assert same(before, origin(exp, None, data / "src_text", ["--config", str(path)]))
    write(tmp_path, paper="beam_size: 3\n")
    assert not same(before, origin(exp, None, data / "src_text", ["--config", str(path)]))
    assert files_of(path) == [tmp_path / "paper.yaml", path] and files_of("--nbest") == [Path("--nbest")]
