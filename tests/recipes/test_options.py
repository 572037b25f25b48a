"""Options of legonn.sh: ESPnet's names, help, the nearest name; what stages do with them, by a Python that notes."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.recipes import espnet_options as espnet
from espnet2_legonn.recipes import options
from tests.corpora.text_recipes import ROOT, new_recipe, run

SCRIPT = ROOT / "egs2/TEMPLATE/legonn1/legonn.sh"
KNOWN = options.read_options(SCRIPT)
NAMES = list(dict.fromkeys(name for names in espnet.ESPNET.values() for name in names))
SETS = ("--train_set", "train", "--valid_set", "valid", "--test_sets", "test")
# Those of the issue that asked for them.
WANTED = (
    "skip_data_prep skip_train skip_eval skip_upload_hf eval_valid_set gpu_inference python feats_type nlsyms_txt "
    "bpe_nlsyms cleaner g2p oov bpe_char_cover pretrained_model ignore_init_mismatch inference_asr_model num_splits "
    "score_opts"
).split()

# ---- the tables


def test_every_name_of_espnets_scripts_is_known_or_an_alias_or_refused() -> None:
    kinds = [options.classify(name, KNOWN) for name in NAMES]
    counts = {kind: kinds.count(kind) for kind in ("known", "alias", "refused")}
    print(counts)
    assert len(NAMES) >= 114 and sum(counts.values()) == len(NAMES) and counts["known"] >= 60
    with pytest.raises(ConfigError, match="does not have"):
        options.classify("asr_nothing", KNOWN)


def test_what_was_asked_for_is_there() -> None:
    assert [name for name in WANTED if name not in KNOWN and espnet.ALIASES.get(name) not in KNOWN] == []


def test_the_tables_fit_the_script() -> None:
    """A name has one meaning; what a message points at is there."""
    assert not set(espnet.ALIASES) & set(espnet.ABSENT) and not set(KNOWN) & {*espnet.ALIASES, *espnet.ABSENT}
    assert set(espnet.ALIASES.values()) <= set(KNOWN)
    assert {name for absent in espnet.ABSENT.values() for name in absent.instead} <= set(KNOWN)
    assert all(absent.instead and absent.reason for absent in espnet.ABSENT.values())
    assert set(espnet.NOTES) <= set(KNOWN)
    assert {*espnet.ALIASES, *espnet.ABSENT} <= set(NAMES), "names that no script of ESPnet's has"


def test_every_option_says_what_it_is_for() -> None:
    assert [option.name for option in KNOWN.values() if not option.meaning or not option.group] == []


def test_the_head_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text(
        'set -e\nhelp_message="x"\n# General\nstage=1   # first\nwords="a b"  # two\n          # of them\nempty=\n'
        "[ x ]\n# Data set\nplace=  # where\n. parse_options.sh\nlater=1 # no option\n"
    )
    found = options.read_options(script)
    assert list(found) == ["stage", "words", "empty", "place"]
    assert found["words"] == options.Option("words", "General", "a b", "two of them")
    assert found["place"] == options.Option("place", "Data set", "", "where")
    with pytest.raises(ConfigError, match="cannot be read"):
        options.read_options(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "value", "variable"),
    [
        ("nbpe", "5", "nbpe"), ("tgt_nbpe", "5", "nbpe"), ("asr_config", "x", "legonn_config"),
        ("mt_args", "x", "legonn_args"), ("inference_asr_model", "3epoch.pth", "inference_legonn_model"),
        ("use_lm", "true", "use_lm"), ("use_word_lm", "false", ""), ("hyp_cleaner", "none", ""), ("num_ref", "1", ""),
    ],
)  # fmt: skip
def test_what_a_name_sets(name: str, value: str, variable: str) -> None:
    assert options.resolve(SCRIPT, name, value) == variable


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stag", r"unknown option --stag \(did you mean 'stage'\?\)"),
        ("asr_tags", r"unknown option --asr_tags \(did you mean 'asr_tag'\?\)"),
        ("xyzzy", "unknown option --xyzzy$"),
        ("use_word_lm", "--use_word_lm: not an option here: the language model has the tokens .* nearest: --lm_config"),
        ("asr_speech_fold_length", "batches are cut by .*batch_bins.*nearest: --legonn_config"),
    ],
)
def test_the_nearest_name_and_the_reason(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options.resolve(SCRIPT, name, "true")


def test_names_of_espnets_are_those_of_the_stage_script_alone(tmp_path: Path) -> None:
    (tmp_path / "own.sh").write_text("stage=1 # first\n. parse_options.sh\n")
    with pytest.raises(ConfigError, match="unknown option --use_lm$"):
        options.resolve(tmp_path / "own.sh", "use_lm", "false")


def test_the_docs_have_the_table() -> None:
    page = (ROOT / "docs/coming_from_espnet.md").read_text(encoding="utf-8")
    shown = page.split("<!-- options:begin -->\n")[1].split("<!-- options:end -->")[0]
    remedy = "python -m espnet2_legonn.recipes.options table egs2/TEMPLATE/legonn1/legonn.sh"
    assert shown.strip() == options.table(SCRIPT).strip(), f"copy what `{remedy}` prints"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert options.main(["resolve", str(SCRIPT), "asr_tag", "x"]) == 0 and capsys.readouterr().out == "legonn_tag\n"
    assert options.main(["resolve", str(SCRIPT), "asr_tg", "x"]) == 1 and "did you mean" in capsys.readouterr().out
    assert options.main(["fixed", "oov", "<unk>", "feats_type", "fbank_pitch"]) == 1
    assert "--feats_type fbank_pitch: must be raw or extracted (modules read sound" in capsys.readouterr().out
    assert options.main([]) == 2 and "resolve SCRIPT" in capsys.readouterr().err


# ---- the script

FAKE = '#!/bin/sh\nprintf "%s\\n" "$*" >> "${NOTES}"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose Python only notes what it was asked to do."""
    folder = new_recipe(tmp_path)
    for script, body in (("local/data.sh", '#!/bin/sh\necho "data.sh $*" >> "${NOTES}"\n'), ("note", FAKE)):
        (folder / script).write_text(body)
        (folder / script).chmod(0o755)
    for part in ("valid", "org/valid", "test"):
        (folder / "dump/raw" / part).mkdir(parents=True)
    return folder


