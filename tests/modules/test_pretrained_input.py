"""Speech models of others as an input, with tiny random ones of the real classes, offline."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from espnet2_legonn import LegoNN
from espnet2_legonn.errors import CheckpointError, ConfigError, DataError
from espnet2_legonn.model import speech_models
from espnet2_legonn.model.parts import pretrained
from espnet2_legonn.model.parts.pretrained import PretrainedInput
from espnet2_legonn.packs.card import read_card
from tests.modules import toys

THERE = importlib.util.find_spec("transformers") is not None
pytestmark = pytest.mark.skipif(not THERE, reason="needs transformers: pip install 'espnet2_legonn[pretrained]'")
transformers: Any = importlib.import_module("transformers") if THERE else None

WIDTH, LAYERS = 16, 2
CONV = {"conv_dim": [8, 8], "conv_kernel": [10, 4], "conv_stride": [5, 4]}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 24,
         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": 8, **CONV}  # fmt: skip
WHISPER = {"d_model": WIDTH, "encoder_layers": LAYERS, "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
           "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 60,
           "num_mel_bins": 12, "max_source_positions": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
           "decoder_start_token_id": 1}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "wav2vec2": ("Wav2Vec2", {**SIZES, "feat_extract_norm": "layer", "do_stable_layer_norm": True}, True),
    "wav2vec2_group": ("Wav2Vec2", {**SIZES, "feat_extract_norm": "group"}, True),
    "hubert": ("Hubert", {**SIZES, "feat_extract_norm": "layer"}, False),
    "wavlm": ("WavLM", {**SIZES, "feat_extract_norm": "layer", "num_buckets": 8, "max_bucket_distance": 16}, True),
    "whisper": ("Whisper", WHISPER, False),
}
PAIRS = {key: value for key, value in SIZES.items() if "conv" not in key}
HALVES = {**PAIRS, "num_mel_bins": 8, "subsampling_conv_channels": 4}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 12}
LAYER = {**SIZES, "feat_extract_norm": "layer"}
KIN: dict[str, tuple[str, dict[str, Any], bool]] = {
    "unispeech": ("UniSpeech", LAYER, True),
    "unispeech-sat": ("UniSpeechSat", LAYER, False),
    "wav2vec2-conformer": ("Wav2Vec2Conformer", LAYER, True),
    "data2vec-audio": ("Data2VecAudio", {**SIZES, "conv_pos_kernel_size": 5}, True),
    "sew": ("SEW", LAYER, False),
    "sew-d": ("SEWD", {**LAYER, "position_buckets": 8, "max_position_embeddings": 16}, True),
    "wav2vec2-bert": ("Wav2Vec2Bert", {**PAIRS, "feature_projection_input_dim": 16}, False),
    "parakeet": ("ParakeetEncoder", HALVES, False),
    "lasr": ("LasrEncoder", HALVES, False),
}
ALL = {**KINDS, **KIN}
MAKERS = {"Wav2Vec2Bert": "SeamlessM4T", "ParakeetEncoder": "Parakeet", "LasrEncoder": "Lasr"}
SAMPLES = [3000, 700, 5111, 5]
ROUNDING = 1e-4  # of float32, which differs with kernels and versions
VOCABS = {"bpe": toys.VOCABS["bpe"]}


def write(folder: Path, name: str) -> Path:
    """A model in the layout of the Hub."""
    kind, sizes, normalize = ALL[name]
    torch.manual_seed(1)
    model = model_class(kind)(getattr(transformers, f"{kind}Config")(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if kind in MAKERS:
        getattr(transformers, f"{MAKERS[kind]}FeatureExtractor")(feature_size=8, num_mel_bins=8).save_pretrained(folder)
    elif kind != "Whisper":
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return folder


def model_class(kind: str) -> Any:
    return getattr(transformers, kind if kind.endswith("Encoder") else f"{kind}Model")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return {name: write(root / name, name) for name in ALL}


def description(folder: Path, **more: Any) -> dict[str, Any]:
    source = {"type": "pretrained", "model": str(folder), **more}
    return {"vocabs": VOCABS, "modules": [toys.encoder("enc", source, "bpe")]}


def chain(folder: Path, **more: Any) -> LegoNN:
    torch.manual_seed(2)
    return LegoNN.from_config(description(folder, **more))


def part(model: LegoNN) -> PretrainedInput:
    assert isinstance(model.last.input, PretrainedInput)
    return model.last.input


def waves() -> list[torch.Tensor]:
    return [0.1 * torch.randn(n) + 0.3 for n in SAMPLES]


@pytest.mark.parametrize("layers", ["weighted", "last", 1])
@pytest.mark.parametrize("name", KINDS)
def test_item_alone_is_item_in_a_batch(name: str, layers: str | int, hub: dict[str, Path]) -> None:
    model = chain(hub[name], layers=layers).eval()
    for fill in (0.0, 0.7, float("nan")):
        assert toys.gap(model.last, waves(), fill) < ROUNDING
    assert part(model).steps(torch.tensor(SAMPLES)).tolist()[-1] == 1, "a click is one step"


@pytest.mark.parametrize("name", KIN)
def test_and_so_it_is_for_their_kin(name: str, hub: dict[str, Path]) -> None:
    """SEW pools two steps to one: an odd number of them is among the lengths."""
    model = chain(hub[name]).eval()
    steps = part(model).steps(torch.tensor(SAMPLES)).tolist()
    assert toys.gap(model.last, waves(), float("nan")) < ROUNDING
    assert steps[-1] == (2 if "sew" in name else 1) and (steps[2] % 2 or "sew" not in name)


@pytest.mark.parametrize("name", [n for n in ALL if n != "whisper"])
def test_states_are_those_of_transformers(name: str, hub: dict[str, Path]) -> None:
    kind, _, normalize = ALL[name]
    source = model_class(kind).from_pretrained(hub[name]).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(hub[name])
    wave = waves()[0]
    heard = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt", return_attention_mask=kind in MAKERS)
    model = chain(hub[name]).eval()
    with torch.no_grad():
        found = source(**heard, output_hidden_states=True)
        states = part(model).hears(wave[None], torch.tensor([len(wave)]))
    assert part(model).config.normalize is normalize
    steps = int(part(model).steps(torch.tensor([len(wave)])))
    assert len(states) == LAYERS + 1 and {state.shape[1] for state in states} == {steps}
    # Frames that an extractor adds are masked there; SEW writes every second state of its layers.
    assert found.last_hidden_state.shape[1] - steps == (name == "wav2vec2-bert")
    torch.testing.assert_close(states[-1], found.last_hidden_state[:, :steps], rtol=0, atol=1e-5)
    theirs = found.hidden_states[1].repeat_interleave(2 if "sew" in name else 1, 1)[:, :steps]
    torch.testing.assert_close(states[1][:, : theirs.shape[1]], theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-bert"])
def test_an_adapter_makes_fewer_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, sizes, normalize = ALL[name]
    monkeypatch.setitem(ALL, name, (kind, {**sizes, **ADAPTER}, normalize))
    model = chain(write(tmp_path, name), layers="last").eval()
    assert toys.gap(model.last, waves(), float("nan")) < ROUNDING
    (state,) = part(model).hears(waves()[0][None], torch.tensor([SAMPLES[0]]))
    assert state.shape[2] == 12 and state.shape[1] == part(model).steps(torch.tensor(SAMPLES))[0]
    assert "input.layers: 1, but an adapter changes the number of steps; give last" in fault(tmp_path, layers=1)


def test_a_step_in_samples(hub: dict[str, Path], tmp_path: Path) -> None:
    """What length control is derived from, before a model is built and after."""
    wanted = {"wav2vec2": 20, "whisper": 320, "wav2vec2-bert": 320, "parakeet": 1280, "lasr": 640}
    for name, samples in wanted.items():
        config = pretrained.PretrainedConfig(str(hub[name]))
        assert PretrainedInput.total_steps(config, 64000.0, 1) == 64000 / samples
        assert PretrainedInput.total_steps(part(chain(hub[name])).config, 64000.0, 1) == 64000 / samples
    assert PretrainedInput.total_steps(pretrained.PretrainedConfig(str(tmp_path / "none")), 640.0, 1) == 2


def test_a_preprocessor_that_hears_in_another_way(hub: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(hub["parakeet"], tmp_path / "model")
    transformers.ParakeetFeatureExtractor(feature_size=8, hop_length=80).save_pretrained(tmp_path / "model")
    assert "its preprocessor hears in another way: hop_length is 80, not 160" in fault(tmp_path / "model")


def test_whisper_hears_what_its_own_extractor_makes(hub: dict[str, Path]) -> None:
    source = transformers.WhisperModel.from_pretrained(hub["whisper"]).eval()
    hears = part(chain(hub["whisper"]).eval()).hears
    assert isinstance(hears, speech_models.Mels)
    extractor = transformers.WhisperFeatureExtractor(feature_size=12, chunk_length=1)
    extractor.n_samples, extractor.nb_max_frames = hears.heard, hears.heard // 160
    wave = waves()[2]
    features = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        found = source.encoder(features).last_hidden_state
        state = hears(wave[None], torch.tensor([len(wave)]))[-1]
    assert state.shape[1] == -(-len(wave) // 320)
    torch.testing.assert_close(state, found[:, : state.shape[1]], rtol=0, atol=1e-4)


def test_whisper_refuses_what_it_cannot_hear(hub: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"0\.9 s, this model hears 0\.8 s"):
        part(chain(hub["whisper"]))(torch.zeros(2, 14000), torch.tensor([14000, 800]))


def losses(model: LegoNN) -> None:
    x, lengths = toys.padded(waves()[:2], 0.0)
    model.losses(x, lengths, {"enc": toys.labels([2, 3], [4])})["enc"].total.backward()


def test_frozen_learns_nothing_and_drops_nothing(hub: dict[str, Path]) -> None:
    model = chain(hub["wav2vec2"]).train()
    losses(model)
    with_gradient = {n.split(".")[3] for n, p in model.named_parameters() if ".input." in n and p.grad is not None}
    assert with_gradient == {"mix", "out"} and not part(model).hears.training
    assert part(model).mix is not None and part(model).mix.grad.abs().sum() > 0


def test_or_learns(hub: dict[str, Path]) -> None:
    model = chain(hub["hubert"], freeze=False, layers="last").train()
    losses(model)
    held = part(model).hears
    assert held.training and sum(p.grad is not None for p in held.parameters()) > 20


@pytest.mark.parametrize("name", ["wav2vec2", "parakeet"])
def test_all_layers_are_mixed_in_training(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that is dropped would have no state; an item of one step has no statistics for a norm."""
    kind, sizes, normalize = ALL[name]
    monkeypatch.setitem(ALL, name, (kind, {**sizes, "layerdrop": 0.9}, normalize))
    model = chain(write(tmp_path, name), freeze=False).train()
    before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    losses(model)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers() if n in before)
    assert all(p.grad is not None for n, p in model.named_parameters() if "norm_out" in n or "final_layer_norm" in n)


