"""A toy language in text and sound, descriptions of small chains, and ESPnet's training called in this process."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

FS = 8000
WORDS = [f"t{i}" for i in range(5)]
SOURCE = [f"s{i}" for i in range(5)]
PHONES = [f"p{i}" for i in range(5)] + ["q"]
QUIET = ["--ngpu", "0", "--num_workers", "0", "--use_matplotlib", "false", "--use_tensorboard", "false"]


def tokens(words: list[str]) -> list[str]:
    return ["<blank>", "<unk>", *words, "<sos/eos>"]


VOCABS: dict[str, dict[str, Any]] = {
    "src": {"tokens": tokens(SOURCE), "unit": "word", "language": "xx"},
    "phones": {"tokens": tokens(PHONES), "unit": "phn"},
    "tgt": {"tokens": tokens(WORDS), "unit": "word", "language": "yy"},
}


def body(decodes: bool = False, **more: Any) -> dict[str, Any]:
    kind = "transformer_decoder" if decodes else "transformer"
    sizes = {"num_blocks": 1, "size": 16, "heads": 2, "linear_units": 32, "dropout": 0.1}
    return {"type": kind, **sizes, **more}


def control(**how: Any) -> dict[str, Any]:
    return {"max_length": 40, "num_blocks": 1, **(how or {"slots_per_token": 2})}


def wemb(vocab: str) -> dict[str, Any]:
    return {"type": "wemb", "vocab": vocab, "num_blocks": 1}


TEXT = {"vocab": "tgt", "label_smoothing": 0.1}
DECODER = {"name": "decoder", "input": wemb("tgt"), "body": body(True), "output": TEXT}
SPEECH = {"type": "speech", "fs": FS, "n_mels": 16, "channels": [2, 3], "normalize": "global"}
ENCODER = {
    "name": "encoder",
    "input": {"type": "tokens", "vocab": "src"},
    "body": body(),
    "length_control": control(),
    "output": {"vocab": "tgt"},
}
PRONUNCIATION = {
    "name": "words",
    "input": wemb("phones"),
    "body": body(),
    "length_control": control(),
    "output": {"vocab": "tgt"},
}
RECOGNISER = {**ENCODER, "name": "phones", "input": SPEECH, "output": {"vocab": "phones"}}
STATES_ENCODER = {"name": "encoder", "input": ENCODER["input"], "body": body(), "output": {"type": "states"}}
HYBRID_ENCODER = {**ENCODER, "output": {"type": "states", "ctc": {"vocab": "tgt"}}}
MODULES = {
    "tokens": [ENCODER, DECODER],
    "speech": [RECOGNISER, PRONUNCIATION, DECODER],
    "encoder": [ENCODER],
    "baseline": [STATES_ENCODER, {**DECODER, "input": {"type": "states"}}],
    "hybrid": [HYBRID_ENCODER, {**DECODER, "input": {"type": "states"}}],
}


def config(modules: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """A training config for these modules, with the vocabularies that they use."""
    used = {side.get("vocab") for m in modules for side in (m["input"], m["output"], m["output"].get("ctc", {}))}
    return {
        "vocabs": {name: vocab for name, vocab in VOCABS.items() if name in used},
        "modules": copy.deepcopy(modules),  # ratios are written into it
        "optim_conf": {"lr": 1.0e-2},
        "scheduler": "inverse_sqrt",
        "scheduler_conf": {"warmup_steps": 4},
        "batch_type": "sorted",
        "batch_size": 4,
        "max_epoch": 2,
        **options,
    }


@dataclass
class Corpus:
    """Data directories ``train`` and ``valid``: wav.scp, src_text, text, text_phn, utt2spk."""

    root: Path

    def write(self) -> Corpus:
        rng, noise = random.Random(1), np.random.default_rng(1)
        for name, number in (("train", 15), ("valid", 5)):
            (self.root / name).mkdir(parents=True)
            rows: dict[str, list[str]] = {n: [] for n in ("wav.scp", "src_text", "text", "text_phn", "utt2spk")}
            for n in range(number):
                uid, said = f"{name}{n:02d}", [rng.randrange(5) for _ in range(rng.randint(2, 4))]
                path = self.root / name / f"{uid}.wav"
                _speak(path, said, noise)
                rows["wav.scp"].append(f"{uid} {path}")
                rows["utt2spk"].append(f"{uid} {uid}")
                rows["src_text"].append(" ".join([uid, *(f"s{i}" for i in said)]))
                rows["text"].append(" ".join([uid, *(f"t{i}" for i in said)]))
                rows["text_phn"].append(" ".join([uid, *(f"p{i} q" for i in said)]))
            for file, lines in rows.items():
                (self.root / name / file).write_text("".join(f"{line}\n" for line in lines))
        return self

    def data(self, kind: str) -> list[str]:
        """Options that name the data of a chain of this kind."""
        files = ["text,text,text"]
        if kind == "speech":
            files += ["wav.scp,speech,sound", "text_phn,text_phn,text"]
        else:
            files.append("src_text,src_text,text")
        pairs = [(phase, file) for phase in ("train", "valid") for file in files]
        return [w for p, f in pairs for w in (f"--{p}_data_path_and_name_and_type", f"{self.root / p}/{f}")]

    def shapes(self, kind: str, stats: Path) -> list[str]:
        name = "speech_shape" if kind == "speech" else "src_text_shape"
        return [w for p in ("train", "valid") for w in (f"--{p}_shape_file", str(stats / p / name))]


def _speak(path: Path, said: list[int], noise: np.random.Generator) -> None:
    import soundfile

    steps = np.arange(int(0.17 * FS)) / FS
    wave = np.concatenate([0.4 * np.sin(2 * np.pi * (300 + 500 * i) * steps) for i in said])
    soundfile.write(path, wave + 0.01 * noise.standard_normal(len(wave)), FS)


@contextlib.contextmanager
def logged() -> Iterator[io.StringIO]:
    """What is logged at INFO and above; warnings.warn is not part of it."""
    root, text = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def call(where: Path, description: dict[str, Any], *options: str) -> str:
    """``legonn_train --config ... --output_dir where options`` in this process; the log is returned."""
    from espnet2_legonn.training.task import LegoNNTask

    where.mkdir(parents=True, exist_ok=True)
    file = where / "train.yaml"
    file.write_text(yaml.safe_dump(description, sort_keys=False))
    with logged() as log:
        LegoNNTask.main(cmd=["--config", str(file), "--output_dir", str(where), *QUIET, *options])
    return log.getvalue()


def collect_stats(corpus: Corpus, where: Path, kind: str, modules: list[dict[str, Any]] | None = None) -> Path:
    """Stage 10 for a chain of this kind."""
    keys = {"speech": "wav.scp"}.get(kind, "src_text")
    shapes = [w for p in ("train", "valid") for w in (f"--{p}_shape_file", str(corpus.root / p / keys))]
    call(where, config(modules or MODULES[kind]), "--collect_stats", "true", *corpus.data(kind), *shapes)
    return where


@dataclass
class Lab:
    """A corpus with statistics of both kinds of input, where chains are trained."""

    corpus: Corpus
    stats: dict[str, Path]

    def train(
        self, exp: Path, kind: str, *options: str, modules: list[dict[str, Any]] | None = None, **more: Any
    ) -> str:
        """Train into ``exp``; the log is returned."""
        source = "speech" if kind == "speech" else "tokens"
        data = [*self.corpus.data(kind), *self.corpus.shapes(kind, self.stats[source])]
        return call(exp, config(modules or MODULES[kind], **more), *data, *options)


def weights(exp: Path, epoch: int) -> dict[str, torch.Tensor]:
    return torch.load(exp / f"{epoch}epoch.pth", weights_only=True)


def figures(exp: Path, epoch: int, phase: str = "train") -> dict[str, float]:
    """What ESPnet's reporter kept of an epoch; times are left out."""
    state = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]
    return {k: float(v) for k, v in state["stats"][epoch][phase].items() if "time" not in k and "cached" not in k}


def gap(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Largest difference of any value; inf for other tensors."""
    if left.keys() != right.keys():
        return float("inf")
    return max(float((left[k].double() - right[k].double()).abs().max()) for k in left if left[k].numel())