def call(recipe: Path, *words: str, fails: bool = False, **variables: object) -> list[str]:
    """What Python was called with, a line a call; or the last line printed, where the script fails."""
    notes = recipe / "notes"
    notes.unlink(missing_ok=True)
    command = '. ./path.sh; exec legonn.sh "$@"'
    words = (*SETS, "--python", "./note", *words)
    said = run(recipe, "bash", "-c", command, "x", *words, fails=fails, NOTES=notes, **variables)
    if fails:
        return [said]
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [line.replace("-m espnet2_legonn.", "") for line in lines]


def stages_of(calls: list[str]) -> list[str]:
    """The command of each call: format, filter, stats, ..."""
    return [re.sub(r"^(data\.cli |bin\.legonn_stage |bin\.legonn |bin\.)", "", line).split()[0] for line in calls]


def test_all_stages_in_order(recipe: Path) -> None:
    assert stages_of(call(recipe)) == [
        "data.sh", "format", "format", "format", "filter", "filter", "vocab",
        "stats", "train", "legonn_average", "tune", "decode", "score", "legonn_score", "pack",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "gone", "kept"),
    [
        (["--skip_data_prep", "true"], {"data.sh", "format", "filter", "vocab"}, {"stats", "train", "decode", "score"}),
        (["--skip-train", "true"], {"filter", "vocab", "stats", "train"}, {"data.sh", "format", "decode", "score"}),
        (["--skip_eval", "true"], {"tune", "decode", "score"}, {"data.sh", "vocab", "stats", "train"}),
        (["--skip_stages", "2 3 11"], {"format", "train"}, {"data.sh", "filter", "vocab", "stats", "decode", "score"}),
        (["--stop_stage", "5"], {"stats", "train", "decode", "score"}, {"data.sh", "format", "filter", "vocab"}),
    ],
)
def test_stages_are_left_out(recipe: Path, words: list[str], gone: set[str], kept: set[str]) -> None:
    found = set(stages_of(call(recipe, *words)))
    assert not gone & found and kept <= found, found


def one(calls: list[str], command: str) -> str:
    """The one call of a command."""
    found = [line for line in calls if f" {command} " in f" {line} "]
    assert len(found) == 1, (command, calls)
    return found[0]


