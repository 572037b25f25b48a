"""LegoNN in ESPnet's own tasks: shapes and gradients, then training and decoding by ESPnet alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.training.compat import load
from espnet2_legonn.training.stock import BeamConvEncoder, LegoNNDecoder, LegoNNEncoder, WEmbEncoder

FEATURES, D, V = 10, 8, 7
EXACT = {"rtol": 0, "atol": 1e-9}  # in float64
SIZES: dict[str, Any] = {
    "output_size": D,
    "attention_heads": 2,
    "linear_units": 12,
    "num_blocks": 1,
    "dropout_rate": 0.0,
    "length_ratio": "2/3",
    "max_length": 20,
    "length_blocks": 1,
}
BEAM_CONV = {"k": 3, "embed_size": 4}
FAMILY = [(LegoNNEncoder, {}), (WEmbEncoder, {"receptive_field": 3}), (BeamConvEncoder, BEAM_CONV)]


class DummyCTC(nn.Module):
    """The part of ESPnet's CTC that an encoder may use."""

    def __init__(self) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(D, V)

    def log_softmax(self, h: torch.Tensor) -> torch.Tensor:
        return self.ctc_lo(h).log_softmax(-1)


def encoder_of(kind: type[LegoNNEncoder], **options: Any) -> tuple[LegoNNEncoder, dict[str, Any]]:
    """An encoder as ESPnet's ASR model would have it, and what the model would call it with."""
    encoder = kind(FEATURES, **{**SIZES, **options})
    if not getattr(encoder, "interctc_use_conditioning", False):
        return encoder, {}
    encoder.conditioning_layer = nn.Linear(V, D)  # what ESPnetASRModel does
    return encoder, {"ctc": DummyCTC()}


def outputs(encoded: tuple[Any, torch.Tensor, None]) -> list[torch.Tensor]:
    """Encoder output and intermediate outputs."""
    out = encoded[0]
    return [out[0], *(h for _, h in out[1])] if isinstance(out, tuple) else [out]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind, options", FAMILY)
def test_encoders_do_not_see_padding(kind: type[LegoNNEncoder], options: dict[str, Any]) -> None:
    encoder, more = encoder_of(kind, **options)
    encoder.eval()
    lengths = torch.tensor([31, 18, 1])
    batch = torch.full((3, 35, FEATURES), float("nan"))  # longer than its longest item, and garbage
    items = [torch.randn(n, FEATURES) for n in lengths]
    for row, item in zip(batch, items):
        row[: len(item)] = item
    together = encoder(batch, lengths, **more)
    assert together[1].tolist() == [6, 4, 1]  # ceil(ceil(n / 4) * 2/3)
    for out in outputs(together):
        assert out.shape == (3, 6, D) and out.isfinite().all()
        assert out[1, 4:].abs().max() == 0
    for i, item in enumerate(items):
        alone = encoder(item[None], lengths[i : i + 1], **more)
        for a, b in zip(outputs(alone), outputs(together), strict=True):
            torch.testing.assert_close(a[0], b[i, : a.shape[1]], **EXACT)