# -- packs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_pack_holds_the_weights(name: str, hub: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub[name], folder)
    model = chain(folder).eval()
    model.save(tmp_path / "pack")
    shutil.rmtree(folder)
    loaded = LegoNN.from_pretrained(tmp_path / "pack")
    x, lengths = toys.padded(waves(), 0.0)
    torch.testing.assert_close(loaded.last(x, lengths)[0], model.last(x, lengths)[0], rtol=0, atol=1e-5)
    port = read_card(tmp_path / "pack").modules[0].reads
    assert port.fs == 16000 and port.part == f"pretrained: {folder}, layers weighted"


def test_or_names_them_with_a_digest(hub: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(hub["wavlm"], folder)
    model = chain(folder, hold=False).eval()
    model.save(tmp_path / "pack")
    assert not [n for n in load_file(tmp_path / "pack/weights.safetensors") if ".model." in n]
    assert len(list(model.parameters())) < 40, "the model's own are not counted"
    loaded = LegoNN.from_pretrained(tmp_path / "pack")
    x, lengths = toys.padded(waves(), 0.0)
    torch.testing.assert_close(loaded.last(x, lengths)[0], model.last(x, lengths)[0], rtol=0, atol=1e-5)
    loaded.to(torch.float64)
    assert next(part(loaded).hears.parameters()).dtype == torch.float64, "it moves with the module"
    weights = load_file(folder / "model.safetensors")
    first = next(name for name in weights if name.endswith("q_proj.weight"))
    save_file({**weights, first: weights[first] + 1}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="have SHA-256 .*, not "):
        LegoNN.from_pretrained(tmp_path / "pack")


def test_training_writes_what_makes_it_again(hub: dict[str, Path], tmp_path: Path) -> None:
    from espnet2_legonn.training.task import LegoNNTask

    folder = tmp_path / "model"
    shutil.copytree(hub["hubert"], folder)
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(description(folder)))
    args = LegoNNTask.get_parser().parse_args(["--config", str(path), "--output_dir", str(tmp_path / "exp")])
    model = LegoNNTask.build_model(args)
    kept = yaml.safe_load(yaml.safe_dump({"vocabs": args.vocabs, "modules": args.modules}))
    assert kept["modules"][0]["input"]["architecture"]["hidden_size"] == WIDTH
    shutil.rmtree(folder)
    again = LegoNN.from_config(kept)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.chain.named_parameters()}


