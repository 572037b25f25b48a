from __future__ import annotations

import re

import pytest

from espnet2_legonn.data import cli
from espnet2_legonn.data.datadir import DataDir, validate

SUBCOMMANDS = sorted(cli.EXAMPLES)


def test_all_subcommands_are_there():
    assert SUBCOMMANDS == sorted(
        "validate fix combine subset copy perturb format filter vocab phonemes normalize".split()
    )


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_has_an_example_that_parses(name, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([name, "--help"])
    assert done.value.code == 0
    told = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"example: {cli.PROG} {name} {cli.EXAMPLES[name]}" in told
    assert callable(cli.get_parser().parse_args([name, *cli.EXAMPLES[name].split()]).run)


def test_stages_of_a_speech_recipe(tmp_path, write, tone, good, capsys):
    good["wav.scp"] = f"r1 {tone('r1.wav')}\nr2 {tone('r2.wav', 0.2)}\n"
    raw = write("raw", good)
    (tmp_path / "lexicon").write_text("the DH AH0\ncat K AE1 T\nsat S AE1 T\non AA1 N\na AH0\nmat M AE1 T\n")
    run = [
        ["validate", f"{raw}", "--audio"],
        ["normalize", "--case", "lc.rm", "--input", f"{raw}/text", "--output", f"{raw}/text"],
        ["phonemes", f"{raw}", "--backend", "lexicon", "--lexicon", f"{tmp_path}/lexicon", "--strip-stress"],
        ["perturb", f"{raw}", f"{tmp_path}/sp", "--factors", "0.9", "1.0"],
        ["format", f"{tmp_path}/sp", f"{tmp_path}/org", "--fs", "8k", "--audio-format=wav"],
        ["filter", f"{tmp_path}/org", f"{tmp_path}/train", "--fs", "8k", "--min_wav_duration", "0.3"],
        ["vocab", f"{tmp_path}/bpe", f"{tmp_path}/train/text", "--unit", "bpe", "--vocab_size", "15"],
        ["vocab", f"{tmp_path}/phn", f"{tmp_path}/train/text_phn", "--unit", "phn"],
        ["subset", f"{tmp_path}/train", f"{tmp_path}/dev", "--first", "1"],
        ["copy", f"{tmp_path}/dev", f"{tmp_path}/dev2", "--utt-prefix", "x-", "--spk-prefix", "x-"],
        ["combine", f"{tmp_path}/both", f"{tmp_path}/dev2", f"{tmp_path}/train"],
        ["fix", f"{tmp_path}/train"],
    ]
    for argv in run:
        assert cli.main(argv) == 0, capsys.readouterr().err
    assert validate(tmp_path / "train") == 4
    assert list(DataDir(tmp_path / "train").table("text_phn")) == ["a-1", "a-2", "sp0.9-a-1", "sp0.9-a-2"]
    told = capsys.readouterr().out
    assert (
        "valid, 3 utterances" in told
        and "wrote 6, kept 0" in told
        and "dropped 2: shorter than 0.3 s" in told
    )


def test_translation_data(tmp_path, write, capsys):
    folder = write("mt", {"src_text": "a x y z w\nb x\n", "text": "a p\nb q\n", "utt2spk": "a a\nb b\n"})
    assert (
        cli.main(["filter", f"{folder}", f"{tmp_path}/out", "--max-tokens", "250", "--max-ratio", "1.5"]) == 0
    )
    assert "dropped 1: length ratio above 1.5" in capsys.readouterr().out
    for unit in ("char", "word"):
        texts = [f"{folder}/text", f"{folder}/src_text"]
        assert cli.main(["vocab", f"{tmp_path}/{unit}", *texts, "--unit", unit]) == 0
    (tmp_path / "plain").write_text("A\n!\n")
    plain = ["--input", f"{tmp_path}/plain", "--output", f"{tmp_path}/plain.lc", "--plain"]
    assert cli.main(["normalize", "--case", "lc.rm", *plain]) == 0
    assert "2 lines, 1 of them empty after lc.rm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["validate", "nowhere"], "error: nowhere: no such data directory"),
        (["vocab", "out", "text", "--unit", "bpe"], "unit bpe needs --vocab_size"),
        (["format", "a", "b", "--fs", "quick"], "sampling rate 'quick': write Hz or kHz"),
    ],
)
def test_faults_of_data_end_with_1_and_no_traceback(argv, message, capsys):
    assert cli.main(argv) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


@pytest.mark.parametrize("argv", [[], ["unknown"], ["fix", "d", "--nonsense"], ["subset", "a", "b"]])
def test_faults_of_usage_end_with_2(argv, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == 2