@pytest.mark.parametrize("kind, options, through", [(WEmbEncoder, {}, True), (BeamConvEncoder, BEAM_CONV, False)])
def test_gradient_of_the_decoder_passes_wemb_alone(
    kind: type[LegoNNEncoder], options: dict[str, Any], through: bool
) -> None:
    encoder, more = encoder_of(kind, **options)
    (ingested, [(layer, h)]), _, _ = encoder(torch.randn(2, 20, FEATURES), torch.tensor([20, 15]), **more)
    assert layer == SIZES["num_blocks"] and h.requires_grad
    ingested[..., 0].sum().backward()
    producer = [encoder.conv, encoder.body, encoder.length_control, more["ctc"]]
    seen = [p.grad is not None and bool(p.grad.abs().sum() > 0) for m in producer for p in m.parameters()]
    assert (sum(seen) > len(seen) // 2) if through else not any(seen)
    assert all(p.grad is not None for p in encoder.ingestor.parameters())


def test_ingestor_takes_the_place_of_the_conditioning_layer() -> None:
    encoder, _ = encoder_of(WEmbEncoder)
    assert not hasattr(encoder, "conditioning_layer")
    assert encoder.ingestor.embed.weight.shape == (V, D)
    assert "ingestor.embed.weight" in encoder.state_dict()


def test_wrong_encoder_options_are_named() -> None:
    for ratio in ("0", "-1", "1/0", "half"):
        with pytest.raises(ConfigError, match=r"encoder_conf\.length_ratio: .* positive number or a quotient"):
            encoder_of(LegoNNEncoder, length_ratio=ratio)
    with pytest.raises(ConfigError, match=r"output_size: 9 must be even and a multiple of attention_heads \(3\)"):
        encoder_of(LegoNNEncoder, output_size=9, attention_heads=3)
    with pytest.raises(ConfigError, match="receptive_field: 2 must be odd"):
        encoder_of(WEmbEncoder, receptive_field=2)
    with pytest.raises(ConfigError, match=r"k: 8 must lie between 1 and 7"):
        encoder_of(BeamConvEncoder, k=8)
    with pytest.raises(ConfigError, match=r"encoder's output_size: 6 must be even and a multiple .* \(4\)"):
        LegoNNDecoder(V, 6)


def test_an_encoder_without_ctc_layer_says_what_to_set() -> None:
    encoder, _ = encoder_of(WEmbEncoder)
    with pytest.raises(ConfigError, match=r"set model_conf\.ctc_weight above 0"):
        encoder(torch.randn(1, 9, FEATURES), torch.tensor([9]), ctc=None)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tie", [True, False])
def test_decoder_scores_as_it_is_trained(tie: bool) -> None:
    decoder = LegoNNDecoder(V, D, 2, 12, 2, tie=tie).eval()
    ids, memory = torch.randint(1, V, (3, 5)), torch.randn(3, 4, D)
    ids[:, 0] = V - 1
    logits, lengths = decoder(memory, torch.full((3,), 4), ids, torch.full((3,), 5))
    assert logits.shape == (3, 5, V) and lengths.tolist() == [5, 5, 5]
    wanted = logits.log_softmax(-1)
    states: list[Any] = [decoder.batch_init_state(m) for m in memory]
    for i in range(5):  # three utterances, a hypothesis each
        scores, states = decoder.batch_score(ids[:, : i + 1], states, memory)
        torch.testing.assert_close(scores, wanted[:, i], **EXACT)
    state = None
    for i in range(2, 5):  # one hypothesis, starting from a prefix
        score, state = decoder.score(ids[1, : i + 1], state, memory[1])
        torch.testing.assert_close(score, wanted[1, i], **EXACT)


@pytest.mark.usefixtures("float64")
def test_hypotheses_of_one_utterance_may_change_places() -> None:
    decoder = LegoNNDecoder(V, D, 2, 12, 2).eval()
    memory = torch.randn(4, D).expand(3, -1, -1)
    start = decoder.batch_init_state(memory[0])
    _, [state] = decoder.batch_score(torch.tensor([[V - 1]]), [start], memory[:1])
    _, states = decoder.batch_score(torch.tensor([[V - 1, 1], [V - 1, 2]]), [state, state], memory[:2])
    ids = torch.tensor([[V - 1, 2, 3], [V - 1, 1, 4], [V - 1, 2, 5]])
    scores, after = decoder.batch_score(ids, [decoder.select_state(states, i) for i in (1, 0, 1)], memory)
    logits, _ = decoder(memory, torch.full((3,), 4), ids, torch.full((3,), 3))
    torch.testing.assert_close(scores, logits[:, -1].log_softmax(-1), **EXACT)
    assert all(s.sources is start.sources for s in after)  # kept once, not once a hypothesis


@pytest.mark.usefixtures("float64")
def test_decoder_does_not_see_padding() -> None:
    decoder = LegoNNDecoder(V, D, 2, 12, 2).eval()
    ids, memory = torch.randint(1, V, (1, 5)), torch.randn(1, 6, D)
    whole, _ = decoder(memory, torch.tensor([4]), ids, torch.tensor([3]))
    part, _ = decoder(memory[:, :4], torch.tensor([4]), ids[:, :3], torch.tensor([3]))
    torch.testing.assert_close(whole[:, :3], part, **EXACT)


def test_importing_the_package_registers_nothing() -> None:
    code = (
        "import sys, espnet2_legonn; espnet2_legonn.register;"
        "print([m for m in sys.modules if m.split('.')[0] in ('espnet', 'espnet2', 'espnetez')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Below, ESPnet's tasks: they take ten seconds to import.

TEXTS = {"utt1": "ab ba", "utt2": "abba", "utt3": "b a", "utt4": "aab"}
SIZE_OPTIONS = [f"--encoder_conf={k}={v}" for k, v in {**SIZES, "output_size": 16}.items()]
DECODER_OPTIONS = ["--decoder", "legonn", "--decoder_conf", "num_blocks=1", "--decoder_conf", "attention_heads=2"]
SPEECH_OPTIONS = ["--frontend_conf", "n_fft=256", "--frontend_conf", "hop_length=80", "--frontend_conf", "n_mels=20"]


@pytest.fixture(scope="module")
def registered() -> None:
    """The classes are known to ESPnet."""
    from espnet2_legonn import register

    register()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four utterances of noise with texts in two languages, and a token list of characters."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    scp = []
    for i, name in enumerate(TEXTS):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(8000 + 1600 * i), 16000)
        scp.append(f"{name} {folder / name}.wav\n")
    (folder / "wav.scp").write_text("".join(scp))
    (folder / "text").write_text("".join(f"{name} {text}\n" for name, text in TEXTS.items()))
    (folder / "src_text").write_text("".join(f"{name} {text[::-1]}\n" for name, text in TEXTS.items()))
    (folder / "tokens.txt").write_text("\n".join(["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]) + "\n")
    return folder


def collect_and_train(main: Callable[..., int | None], data: Path, names: dict[str, str], options: list[str]) -> Path:
    """ESPnet's stages 10 and 11 with two updates; the experiment's folder."""
    stats, exp = data.parent / "stats", data.parent / "exp"
    files = [
        f"--{part}_data_path_and_name_and_type={data / file},{name}"
        for part in ("train", "valid")
        for file, name in names.items()
    ]
    common = [
        "--token_list", str(data / "tokens.txt"), "--token_type", "char",
        "--batch_type", "unsorted", "--batch_size", "2", "--num_workers", "0",
        "--num_att_plot", "0", "--use_matplotlib", "false", "--use_tensorboard", "false",
        *options, *files,
    ]  # fmt: skip
    shapes = [f"--{part}_shape_file={data / next(iter(names))}" for part in ("train", "valid")]
    assert not main(cmd=["--collect_stats", "true", "--output_dir", str(stats), *common, *shapes])
    first = next(iter(names.values())).split(",")[0]
    shapes = [f"--{part}_shape_file={stats / part / first}_shape" for part in ("train", "valid")]
    if first == "speech":
        common += ["--normalize", "global_mvn", "--normalize_conf", f"stats_file={stats}/train/feats_stats.npz"]
    schedule = ["--optim", "adamw", "--scheduler", "inverse_sqrt", "--scheduler_conf", "warmup_steps=10"]
    assert not main(cmd=["--max_epoch", "1", "--output_dir", str(exp), *common, *shapes, *schedule])
    return exp


def check_gradients(
    task: Any, exp: Path, batch: dict[str, torch.Tensor], parts: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Gradients of the trained model, reloaded, reach each parameter, and those parts in earnest; its statistics."""
    model, _ = task.build_model_from_file(exp / "config.yaml", exp / "1epoch.pth")
    model.train()
    loss, stats, _ = model(**batch)
    assert loss.isfinite()
    loss.backward()
    missed = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missed, missed
    for part in parts:
        grads = [p.grad.abs().sum() for n, p in model.named_parameters() if n.startswith(part + ".")]
        assert grads and max(grads) > 0, part
    return stats


def speech_batch() -> dict[str, torch.Tensor]:
    text = torch.tensor([[3, 4, 2, 4, 3], [3, 4, 3, -1, -1]])
    return {
        "speech": torch.randn(2, 12000),
        "speech_lengths": torch.tensor([12000, 9000]),
        "text": text,
        "text_lengths": torch.tensor([5, 3]),
    }


def stock_speech2text() -> type:
    """ESPnet's own decoder; what of it needs ci_sdr stays out of the way."""
    return load("espnet2.bin.asr_inference").Speech2Text


@pytest.mark.slow
def test_registering_twice_is_registering_once(registered: None) -> None:
    from espnet2_legonn import register
    from espnet2_legonn.training.register import TASK_TABLES
    from espnet2_legonn.training.schedulers import InverseSquareRootLR
    from espnet2_legonn.training.task import LegoNNTask

    def names() -> list[list[str]]:
        tasks = [load(f"espnet2.tasks.{name}") for name in ("asr", "st", "mt")]
        return [list(c.classes) for t in tasks for c in (t.encoder_choices, t.decoder_choices)]

    before = names()
    register()
    assert names() == before
    legonn = [[n for n in group if n.startswith("legonn")] for group in before]
    asr = [["legonn", "legonn_wemb", "legonn_beam_conv", "legonn_chain"], ["legonn", "legonn_chain"]]
    assert legonn == [*asr, ["legonn"], ["legonn"], [], ["legonn"]]
    assert load("espnet2.tasks.abs_task").scheduler_classes["inverse_sqrt"] is InverseSquareRootLR
    for module, table in TASK_TABLES.items():
        if module in sys.modules:  # register() could import it
            assert getattr(sys.modules[module], table)["legonn"] is LegoNNTask


@pytest.mark.slow
@pytest.mark.parametrize("encoder, own", [("legonn_wemb", "receptive_field"), ("legonn_beam_conv", "embed_size")])
def test_options_are_shown_with_their_defaults(
    registered: None, monkeypatch: pytest.MonkeyPatch, encoder: str, own: str
) -> None:
    argv = ["asr_train", "--encoder", encoder, "--encoder_conf", "length_ratio=1/3", "--decoder", "legonn"]
    monkeypatch.setattr(sys, "argv", [*argv, "--scheduler", "inverse_sqrt"])  # --print_config reads it
    config = load("espnet2.tasks.asr").ASRTask.get_default_config()
    assert {"output_size", "max_length", "length_blocks", "ingestor_blocks", own} <= set(config["encoder_conf"])
    assert config["encoder_conf"]["length_ratio"] == "1/3"
    assert config["decoder_conf"]["tie"] is True
    assert config["scheduler_conf"]["warmup_steps"] == 4000


@pytest.mark.slow
@pytest.mark.parametrize("encoder, options", [("legonn_wemb", []), ("legonn_beam_conv", ["--encoder_conf=k=3"])])
def test_stock_asr_trains_and_decodes_legonn(registered: None, data: Path, encoder: str, options: list[str]) -> None:
    from espnet2_legonn.bin.asr_train import main

    weights = ["--model_conf", "ctc_weight=0.5", "--model_conf", "interctc_weight=0.999"]
    options = ["--encoder", encoder, *SIZE_OPTIONS, *options, *SPEECH_OPTIONS, *weights, *DECODER_OPTIONS]
    exp = collect_and_train(main, data, {"wav.scp": "speech,sound", "text": "text,text"}, options)
    parts = ("encoder.conv", "encoder.length_control", "encoder.ingestor.embed", "encoder.ingestor.encoder", "decoder")
    stats = check_gradients(load("espnet2.tasks.asr").ASRTask, exp, speech_batch(), parts)
    ctc, interface_ctc, ce, loss = (float(stats[k]) for k in ("loss_ctc", "loss_interctc_layer1", "loss_att", "loss"))
    assert loss == pytest.approx(0.5 * (0.001 * ctc + 0.999 * interface_ctc) + 0.5 * ce, rel=1e-5)

    decode = stock_speech2text()(
        exp / "config.yaml", exp / "1epoch.pth", beam_size=3, ctc_weight=0.0, maxlenratio=-6
    )
    assert type(decode.beam_search).__name__ == "BatchBeamSearch"
    results, interface = decode(np.random.default_rng(1).standard_normal(12000).astype(np.float32))
    text, tokens, _, hypothesis = results[0]
    assert isinstance(text, str) and len(tokens) <= 6 and np.isfinite(float(hypothesis.score))
    assert list(interface) == [1] and set(interface[1]) <= {"<unk>", "<space>", "a", "b"}


@pytest.mark.slow
def test_stock_asr_without_ctc_is_refused(
    registered: None, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from espnet2_legonn.bin.asr_train import main

    options = ["--encoder", "legonn_wemb", *SIZE_OPTIONS, *SPEECH_OPTIONS, *DECODER_OPTIONS]
    options += ["--model_conf", "ctc_weight=0.0"]
    with pytest.raises(AssertionError):
        collect_and_train(main, data, {"wav.scp": "speech,sound", "text": "text,text"}, options)
    assert "ConfigError:" in (said := capsys.readouterr().err) and "set model_conf.ctc_weight above 0" in said


@pytest.mark.slow
def test_stock_joint_decoding_of_the_plain_encoder(registered: None, data: Path) -> None:
    from espnet2_legonn.bin import asr_inference
    from espnet2_legonn.bin.asr_train import main

    options = ["--encoder", "legonn", *SIZE_OPTIONS, *SPEECH_OPTIONS, *DECODER_OPTIONS]
    exp = collect_and_train(main, data, {"wav.scp": "speech,sound", "text": "text,text"}, options)
    decode = stock_speech2text()(
        exp / "config.yaml", exp / "1epoch.pth", beam_size=3, ctc_weight=0.3
    )
    assert isinstance(decode(np.random.default_rng(1).standard_normal(12000).astype(np.float32))[0][0], str)
    words = ["--asr_train_config", str(exp / "config.yaml"), "--asr_model_file", str(exp / "1epoch.pth")]
    words += ["--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound", "--output_dir", str(exp / "decode")]
    asr_inference.main([*words, "--beam_size", "2", "--maxlenratio", "-4", "--ngpu", "0", "--num_workers", "0"])
    found = (exp / "decode/1best_recog/text").read_text().splitlines()
    assert len(found) == len((data / "wav.scp").read_text().splitlines())


@pytest.mark.slow
def test_stock_st_trains(registered: None, data: Path) -> None:
    weights = [f"--model_conf={w}" for w in ("asr_weight=0.3", "mtlalpha=1.0")]
    source = ["--src_token_list", str(data / "tokens.txt"), "--src_token_type", "char"]
    options = ["--encoder", "legonn", *SIZE_OPTIONS, *SPEECH_OPTIONS, *weights, *DECODER_OPTIONS, *source]
    task = load("espnet2.tasks.st").STTask
    names = {"wav.scp": "speech,sound", "text": "text,text", "src_text": "src_text,text"}
    exp = collect_and_train(task.main, data, names, options)
    batch = speech_batch()
    batch |= {"src_text": batch["text"].clone(), "src_text_lengths": batch["text_lengths"]}
    stats = check_gradients(task, exp, batch, ("encoder.length_control", "decoder"))
    assert float(stats["loss_asr"]) > 0


@pytest.mark.slow
def test_stock_mt_trains_and_decodes(registered: None, data: Path) -> None:
    from espnet2_legonn.bin import mt_inference
    from espnet2_legonn.bin.mt_train import main

    sizes = [f"--encoder_conf={o}" for o in ("output_size=16", "attention_heads=2", "linear_units=12", "num_blocks=1")]
    source = ["--src_token_list", str(data / "tokens.txt"), "--src_token_type", "char"]
    options = ["--encoder", "transformer", "--encoder_conf", "input_layer=null", *sizes, *DECODER_OPTIONS, *source]
    exp = collect_and_train(main, data, {"src_text": "src_text,text", "text": "text,text"}, options)
    text, lengths = speech_batch()["text"], speech_batch()["text_lengths"]
    batch = {"text": text, "text_lengths": lengths, "src_text": text.clone(), "src_text_lengths": lengths}
    check_gradients(load("espnet2.tasks.mt").MTTask, exp, batch, ("encoder", "decoder.body", "decoder.embed"))
    decode = load("espnet2.bin.mt_inference").Text2Text(
        exp / "config.yaml", exp / "1epoch.pth", beam_size=3, ctc_weight=0.0
    )
    assert isinstance(decode(text[0])[0][0], str)
    words = ["--mt_train_config", str(exp / "config.yaml"), "--mt_model_file", str(exp / "1epoch.pth")]
    words += ["--data_path_and_name_and_type", f"{data}/src_text,src_text,text", "--output_dir", str(exp / "decode")]
    mt_inference.main([*words, "--beam_size", "2", "--maxlenratio", "1", "--ngpu", "0", "--num_workers", "0"])
    assert (exp / "decode/1best_recog/text").is_file()
