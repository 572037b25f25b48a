"""What the stage script calls: jobs, data of a chain, decoding into ESPnet's folders, scoring, plugging."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from espnet2_legonn import LegoNN
from espnet2_legonn.bin import legonn_average, legonn_inference, legonn_stage
from espnet2_legonn.data.arpa import write_arpa
from espnet2_legonn.data.ngram import estimate
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import ConfigError, DataError, LegoNNError
from espnet2_legonn.model.description import parse
from espnet2_legonn.recipes import stages, validation
from espnet2_legonn.recipes.jobs import count_keys, module, run, split_keys
from espnet2_legonn.search.options import BeamOptions
from tests.says import Says
from tests.train.toys import DECODER, ENCODER, MODULES, PRONUNCIATION, RECOGNISER, Corpus, config, control

ROOT = Path(__file__).resolve().parents[2]
RUN_PL = f"{sys.executable} {ROOT}/egs2/TEMPLATE/legonn1/run.pl"
FILES = ("text", "token", "token_int", "score")


def build(modules: list[dict[str, Any]], seed: int = 0) -> LegoNN:
    """Random weights, large enough that answers differ from input to input."""
    torch.manual_seed(seed)
    data = config(modules)
    chain = LegoNN.from_config({"vocabs": data["vocabs"], "modules": modules})
    with torch.no_grad():
        for name, parameter in chain.named_parameters():
            parameter.mul_(6 if "ctc_lo" in name else 2)
    return chain.eval()


FIRST = {**ENCODER, "length_control": control(ratio="3/2")}


@pytest.fixture(scope="module")
def exp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([FIRST, DECODER]).save(tmp_path_factory.mktemp("exp") / "pair")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directories ``train`` and ``valid``."""
    return Corpus(tmp_path_factory.mktemp("corpus") / "data").write().root


def subset(data: Path, out: Path, number: int) -> Path:
    """The first utterances of a data directory, with two speakers."""
    out.mkdir(parents=True)
    for name in ("src_text", "text", "text_phn", "wav.scp"):
        lines = (data / name).read_text().splitlines(keepends=True)[:number]
        (out / name).write_text("".join(lines))
    keys = [line.split()[0] for line in (out / "text").read_text().splitlines()]
    (out / "utt2spk").write_text("".join(f"{key} spk{i % 2}\n" for i, key in enumerate(keys)))
    return out


# ---- jobs


@pytest.mark.parametrize(("number", "sizes"), [(1, [5]), (2, [2, 3]), (5, [1] * 5), (9, [1] * 5), (0, [5])])
def test_keys_are_dealt_out_in_blocks(tmp_path: Path, number: int, sizes: list[int]) -> None:
    (tmp_path / "text").write_text("a x\nb y z\nc\nd q\ne v\n")
    assert split_keys(tmp_path / "text", number, tmp_path / "split") == len(sizes)
    parts = [list(read_table(tmp_path / "split" / f"keys.{i + 1}.scp")) for i in range(len(sizes))]
    assert [len(p) for p in parts] == sizes and sum(parts, []) == list("abcde")


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c"])
def test_only_a_newline_ends_a_line(tmp_path: Path, separator: str) -> None:
    """Real text holds Unicode line separators; what follows one is no utterance."""
    (tmp_path / "text").write_text(f"a x{separator}y z\nb y\n", encoding="utf-8")
    assert count_keys(tmp_path / "text") == 2 and list(read_table(tmp_path / "text")) == ["a", "b"]