# -- what may come from strangers ----------------------------------------------------------------------------------


def fault(folder: Path, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        chain(folder, **more)
    return str(caught.value)


def known(folder: Path, **more: Any) -> dict[str, Any]:
    return {**part(chain(folder)).settled["architecture"], **more}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"attn_implementation": "somebody/kernels"}, "attn_implementation: no key of HubertConfig"),
        ({"auto_map": {"AutoModel": "x--y.Z"}}, "auto_map: no key of HubertConfig"),
        ({"_name_or_path": "x"}, "_name_or_path: no key of HubertConfig"),
        ({"hidden_siz": 3}, "hidden_siz: no key of HubertConfig (did you mean 'hidden_size'?)"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: 1000000 is more than 1000"),
        ({"conv_dim": [8, 10**9]}, "conv_dim: 1000000000 is more than"),
        ({"add_adapter": True}, "add_adapter: no key of HubertConfig"),
        ({"hidden_act": "os.system"}, "input.architecture: "),
        ({"model_type": "bert"}, "a model of type 'bert' is not one of wav2vec2, hubert, wavlm, whisper"),
    ],
)
def test_an_architecture_is_plain_data(more: dict[str, Any], words: str, hub: dict[str, Path]) -> None:
    given = known(hub["hubert"], **more)
    assert words in fault(Path("nowhere"), architecture=given)


