from __future__ import annotations

import re

import pytest

from espnet2_legonn.data import cli
from espnet2_legonn.data.datadir import DataDir, validate

SUBCOMMANDS = sorted(cli.EXAMPLES)


def test_all_subcommands_are_there():
    assert SUBCOMMANDS == sorted(
        "validate fix combine subset copy relabel perturb format filter vocab phonemes normalize".split()
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
        ["relabel", f"{tmp_path}/dev", f"{tmp_path}/dev3", f"{tmp_path}/dev/text"],
        ["combine", f"{tmp_path}/both", f"{tmp_path}/dev2", f"{tmp_path}/train"],
        ["fix", f"{tmp_path}/train"],
    ]
    for argv in run:
        assert cli.main(argv) == 0, capsys.readouterr().err
    assert validate(tmp_path / "train") == 4
    assert list(DataDir(tmp_path / "train").table("text_phn")) == ["a-1", "a-2", "sp0.9-a-1", "sp0.9-a-2"]
    told = capsys.readouterr().out
    assert "valid, 3 utterances" in told and "wrote 6, kept 0" in told and "dropped 2: shorter than 0.3 s" in told


def test_translation_data(tmp_path, write, capsys, says):
    folder = write("mt", {"src_text": "a x y z w\nb x\n", "text": "a p\nb q\n", "utt2spk": "a a\nb b\n"})
    assert cli.main(["filter", f"{folder}", f"{tmp_path}/out", "--max-tokens", "250", "--max-ratio", "1.5"]) == 0
    assert "dropped 1: length ratio above 1.5" in capsys.readouterr().out
    for unit in ("char", "word"):
        texts = [f"{folder}/text", f"{folder}/src_text"]
        assert cli.main(["vocab", f"{tmp_path}/{unit}", *texts, "--unit", unit]) == 0
    (tmp_path / "plain").write_text("A\n!\n")
    plain = ["--input", f"{tmp_path}/plain", "--output", f"{tmp_path}/plain.lc", "--plain"]
    assert "2 lines, 1 of them empty after lc.rm" in says(cli.main, ["normalize", "--case", "lc.rm", *plain])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["validate", "nowhere"], "DataError:\nnowhere: no such data directory"),
        (["vocab", "out", "text", "--unit", "bpe"], "unit bpe needs --vocab_size"),
        (["format", "a", "b", "--fs", "quick"], "sampling rate 'quick': write Hz or kHz"),
    ],
)
def test_faults_of_data_end_with_2_and_no_traceback(argv, message, says):
    told = says(cli.main, argv, 2)
    assert message in told and "Traceback" not in told


@pytest.mark.parametrize("argv", [[], ["unknown"], ["fix", "d", "--nonsense"], ["subset", "a", "b"]])
def test_faults_of_usage_end_with_2(argv, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(argv)
    assert done.value.code == 2


def test_validate_looks_at_sound(tmp_path, write, tone, good, says):
    good["wav.scp"] = f"r1 {tone('r1.wav')}\nr2 {tone('r2.wav', fs=8000)}\n"
    folder = write("d", good)
    assert cli.main(["validate", f"{folder}", "--audio"]) == 0
    told = says(cli.main, ["validate", f"{folder}", "--audio", "--fs", "16k"], 2)
    assert "wav.scp:2: 'r2': " in told and "is sampled at 8000 Hz, 16000 Hz expected" in told and "r1" not in told


def test_seconds_are_counted_at_the_rate_of_the_audio(tmp_path, write, tone, capsys):
    """Limits at twice the rate would take every utterance for half as long."""
    files = {"wav.scp": f"u {tone('u.wav', fs=8000)}\n", "utt2num_samples": "u 8000\n", "utt2spk": "u u\n"}
    limits = ["--max_wav_duration", "20", "--fs"]
    assert cli.main(["filter", f"{write('d', files)}", f"{tmp_path / 'out'}", *limits, "16k"]) == 2
    assert "is sampled at 8000 Hz, 16000 Hz expected" in capsys.readouterr().err
    assert cli.main(["filter", f"{tmp_path / 'd'}", f"{tmp_path / 'out'}", *limits, "8k"]) == 0


def test_phonemes_are_made_of_a_valid_directory_only(tmp_path, write, good, says):
    (tmp_path / "lexicon").write_text("the DH AH0\n")
    folder = write("d", good | {"text": "a-1 the\na-2 the\n", "text_phn": "of an earlier state\n"})
    told = says(cli.main, ["phonemes", f"{folder}", "--backend", "lexicon", "--lexicon", f"{tmp_path / 'lexicon'}"], 2)
    assert "utt2spk:3: 'b-1' is not in text" in told and "text_phn" not in told


def test_sound_below_the_rate_it_is_written_at_is_counted(tmp_path, write, tone, capsys):
    folder = write("d", {"wav.scp": f"u {tone('u.wav', fs=8000)}\n", "utt2spk": "u u\n"})
    assert cli.main(["format", f"{folder}", f"{tmp_path / 'out'}", "--fs", "16k"]) == 0
    assert "1 utterances were sampled at a lower rate than they are written at" in capsys.readouterr().out


def test_the_normaliser_of_sentencepiece_is_an_option(tmp_path, write, capsys):
    folder = write("d", {"text": "u ＡＢ ab\n"})
    command = ["vocab", f"{tmp_path / 'v'}", f"{folder / 'text'}", "--unit", "bpe", "--vocab_size", "12"]
    assert cli.main(command) == 0 and "normaliser identity" in capsys.readouterr().out
    assert cli.main([*command, "--normalizer", "nfkc"]) == 0 and "normaliser nfkc" in capsys.readouterr().out