def test_options_reach_their_stage(recipe: Path) -> None:
    (recipe / "symbols").write_text("<noise>\n<laugh>\n\n")
    calls = call(
        recipe, "--asr_args", "--max_epoch 3 --seed 7", "--asr_tag", "x", "--ngpu", "2", "--gpu_inference", "false",
        "--bpe_nlsyms", "<um>,<noise>", "--nlsyms_txt", "symbols", "--bpe_char_cover", "0.99", "--cleaner", "lc",
        "--pretrained_model", "exp/old", "--ignore_init_mismatch", "true", "--num_splits_asr", "3", "--batch_size", "8",
        "--inference_asr_model", "3epoch.pth", "--score_opts", "-s", "--use_lm", "false", "--g2p", "lexicon",
    )  # fmt: skip
    assert one(calls, "stats").endswith("--nj 4 --max_epoch 3 --seed 7")
    training = one(calls, "train")
    assert training.endswith("--max_epoch 3 --seed 7") and "--out exp/legonn_x " in training and "--ngpu 2" in training
    assert "--pretrained_model exp/old --ignore_init_mismatch true" in training and "--num_splits 3" in training
    vocab = one([c for c in calls if "bpe_unigram" in c], "vocab")
    assert "--character_coverage 0.99" in vocab and "--user_defined_symbols <um> <noise> <laugh> --unit bpe" in vocab
    assert [c.split("clean ")[1] for c in calls if " clean " in c] == [
        f"--data dump/raw/{part} --cleaner lc" for part in ("org/train", "org/valid", "test")
    ]
    assert [c.split()[-1] for c in calls if " phonemes " in c] == ["lexicon"] * 3
    decoding = one(calls, "decode")
    assert "--ngpu 0 --model 3epoch.pth --batch_size 8" in decoding
    assert "--nlsyms symbols --score_opts=-s --metrics wer cer" in one(calls, "score")


def test_the_validation_set_too(recipe: Path) -> None:
    calls = call(recipe, "--eval_valid_set", "true", "--stage", "12", "--stop_stage", "13", "--ngpu", "4")
    decoded = [shlex.split(c) for c in calls if " decode " in f" {c} "]
    assert [c[c.index("--data") + 1] for c in decoded] == ["dump/raw/valid", "dump/raw/test"]
    assert all(c[c.index("--ngpu") + 1] == "1" for c in decoded), "a GPU a job, as the docs say"
    shutil.rmtree(recipe / "dump/raw/valid")  # stage 4 did not run
    calls = call(recipe, "--eval_valid_set", "true", "--stage", "13", "--stop_stage", "13")
    assert "--data dump/raw/org/valid --decoded exp/legonn_legonn/decode/valid" in calls[0]


def test_the_source_of_a_translation(recipe: Path) -> None:
    target, source = call(
        recipe, "--input", "text", "--src_lang", "de", "--stage", "5", "--stop_stage", "5", "--tgt_nbpe", "70",
        "--src_nbpe", "80", "--src_token_type", "char", "--src_bpe_train_text", "a b", "--src_bpe_nlsyms", "<x>",
        "--tgt_lang", "fr",
    )  # fmt: skip
    assert target.startswith("data.cli vocab data/fr_token_list/bpe_unigram70 dump/raw/train/text --character_cov")
    assert "--user_defined_symbols" not in target
    assert source.startswith("data.cli vocab data/de_token_list/char a b ")
    assert "--user_defined_symbols <x> --unit char --vocab_size 80" in source


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ([], "decode"),
        (["--inference_config", "conf/beam.yaml"], "beam"),
        (["--inference_args", "--ctc_weight 0.3 --beam_size 10"], "decode_ctc_weight0.3_beam_size10"),
        (["--tune_search", "false"], "decode_untuned"),
        (["--tune_search", "false", "--inference_args", "--ctc_weight 0.0"], "decode_ctc_weight0.0"),
    ],
)
def test_folders_of_decoding_tell_the_search(recipe: Path, words: list[str], folder: str) -> None:
    calls = call(recipe, "--stage", "12", "--stop_stage", "12", *words)
    assert f"--out exp/legonn_legonn/{folder.replace(' ', '')}/test " in one(calls, "decode")