def test_absurd_sizes_are_not_built(hub: dict[str, Path], tmp_path: Path) -> None:
    chain(hub["hubert"]).save(tmp_path / "pack")
    (tmp_path / "pack/card.yaml").unlink()
    path = tmp_path / "pack/config.yaml"
    data = yaml.safe_load(path.read_text())
    data["modules"][0]["input"]["architecture"] |= {"intermediate_size": 100_000, "num_hidden_layers": 900}
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(CheckpointError, match="values or more; they do not belong together"):
        LegoNN.from_pretrained(tmp_path / "pack")


def test_other_faults(hub: dict[str, Path], tmp_path: Path) -> None:
    folder = hub["hubert"]
    assert "input.layers: 7 is not one of 0 to 2" in fault(folder, layers=7)
    adapted = known(hub["wav2vec2"], add_adapter=True)
    assert "an adapter changes the number of steps" in fault(folder, architecture=adapted)
    assert "'all' is not weighted, last or a number" in fault(folder, layers="all")
    assert "fs: 8000; these models hear 16000 Hz" in fault(folder, fs=8000)
    assert "what is learned must be kept" in fault(folder, hold=False, freeze=False)
    assert "the model is 16 wide and the body 8" in fault(folder, project=False)
    assert f"input.model: {tmp_path / 'none'}" in fault(tmp_path / "none")


def test_transformers_is_imported_when_a_part_is_built(hub: dict[str, Path]) -> None:
    code = f"""
import sys
from espnet2_legonn import LegoNN
from espnet2_legonn.model.description import parse
data = {description(hub["hubert"])!r}
parse(data)
print("transformers" in sys.modules)
LegoNN.from_config(data)
print("transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


# -- fewer bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "hold"), [*itertools.product(KINDS, [True, False]), *((n, True) for n in KIN)])
def test_fewer_bits(name: str, hold: bool, hub: dict[str, Path]) -> None:
    """Weights that are not held are converted, too, and none is copied that stays."""
    model = chain(hub[name], hold=hold).eval()
    waves = [0.1 * torch.randn(3000), 0.1 * torch.randn(700)]
    half = model.converted("bfloat16")
    norms = (".batch_norm.weight", ".batch_norm.bias", ".conv.norm.weight", ".conv.norm.bias")  # stay in float32
    kinds = {p.dtype for n, p in part(half).hears.named_parameters() if not n.endswith(norms)}
    assert kinds == {torch.bfloat16} and {p.dtype for p in part(model).hears.parameters()} == {torch.float32}
    assert all(marginals.log_probs.dtype == torch.float32 for marginals in [half.marginals(waves)])
    if name == "wavlm":
        with pytest.raises(ConfigError, match="int8 is not for .* WavLM"):
            model.converted("int8")
        return
    found, wanted = (m.marginals(waves).log_probs for m in (model.converted("int8"), model))
    assert float((found - wanted).abs().max()) < 1 and not torch.equal(found, wanted)
    own, theirs = ({p.data_ptr() for p in part(m).hears.parameters()} for m in (model, model.converted("int8")))
    assert theirs < own
