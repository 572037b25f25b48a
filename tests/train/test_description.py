"""From ESPnet's arguments to a description that stands on its own; length ratios by exact arithmetic."""

from __future__ import annotations

import argparse
import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.model.description import parse_ratio
from espnet2_legonn.training.description import resolve, total_length
from tests.train.toys import DECODER, FS, MODULES, PRONUNCIATION, RECOGNISER, VOCABS, body, config, control

SHAPES = {
    "src_text_shape": "u1 4\nu2 5\n",  # with the end of sentence: 11 steps
    "text_encoder_shape": "u1 3,7\nu2 4,7\n",  # 7 tokens
    "speech_shape": f"u1 {FS}\nu2 {2 * FS}\n",  # 3 s: 75 steps of 40 ms
    "text_phones_shape": "u1 10\nu2 20\n",
    "text_words_shape": "u1 6\nu2 6\n",
    "text_decoder_shape": "u1 6\nu2 6\n",
}


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    """Arguments with hand-made statistics, and no modules yet."""
    folder = tmp_path / "stats" / "train"
    folder.mkdir(parents=True)
    for name, text in SHAPES.items():
        (folder / name).write_text(text)
    shapes = [str(folder / "any_shape")]
    return argparse.Namespace(
        output_dir=str(tmp_path / "exp"), train_shape_file=shapes, collect_stats=False, modules_conf={}
    )


def describe(args: argparse.Namespace, modules: list[dict[str, Any]]) -> argparse.Namespace:
    given = copy.deepcopy(config(modules))
    args.vocabs, args.modules = given["vocabs"], given["modules"]
    return args


def ratios(args: argparse.Namespace) -> list[Any]:
    return [m.get("length_control", {}).get("ratio") for m in args.modules]


# ---- ratios


def test_ratio_of_text(args: argparse.Namespace) -> None:
    found, _ = resolve(describe(args, MODULES["tokens"]))
    assert ratios(args)[0] == f"{2 * 7 / 11:.4f}" == found.modules[0].length_control.ratio


def test_ratio_of_speech(args: argparse.Namespace) -> None:
    resolve(describe(args, [RECOGNISER]))
    assert ratios(args) == [f"{2 * 30 / 75:.4f}"]


def test_ratios_of_three_modules(args: argparse.Namespace) -> None:
    """The second module's steps are the first one's slots: 2 * 30 phonemes; it makes 3 * 12 word slots."""
    middle = {**PRONUNCIATION, "length_control": control(slots_per_token=3)}
    resolve(describe(args, [RECOGNISER, middle, DECODER]))
    assert ratios(args) == [f"{60 / 75:.4f}", f"{36 / 60:.4f}", None]


@pytest.mark.parametrize("ratio", ["4/5", 0.8, "0.8"])
def test_a_given_ratio_before_a_derived_one(args: argparse.Namespace, ratio: Any) -> None:
    first = {**RECOGNISER, "length_control": control(ratio=ratio)}
    resolve(describe(args, [first, {**PRONUNCIATION, "length_control": control(slots_per_token=2)}, DECODER]))
    assert ratios(args) == [str(ratio), f"{24 / (75 * 0.8):.4f}", None] or ratios(args)[0] == ratio
    assert parse_ratio(ratios(args)[1]) == Fraction("0.4")


@pytest.mark.parametrize("ratio", ["1/2.5", 0.4])
def test_a_given_ratio_behind_a_derived_one(args: argparse.Namespace, ratio: Any) -> None:
    middle = {**PRONUNCIATION, "name": "phones2", "output": {"vocab": "phones"}, "length_control": control(ratio=ratio)}
    last = {**PRONUNCIATION, "length_control": control(slots_per_token=1)}
    resolve(describe(args, [RECOGNISER, middle, last, DECODER]))
    assert [parse_ratio(r) for r in ratios(args)[:3]] == [Fraction("0.8"), Fraction("0.4"), Fraction(1, 2)]


def test_module_without_controller_keeps_the_steps(args: argparse.Namespace) -> None:
    plain = {"name": "deeper", "input": {"type": "states"}, "body": body(), "output": {"vocab": "tgt"}}
    first = {**RECOGNISER, "output": {"type": "states"}, "length_control": control(ratio=0.5)}
    last = {**PRONUNCIATION, "input": {"type": "wemb", "vocab": "tgt"}, "length_control": control(slots_per_token=2)}
    resolve(describe(args, [first, plain, last, DECODER]))
    assert float(ratios(args)[2]) == pytest.approx(24 / 37.5)


def test_statistics_need_no_ratio(args: argparse.Namespace) -> None:
    args.collect_stats = True
    found, _ = resolve(describe(args, MODULES["tokens"]))
    assert found.modules[0].length_control.ratio == 1 and ratios(args)[0] is None, "nothing is written back"


def test_ratio_without_statistics(args: argparse.Namespace) -> None:
    args.train_shape_file = []
    with pytest.raises(ConfigError, match=r"encoder\.length_control: slots_per_token needs --train_shape_file"):
        resolve(describe(args, MODULES["tokens"]))


def test_missing_shape_file(args: argparse.Namespace) -> None:
    (Path(args.train_shape_file[0]).parent / "text_encoder_shape").unlink()
    with pytest.raises(DataError, match="text_encoder_shape: no such shape file; stage 10 makes it"):
        resolve(describe(args, MODULES["tokens"]))