def test_gpus_are_counted(recipe: Path) -> None:
    tools = recipe / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nprintf 'GPU 0: x\\n  MIG 1g\\nGPU 1: x\\nGPU 2: x\\n'\n")
    (tools / "nvidia-smi").chmod(0o755)
    (recipe / "local/path.sh").write_text('export PATH="$PWD/tools:$PATH"\n')
    for visible, wanted in ((None, 3), ("0,1", 2), ("", 0), ("-1", 0), ("2", 1)):
        given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        assert f"--ngpu {wanted} " in one(call(recipe, "--stage", "11", "--stop_stage", "11", **given), "train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stgae", "1"], "unknown option --stgae (did you mean 'stage'?)"),
        (["--use_word_lm", "true"], "--use_word_lm: not an option here: the language model has the tokens of"),
        (["--asr_tag"], "option --asr_tag needs a value"),
        (["--use_word_lm"], "--use_word_lm: not an option here"),
        (["--skip_train", "yes"], "option --skip_train accepts true or false"),
        (["--skip_upload_hf", "yes"], "accepts true or false"),
        (["--feats_type", "fbank_pitch"], "--feats_type fbank_pitch: must be raw or extracted"),
        (["--oov", "UNK"], "--oov UNK: must be <unk>"),
        (["exp/x"], "'exp/x' is no option"),
    ],
)
def test_wrong_options(recipe: Path, words: list[str], message: str) -> None:
    # The Python that only notes is asked for reasons too: here it is the real one.
    assert message in call(recipe, "--python", "python3", *words, fails=True)[0]


def test_help_prints_every_option_with_its_value(recipe: Path) -> None:
    said = run(recipe, "bash", "-c", '. ./path.sh; legonn.sh --asr_tag "my one" --nbpe 77 --help')
    for option in KNOWN.values():
        assert f"--{option.name} " in said
    text = " ".join(said.split())
    assert "tokens, the special ones among them (77)" in text and "(my one)" in text
    assert "--legonn_config --asr_config --mt_config --st_config" in text and "Usage:" in said


# ---- what is left beside results


def test_the_script_beside_results_repeats_its_stage_alone_in_a_fresh_shell(recipe: Path) -> None:
    words = ["--asr_tag", "it's one", "--stage", "10", "--stop_stage", "12", "--asr_args", '--name "a b"']
    first = call(recipe, *words)
    exp = next((recipe / "exp").glob("legonn_it*"))
    for script, command in ((exp / "run.sh", "train"), (exp / "decode/test/run.sh", "decode")):
        before = script.read_text()
        (recipe / "notes").unlink()
        environment = {"NOTES": str(recipe / "notes"), "PATH": "/usr/bin:/bin", "HOME": "/"}
        done = subprocess.run([str(script), "--nj", "9"], cwd="/", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        again = [line.replace("-m espnet2_legonn.", "") for line in (recipe / "notes").read_text().splitlines()]
        assert one(again, command) == one(first, command)
        others = {"stats", "train", "decode", "score"} - {command}
        assert not [c for c in again if c.split()[1] in others], again
        assert script.read_text() == before, "a script that runs is not written over"


def test_a_list_of_symbols_that_is_not_there(recipe: Path) -> None:
    """Its name was taken for a symbol, and stage 13 told of it when all was trained."""
    (said,) = call(recipe, "--nlsyms_txt", "data/nlsyms.tx", fails=True)
    assert "--nlsyms_txt data/nlsyms.tx: no such file" in said


def test_phonemes_that_stay_are_said(recipe: Path) -> None:
    (recipe / "dump/raw/valid/text_phn").touch()
    calls = call(recipe, "--g2p", "lexicon", "--stop_stage", "5")
    assert [c.split()[2] for c in calls if "phonemes" in c] == ["dump/raw/train", "dump/raw/test"]


def test_a_configuration_that_cannot_be_read_ends_a_composition(recipe: Path) -> None:
    """A shell leaves `set -e` out of `$(...)`: an empty configuration went on to the training."""
    script = "set -euo pipefail; . ./path.sh; expdir=exp; . composition.sh; c=$(with_lang conf/none.yaml de); echo $c"
    assert "conf/none.yaml: No such file" in run(recipe, "bash", "-c", script, fails=True)
