"""Stock ASR models of ESPnet: random ones in the layout of an experiment, and tiny speech to train one on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml

from espnet2_legonn.foreign import load

FS = 8000
LETTERS = list("abcde")
TOKENS = ["<blank>", "<unk>", "<space>", *LETTERS, "<sos/eos>"]
FRONTEND = {"fs": "8k", "n_fft": 256, "hop_length": 80, "win_length": 200, "n_mels": 16}
SIZES = {"output_size": 16, "attention_heads": 2, "num_blocks": 2}
CONFORMER = {**SIZES, "linear_units": 24, "cnn_module_kernel": 5, "macaron_style": True, "rel_pos_type": "latest"}
E_BRANCHFORMER = {**SIZES, "cgmlp_linear_units": 24, "cgmlp_conv_kernel": 5, "linear_units": 24, "use_ffn": True}
UTTERANCE: dict[str, Any] = {"normalize": "utterance_mvn"}
KINDS: dict[str, dict[str, Any]] = {
    "conformer": {"encoder": "conformer", "encoder_conf": CONFORMER, "normalize": "global_mvn"},
    "legacy": {"encoder": "conformer", "encoder_conf": {**CONFORMER, "rel_pos_type": "legacy"}, **UTTERANCE},
    "silent_legacy": {
        "encoder": "conformer",
        "encoder_conf": {k: v for k, v in CONFORMER.items() if k != "rel_pos_type"},
        **UTTERANCE,
    },
    "transformer": {
        "encoder": "transformer",
        "encoder_conf": {**SIZES, "linear_units": 24},
        "normalize": "utterance_mvn",
        "normalize_conf": {"norm_vars": True},
    },
    "e_branchformer": {"encoder": "e_branchformer", "encoder_conf": {**E_BRANCHFORMER, "input_layer": "conv2d2"}},
    "conv1d": {"encoder": "e_branchformer", "encoder_conf": {**E_BRANCHFORMER, "input_layer": "conv1d2"}, **UTTERANCE},
    "scaled": {
        "encoder": "conformer",
        "encoder_conf": {
            **CONFORMER, "selfattention_layer_type": "selfattn", "pos_enc_layer_type": "scaled_abs_pos",
            "interctc_layer_idx": [1], "input_layer": "conv2d6",
        },
        **UTTERANCE,
    },
    "branchformer": {
        "encoder": "branchformer",
        "encoder_conf": {**SIZES, "cgmlp_linear_units": 24, "input_layer": "conv2d8"},
        "normalize": None,
    },
}  # fmt: skip


def statistics(path: Path) -> Path:
    """ESPnet's feats_stats.npz."""
    rng = np.random.default_rng(3)
    count, mean = 100, rng.normal(-4, 1, 16)
    np.savez(path, count=count, sum=count * mean, sum_square=count * (mean**2 + rng.uniform(1, 4, 16)))
    return path


def experiment(folder: Path, kind: str, tokens: list[str] | None = None, **more: Any) -> tuple[Path, Any]:
    """A folder with config.yaml and random weights, and ESPnet's model itself."""
    task = load("espnet2.tasks.asr").ASRTask
    folder.mkdir(parents=True)
    config = {
        "token_list": tokens or TOKENS, "token_type": "char", "frontend_conf": FRONTEND, "ctc_conf": {},
        "decoder": "transformer", "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
        "model_conf": {"ctc_weight": 0.3}, **KINDS[kind], **more,
    }  # fmt: skip
    if config.get("normalize") == "global_mvn":
        config["normalize_conf"] = {"stats_file": str(statistics(folder / "feats_stats.npz"))}
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(config))
    args = task.get_parser().parse_args(["--config", str(path), "--output_dir", str(folder)])
    torch.manual_seed(4)
    model = task.build_model(args).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm1d):
                assert part.running_mean is not None
                part.running_mean.normal_()
    path.unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump({**vars(args), "version": "202511"}))
    torch.save(model.state_dict(), folder / "valid.acc.ave.pth")
    return folder, model


def marginals(model: Any, wave: torch.Tensor) -> torch.Tensor:
    """What ESPnet's model writes of one waveform, (T, V)."""
    with torch.no_grad():
        states, _ = model.encode(wave[None].clone(), torch.tensor([len(wave)]))
        states = states[0] if isinstance(states, tuple) else states
        return model.ctc.softmax(states)[0]


def speak(path: Path, letters: str, rng: np.random.Generator) -> Path:
    """A tone for each letter, silence for a blank."""
    time = np.arange(int(0.16 * FS)) / FS
    pieces = [np.zeros(400)]
    for letter in letters:
        pitch = 0.0 if letter == " " else 300.0 * (1 + LETTERS.index(letter))
        pieces += [0.5 * np.sin(2 * np.pi * pitch * time), np.zeros(300)]
    wave = np.concatenate(pieces)
    soundfile.write(path, wave + 0.01 * rng.normal(size=len(wave)), FS)
    return path


def corpus(folder: Path, number: int = 24, seed: int = 5) -> Path:
    """A data directory: wav.scp and text."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(seed), {"wav.scp": "", "text": ""}
    for i in range(number):
        said = "".join(rng.choice(LETTERS, rng.integers(2, 5))) + " " + "".join(rng.choice(LETTERS, 2))
        rows["wav.scp"] += f"u{i:03d} {speak(folder / f'u{i:03d}.wav', said, rng)}\n"
        rows["text"] += f"u{i:03d} {said}\n"
    for name, text in rows.items():
        (folder / name).write_text(text)
    return folder