def test_keys_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file; run the stages before this one"):
        count_keys(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("")
    with pytest.raises(DataError, match="empty: no utterances"):
        split_keys(tmp_path / "empty", 2, tmp_path)


def test_jobs_of_the_launcher(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('said', sys.argv[1:])", "job.JOB", "<unk>", "a b"]
    run(RUN_PL, tmp_path / "logs" / "x.JOB.log", command, 2)
    for job in (1, 2):
        assert f"said ['job.{job}', '<unk>', 'a b']" in (tmp_path / "logs" / f"x.{job}.log").read_text()


def test_a_failing_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LegoNNError, match=r"a job failed; its log is .*x\.\*\.log"):
        run(RUN_PL, tmp_path / "x.JOB.log", ["false"], 2)
    assert "2 / 2 failed" in capfd.readouterr().err


def test_command_of_a_module() -> None:
    assert module("a.b", "--x", Path("y")) == [sys.executable, "-m", "a.b", "--x", "y"]


# ---- data of a chain


def parsed(modules: list[dict[str, Any]]) -> Any:
    given = config(modules)
    return parse({"vocabs": given["vocabs"], "modules": modules})


def test_data_triples(data: Path) -> None:
    folder = data / "train"
    text, speech = parsed(MODULES["tokens"]), parsed(MODULES["speech"])
    assert stages.data_triples(text, folder) == [f"{folder}/src_text,src_text,text", f"{folder}/text,text,text"]
    assert stages.data_triples(text, folder, targets=False) == [f"{folder}/src_text,src_text,text"]
    wanted = [f"{folder}/wav.scp,speech,sound", f"{folder}/text,text,text", f"{folder}/text_phn,text_phn,text"]
    assert stages.data_triples(speech, folder) == wanted
    assert stages.data_triples(parsed([RECOGNISER]), folder) == [wanted[0], wanted[2]], "phonemes alone"


def test_a_vocabulary_with_texts_of_its_own(data: Path, tmp_path: Path) -> None:
    """``text_<vocabulary>`` is what is trained with and scored against, in place of text or text_phn."""
    folder = subset(data / "valid", tmp_path / "test", 4)
    (folder / "text_phn").rename(folder / "text_phones")
    names = [triple.split(",")[1] for triple in stages.data_triples(parsed(MODULES["speech"]), folder)]
    assert names == ["speech", "text", "text_phones"]
    exp = build([FIRST, DECODER]).save(tmp_path / "pair")
    out = infer(exp, folder, tmp_path / "out")
    os.rename(out / "1best_recog" / "text", out / "text")
    (folder / "text_tgt").write_text((out / "text").read_text())
    scores = {name: value for name, _, value in stages.score(exp, folder, out, ["wer"])}
    assert scores[""] == 0 and scores["encoder"] > 0


def test_all_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wav\.scp: this chain needs it; run the stages that make it") as caught:
        stages.data_triples(parsed(MODULES["speech"]), tmp_path)
    assert [fault.split(":")[0].rsplit("/", 1)[1] for fault in caught.value.faults] == ["wav.scp", "text", "text_phn"]


def test_a_chain_that_begins_with_an_ingestor(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decoder: a recipe begins with .* or speech or tokens, not with wemb"):
        stages.data_triples(parsed([DECODER]), tmp_path)


def test_shape_names() -> None:
    assert stages.shape_names(parsed(MODULES["tokens"])) == ["src_text_shape", "text_decoder_shape"]
    assert stages.shape_names(parsed(MODULES["speech"])) == ["speech_shape", "text_decoder_shape"]
    assert stages.shape_names(parsed([RECOGNISER, PRONUNCIATION])) == ["speech_shape", "text_words_shape"]


def test_an_auxiliary_ctc_wants_labels(data: Path) -> None:
    """Phonemes for the CTC of a baseline that decodes words."""
    hybrid = {**RECOGNISER, "output": {"type": "states", "ctc": {"vocab": "phones"}}}
    chain = parsed([hybrid, {**DECODER, "input": {"type": "states"}}])
    names = [triple.split(",")[1] for triple in stages.data_triples(chain, data / "train")]
    assert names == ["speech", "text", "text_phn"]
    assert stages.shape_names(chain) == ["speech_shape", "text_decoder_shape"]
    assert stages.shape_names(parsed([hybrid])) == ["speech_shape", "text_phones_shape"]


def test_an_auxiliary_ctc_is_scored_as_an_interface(data: Path, tmp_path: Path) -> None:
    encoder = {**FIRST, "output": {"type": "states", "ctc": {"vocab": "tgt"}}}
    exp = build([encoder, {**DECODER, "input": {"type": "states"}}]).save(tmp_path / "hybrid")
    folder = subset(data / "valid", tmp_path / "test", 4)
    out = infer(exp, folder, tmp_path / "out")
    os.rename(out / "1best_recog" / "text", out / "text")
    found = stages.score(exp, folder, out, ["wer"])
    assert [(name, metric) for name, metric, _ in found] == [("", "wer"), ("encoder", "wer")]


def test_config_without_a_chain(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("optim: adam\n")
    with pytest.raises(ConfigError, match=r"x\.yaml: describes no chain"):
        stages.chain_config(tmp_path / "x.yaml")


# ---- decoding


def infer(exp: Path, data: Path, out: Path, *options: str, status: int = 0) -> Path:
    given = ["--legonn_train_config", str(exp / "config.yaml"), "--output_dir", str(out)]
    words = ["--data_path_and_name_and_type", f"{data}/src_text,src_text,text"]
    assert legonn_inference.main([*given, *words, *options]) == status
    return out


def tables(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_folders_are_espnets(exp: Path, data: Path, tmp_path: Path) -> None:
    out = infer(exp, data / "valid", tmp_path, "--nbest", "2", "--beam_size", "3")
    folders = ["1best_recog", "2best_recog", "interfaces/encoder"]
    parts = [f"{folder}/scores" for folder in folders[:2]]
    files = [f"{folder}/{file}" for folder in folders for file in FILES]
    assert sorted(tables(out)) == sorted(["made_by.json", "speed.json", *parts, *files])
    keys = list(read_table(data / "valid" / "src_text"))
    for folder in folders:
        found = {file: read_table(out / folder / file) for file in FILES}
        assert all(list(table) == sorted(keys) for table in found.values())
        for key in keys:
            names, ids = found["token"][key].split(), [int(i) for i in found["token_int"][key].split()]
            vocab = LegoNN.from_pretrained(exp).last.ports[1].vocab
            assert [vocab.tokens[i] for i in ids] == names and found["text"][key] == vocab.decode(ids)
            float(found["score"][key])
    for key, parts in read_table(out / "1best_recog" / "scores").items():
        decoder, ctc = (float(part.split("=")[1]) for part in parts.split())
        assert parts.startswith("decoder=-") and " ctc=-" in parts
        length = len(read_table(out / "1best_recog" / "token_int").get(key, "").split()) + 1
        score = float(read_table(out / "1best_recog" / "score")[key])
        assert (0.6 * decoder + 0.4 * ctc) / length == pytest.approx(score, abs=1e-4)
    best, second = (read_table(out / f"{n}best_recog" / "score") for n in (1, 2))
    assert all(float(best[key]) >= float(second[key]) for key in keys)


@pytest.mark.usefixtures("float64")
def test_answers_do_not_depend_on_the_batch(exp: Path, data: Path, tmp_path: Path) -> None:
    one, many = (infer(exp, data / "train", tmp_path / n, "--batch_size", n) for n in ("1", "15"))
    for file in ("text", "token", "token_int"):
        for folder in ("1best_recog", "interfaces/encoder"):
            assert read_table(one / folder / file) == read_table(many / folder / file), file
    scores = [read_table(out / "1best_recog" / "score") for out in (one, many)]
    assert all(float(scores[0][k]) == pytest.approx(float(scores[1][k]), abs=2e-6) for k in scores[0])
    assert len(set(read_table(one / "1best_recog" / "text").values())) > 3, "inputs are told apart"


def test_answers_are_those_of_the_library(exp: Path, data: Path, tmp_path: Path) -> None:
    source = read_table(data / "valid" / "src_text")
    chain = LegoNN.from_pretrained(exp)
    out = infer(exp, data / "valid", tmp_path, "--beam_size", "2")
    assert read_table(out / "1best_recog" / "text") == dict(zip(source, chain(list(source.values()), beam_size=2)))
    greedy = read_table(out / "interfaces" / "encoder" / "text")
    assert greedy == dict(zip(source, chain.marginals(list(source.values())).greedy_texts()))


def test_chain_without_a_decoder_answers_by_ctc(data: Path, tmp_path: Path) -> None:
    """By a prefix beam, or with ctc_weight 0 by its best path."""
    chain = build([FIRST])
    alone = chain.save(tmp_path / "alone")
    out = infer(alone, data / "valid", tmp_path / "greedy", "--ctc_weight", "0")
    greedy = read_table(out / "interfaces" / "encoder" / "text")
    assert read_table(out / "1best_recog" / "text") == greedy
    out = infer(alone, data / "valid", tmp_path / "beam", "--beam_size", "8")
    source = read_table(data / "valid" / "src_text")
    assert read_table(out / "1best_recog" / "text") == dict(zip(source, chain(list(source.values()), beam_size=8)))
    assert read_table(out / "interfaces" / "encoder" / "text") == greedy, "an interface's own text stays greedy"


@pytest.mark.filterwarnings("ignore:.*n-gram")
def test_another_model_of_the_same_name_is_another_decoding(exp: Path, data: Path, tmp_path: Path) -> None:
    vocab, file = LegoNN.from_pretrained(exp).require_text(), tmp_path / "2gram.arpa"

    def decoded(texts: list[list[int]]) -> str:
        write_arpa(file, estimate(texts, len(vocab), 2), vocab)
        out = infer(exp, data / "valid", tmp_path / "out", "--ngram_file", str(file), "--beam_size", "2")
        return str(json.loads((out / "made_by.json").read_text())["search_sha256"])

    assert decoded([[2], [2, 3]]) != decoded([[3, 3, 2], [2]])


def test_key_file(exp: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.scp").write_text("valid03 valid03\nvalid01 valid01\n")
    out = infer(exp, data / "valid", tmp_path / "out", "--key_file", str(tmp_path / "keys.scp"))
    assert list(read_table(out / "1best_recog" / "text")) == ["valid01", "valid03"]


def test_options_from_yaml_and_over_it(exp: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "decode.yaml").write_text("beam_size: 3\nlength_penalty: 0.6\nnbest: 2\nctc_weight: 0.0\n")
    required = ["--legonn_train_config", "x/config.yaml", "--output_dir", "y", "--data_path_and_name_and_type", "a,b,c"]
    args = legonn_inference.parse_args(["--config", str(tmp_path / "decode.yaml"), "--beam_size", "7", *required])
    assert (args.beam_size, args.length_penalty, args.nbest, args.ctc_weight) == (7, 0.6, 2, 0.0)
    left_out = legonn_inference.parse_args(required)
    assert (left_out.ctc_weight, left_out.length_penalty, left_out.temperature) == (None, None, 1.0), "as tuned"
    out = infer(exp, data / "valid", tmp_path / "out", "--config", str(tmp_path / "decode.yaml"), "--temperature", "3")
    source = read_table(data / "valid" / "src_text")
    options = {"beam_size": 3, "length_penalty": 0.6, "nbest": 2, "ctc_weight": 0.0, "temperature": 3.0}
    for uid, (best, _) in zip(source, LegoNN.from_pretrained(exp).generate(list(source.values()), **options)):
        assert float(read_table(out / "1best_recog" / "score")[uid]) == pytest.approx(best.score, abs=1e-4)
        name, value = read_table(out / "1best_recog" / "scores")[uid].split("=")
        assert name == "decoder" and float(value) == pytest.approx(best.log_prob, abs=1e-3), "0 needs no CTC"
    assert (out / "2best_recog" / "text").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "decode.yaml"], r"decode\.yaml: 'beam_sise' is no option \(did you mean 'beam_size'\?\)"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--config", "list.yaml"], r"list\.yaml"),
        (["--beam_size", "0"], "beam_size: 0 is less than 1"),
        (["--nbest", "6"], "nbest: 6 is not between 1 and beam_size"),
        (["--legonn_model_file", "nowhere.pth"], "nowhere.pth: no such weights"),
        (["--key_file", "keys.scp"], r"src_text: no line for nobody"),
        (["--data_path_and_name_and_type", "src_text,src_text"], "src_text,src_text"),
    ],
)
def test_inference_faults(
    exp: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("decode.yaml").write_text("beam_sise: 3\nnbest: 1\n")
    Path("list.yaml").write_text("- beam_size\n")
    Path("keys.scp").write_text("nobody nobody\n")
    infer(exp, data / "valid", tmp_path / "out", *options, status=2)
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_required_options_of_inference(says: Says) -> None:
    assert "required: --legonn_train_config, --output_dir, --data_path" in says(legonn_inference.main, [], 2)


def test_data_of_another_kind(exp: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--legonn_train_config", str(exp / "config.yaml"), "--output_dir", str(tmp_path)]
    assert legonn_inference.main([*given, "--data_path_and_name_and_type", f"{data}/valid/wav.scp,speech,sound"]) == 2
    assert "encoder reads src_text, but the data are speech" in capsys.readouterr().err


def test_two_jobs_equal_one_and_are_scored(
    exp: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    folder = subset(data / "train", tmp_path / "test", 6)
    out = tmp_path / "decoded"
    assert not legonn_stage.main(
        ["decode", "--exp", str(exp), "--data", str(folder), "--out", str(out), "--cmd", RUN_PL, "--nj", "2"]
        + ["--beam_size", "2", "--batch_size", "1"]
    )
    whole = infer(exp, folder, tmp_path / "whole", "--beam_size", "2", "--batch_size", "1")
    assert (out / "scores").read_text().count("decoder=") == (out / "scores").read_text().count("ctc=") == 6
    assert not (out / "interfaces" / "encoder" / "scores").exists()
    for file in FILES[:3]:
        assert (out / file).read_text() == (whole / "1best_recog" / file).read_text(), "the best answer lies on top"
        greedy = Path("interfaces", "encoder", file)
        assert (out / greedy).read_text() == (whole / greedy).read_text()
    words = ["score", "--exp", str(exp), "--data", str(folder), "--decoded", str(out)]
    assert not legonn_stage.main([*words, "--metrics", "wer", "bleu"])
    said = capsys.readouterr().out
    for line in ("test: final output: WER", "test: final output: BLEU", "test: encoder: WER", "test: encoder: BLEU"):
        assert line in said
    assert (out / "score_wer" / "result.json").is_file() and (out / "interfaces" / "encoder" / "score_bleu").is_dir()


def test_scoring_takes_no_options_it_does_not_know(exp: Path, tmp_path: Path, says: Says) -> None:
    words = ["score", "--exp", str(exp), "--data", str(tmp_path), "--decoded", str(tmp_path), "--beam_size", "3"]
    assert "score: unknown options --beam_size 3" in says(legonn_stage.main, words, 2)


def test_decoding_without_data(exp: Path, tmp_path: Path, says: Says) -> None:
    words = ["decode", "--exp", str(exp), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert "src_text: no such file; run the stages before this one" in says(legonn_stage.main, words, 2)


# ---- averaging by decoded score


def test_average_by_decoded_score(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    exp = build([FIRST, DECODER]).save(tmp_path / "exp")
    for epoch in (1, 2, 3):
        state = {f"chain.{k}": v for k, v in build([FIRST, DECODER], epoch).state_dict().items()}
        torch.save(state, exp / f"{epoch}epoch.pth")
    options = ["--data", str(data / "valid"), "--metric", "wer", "--window", "1", "--candidates", "3"]
    assert not legonn_average.main([str(exp), *options, "--limit", "3"])
    lines = capsys.readouterr().out.splitlines()
    scores = {line.split()[1].rstrip(":"): float(line.split()[3]) for line in lines[:-1]}
    assert list(scores) == ["3-3", "2-2", "1-1"] and lines[-1] == str(exp / "valid.decoded.ave.pth")
    best = min(scores, key=lambda label: scores[label])[0]
    chosen = torch.load(exp / "valid.decoded.ave.pth", weights_only=True)
    wanted = torch.load(exp / f"{best}epoch.pth", weights_only=True)
    assert all(torch.equal(chosen[k], wanted[k]) for k in wanted)
    (tmp_path / "decode.yaml").write_text("beam_size: 2\nlength_penalty: 0.6\nctc_weight: 0.0\n")
    caplog.set_level("INFO")
    legonn_average.main([str(exp), *options, "--limit", "1", "--config", str(tmp_path / "decode.yaml")])
    assert "windows are compared with beam 2, length penalty 0.6" in caplog.text


def test_windows_are_chosen_by_the_papers_search(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp, used = build([FIRST, DECODER]).save(tmp_path / "exp"), []
    torch.save({f"chain.{k}": v for k, v in LegoNN.from_pretrained(exp).state_dict().items()}, exp / "1epoch.pth")
    decode = validation.decode_table

    def seeing(chain: LegoNN, inputs: dict[str, str], options: BeamOptions, size: int) -> object:
        used.append((options.beam_size, options.ctc_weight))
        return decode(chain, inputs, options, size)

    monkeypatch.setattr(validation, "decode_table", seeing)
    validation.choose_window(exp, data / "valid", "wer", 1, 1, 1, 3, 2)
    assert used == [(2, 0.0)]


# ---- all of it


@pytest.mark.slow
def test_stages_ten_to_thirteen(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics by two jobs, training through ESPnet's launcher, decoding, scoring."""
    pytest.importorskip("espnet2")
    bins = [str(ROOT / "egs2" / "TEMPLATE" / "legonn1"), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(bins))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(yaml.safe_dump(config(MODULES["tokens"], max_epoch=1), sort_keys=False))
    dirs = ["--config", "train.yaml", "--train", str(data / "train"), "--valid", str(data / "valid")]
    legonn_stage.main(["stats", *dirs, "--out", "exp/stats", "--nj", "2", "--num_workers", "0"])
    lengths = dict(line.split() for line in Path("exp/stats/train/text_decoder_shape").read_text().splitlines())
    assert lengths.keys() == read_table(data / "train" / "text").keys()
    more = ["--num_workers", "0", "--use_matplotlib", "false"]
    legonn_stage.main(["train", *dirs, "--stats_dir", "exp/stats", "--out", "exp/x", *more])
    assert Path("exp/x/1epoch.pth").is_file() and "1epoch results" in Path("exp/x/train.log").read_text()
    test = subset(data / "valid", tmp_path / "test", 5)
    legonn_stage.main(["decode", "--exp", "exp/x", "--data", str(test), "--out", "exp/x/decode/test", "--nj", "2"])
    found = stages.score(Path("exp/x"), test, Path("exp/x/decode/test"), ["wer"])
    assert [(name, metric) for name, metric, _ in found] == [("", "wer"), ("encoder", "wer")]


def test_where_averaging_decodes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (validation.place(1, 4), validation.place(0, 0), threads) == ("cuda", "cpu", [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert validation.place(1, 4) == "cpu" and threads == [4] and "no GPU is available" in caplog.text


def test_configurations_that_would_be_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another file was named, and config.yaml was read; a search that is no mapping ended in a TypeError."""
    (tmp_path / "search.yaml").write_text("- 5\n")
    words = [str(tmp_path), "--data", str(tmp_path), "--config", str(tmp_path / "search.yaml")]
    assert legonn_average.main(words) == 2 and "search.yaml: must be a mapping" in capsys.readouterr().err
    words = ["--legonn_train_config", str(tmp_path / "train.yaml"), "--output_dir", str(tmp_path / "out")]
    assert legonn_inference.main([*words, "--data_path_and_name_and_type", "a,b,c"]) == 2
    assert "train.yaml: give the config.yaml of an experiment or pack" in capsys.readouterr().err