@pytest.mark.parametrize(("text", "line"), [("u1 3\nu2\n", 2), ("u1 x,4\n", 1)])
def test_line_that_is_no_shape(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "shape").write_text(text)
    with pytest.raises(DataError, match=rf"shape:{line}: not a shape"):
        total_length(tmp_path / "shape")


def test_shapes_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "shape").write_text("u1 3\n\nu1 4\n")
    with pytest.raises(DataError, match="shape:2: no key at the start"):
        total_length(tmp_path / "shape")


# ---- vocabularies


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sentencepiece vocabulary in files."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("bpe")
    (folder / "text").write_text("a cat sat on a mat\nthe cat and the hat\n" * 20)
    options = {"vocab_size": 14, "model_type": "unigram", "minloglevel": 2, "bos_id": -1, "eos_id": -1, "unk_id": 0}
    sentencepiece.SentencePieceTrainer.train(input=str(folder / "text"), model_prefix=str(folder / "bpe"), **options)
    pieces = [line.split("\t")[0] for line in (folder / "bpe.vocab").read_text().splitlines()]
    lines = ["<blank>", "<unk>", *(p for p in pieces if p != "<unk>"), "<sos/eos>"]
    (folder / "tokens.txt").write_text("".join(f"{t}\n" for t in lines))
    return {"tokens": str(folder / "tokens.txt"), "bpemodel": str(folder / "bpe.model"), "unit": "bpe"}


def with_bpe(args: argparse.Namespace, bpe: dict[str, Any]) -> argparse.Namespace:
    describe(args, MODULES["tokens"])
    args.vocabs["tgt"] = dict(bpe)
    return args


def test_vocabularies_move_into_the_experiment(
    args: argparse.Namespace, bpe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet2_legonn.model.build import load_vocab

    found, base = resolve(with_bpe(args, bpe))
    assert base == Path(args.output_dir) and args.vocabs["tgt"]["tokens"][0] == "<blank>"
    assert (base / "vocabs" / "tgt.model").read_bytes() == Path(bpe["bpemodel"]).read_bytes()
    assert [p.name for p in (base / "vocabs").iterdir()] == ["tgt.model"], "no temporary file is left"
    monkeypatch.chdir(tmp_path)
    vocab = load_vocab(found.vocabs["tgt"], base)
    assert vocab.decode(vocab.encode("the cat sat")) == "the cat sat"


def test_resolving_twice_changes_nothing(args: argparse.Namespace, bpe: dict[str, Any]) -> None:
    resolve(with_bpe(args, bpe))
    once = yaml.safe_dump({"vocabs": args.vocabs, "modules": args.modules})
    stamp = (Path(args.output_dir) / "vocabs" / "tgt.model").stat().st_mtime_ns
    args.train_shape_file = []  # the ratio is written down, statistics are not read again
    resolve(args)
    assert yaml.safe_dump({"vocabs": args.vocabs, "modules": args.modules}) == once
    assert (Path(args.output_dir) / "vocabs" / "tgt.model").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tokens", r"vocabs\.tgt\.tokens: .*nowhere does not exist; stage 5"),
        ("bpemodel", r"vocabs\.tgt\.bpemodel: .*nowhere does not exist; stage 5"),
    ],
)
def test_missing_vocabulary_files(args: argparse.Namespace, bpe: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(with_bpe(args, {**bpe, key: "nowhere"}))


def test_two_missing_vocabularies_are_reported_together(args: argparse.Namespace) -> None:
    describe(args, MODULES["tokens"])
    for name in ("src", "tgt"):
        args.vocabs[name]["tokens"] = f"nowhere.{name}"
    with pytest.raises(DataError, match=r"nowhere\.src") as caught:
        resolve(args)
    assert "nowhere.tgt" in str(caught.value)


# ---- the description itself


def test_modules_conf(args: argparse.Namespace) -> None:
    args.modules_conf = {"decoder": {"body": {"num_blocks": 3}}, "encoder": {"length_control": {"ratio": "3/2"}}}
    resolve(describe(args, MODULES["tokens"]))
    assert args.modules[1]["body"]["num_blocks"] == 3 and args.modules[0]["length_control"]["ratio"] == "3/2"
    assert args.modules_conf == {} and DECODER["body"]["num_blocks"] == 1, "the caller's data are left alone"


def test_unknown_module_in_modules_conf(args: argparse.Namespace) -> None:
    args.modules_conf = {"encodr": {}, "foo": {}}
    with pytest.raises(ConfigError, match=r"no module is called 'encodr' \(did you mean 'encoder'\?\)") as caught:
        resolve(describe(args, MODULES["tokens"]))
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("modules", [None, []])
def test_no_modules(args: argparse.Namespace, modules: Any) -> None:
    args.vocabs, args.modules = dict(VOCABS), modules
    with pytest.raises(ConfigError, match=r"no modules: .*conf/reference\.yaml"):
        resolve(args)


def test_faults_are_found_before_files_are_touched(args: argparse.Namespace, bpe: dict[str, Any]) -> None:
    with_bpe(args, bpe).modules[0]["body"]["sise"] = 3
    with pytest.raises(ConfigError, match=r"encoder\.body: unknown key 'sise' \(did you mean 'size'\?\)"):
        resolve(args)
    assert not Path(args.output_dir).exists()
