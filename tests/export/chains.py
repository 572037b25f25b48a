"""Tiny chains of every kind that can be exported, and inputs of several lengths for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet2_legonn import LegoNN
from tests.modules import toys
from tests.zoo.sounds import tone

CHARS = {"type": "tokens", "vocab": "src"}
OTHER = {"unit": "char", "tokens": ["<blank>", "<unk>", "b", "0", "1", "2", "<space>", "<sos/eos>"]}
SPEECH = {"type": "speech", "n_mels": 10, "channels": [2, 3], "fs": 8000}
STATES = {"name": "enc", "input": toys.TEXT, "body": toys.body(), "output": {"type": "states"}}
ALIGNED = {"ratio": "3/2", "max_length": 20, "num_blocks": 1, "aligned": True}
TWO = {"ratio": "3/2", "max_length": 20, "num_blocks": 2}
CONDITIONED = {"vocab": "bpe", "intermediate": {"blocks": [1], "self_conditioned": True}}

KINDS: dict[str, list[dict[str, Any]]] = {
    "wemb": toys.two(toys.wemb("bpe")),
    "wemb5": toys.two(toys.wemb("bpe", receptive_field=5)),
    "beam_conv": toys.two(toys.beam_conv("bpe", receptive_field=3)),
    "collapse": toys.two(toys.wemb("bpe", collapse=True)),
    "untied": toys.two(toys.wemb("bpe"), tie=False),
    "aligned": [toys.encoder("enc", toys.TEXT, "bpe", length_control=ALIGNED), toys.decoder(toys.wemb("bpe"))],
    "three": toys.three(),
    "self_conditioned": [
        {**toys.encoder("enc", toys.TEXT, "bpe"), "body": toys.body(2), "output": CONDITIONED},
        {**toys.encoder("second", toys.wemb("bpe"), "bpe", length_control=TWO), "output": CONDITIONED},
        toys.decoder(toys.wemb("bpe")),
    ],
    "three_collapsed": toys.three(toys.wemb("phn", collapse=True), toys.beam_conv("bpe", collapse=True)),
    "encoder": [toys.encoder("enc", toys.TEXT, "bpe", "2")],
    "two_encoders": toys.three()[:2],
    "states": [STATES, toys.decoder({"type": "states"})],
    "hybrid": [{**toys.encoder("enc", toys.TEXT, "bpe", "2"), "output": toys.HYBRID}, toys.decoder({"type": "states"})],
    "speech": [toys.encoder("enc", SPEECH, "bpe", "1"), toys.decoder(toys.wemb("bpe"))],
    "speech_encoder": [toys.encoder("enc", {**SPEECH, "normalize": "global"}, "bpe", "1")],
    "features": [
        toys.encoder("enc", {"type": "features", "dim": 6, "channels": [2, 3]}, "bpe", "1"),
        toys.decoder(toys.wemb("bpe")),
    ],
    "marginals": [toys.decoder(toys.wemb("bpe"))],
    # The interface has other tokens than the decoder: CTC judges texts when they are whole.
    "rescored": [
        {**toys.encoder("enc", toys.TEXT, "char", "2"), "output": {"type": "states", "ctc": {"vocab": "char"}}},
        toys.decoder({"type": "states"}),
    ],
}
# Of the others 0 does.
SEEDS = {"states": 3, "rescored": 9}


def chain(kind: str, sharp: float = 3.0) -> LegoNN:
    """Random weights whose answers differ from input to input."""
    torch.manual_seed(SEEDS.get(kind, 0))
    vocabs = {**toys.VOCABS, "char": OTHER}
    sides = [side for m in KINDS[kind] for side in (m["input"], m["output"], m["output"].get("ctc", {}))]
    used = {side.get("vocab") for side in sides}
    made = LegoNN.from_config({"vocabs": {n: v for n, v in vocabs.items() if n in used}, "modules": KINDS[kind]})
    toys.scramble(made)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "ctc_lo" in name or name.endswith("output.weight") or "decoder.embed" in name:
                parameter.mul_(sharp)
    return made.eval()


def inputs(kind: str) -> list[Any]:
    """Five, of different lengths."""
    first = KINDS[kind][0]["input"]["type"]
    random = np.random.default_rng(1)
    if first == "tokens":
        return ["s0 s1 s2 s3", "s4", "s5 s5 s5 s1 s2 s0 s3", "s1 s2", "s3 s0 s3 s0 s3"]
    if first == "speech":
        tones = [tone(seconds, i, 8000) for i, seconds in enumerate((0.3, 0.02, 0.71, 0.5, 0.105))]
        # Where a pure tone has nothing, features are what float32 rounds.
        return [wave + 0.01 * random.standard_normal(len(wave)).astype(np.float32) for wave in tones]
    if first == "features":
        return [random.standard_normal((n, 6)).astype(np.float32) for n in (30, 1, 17, 44, 5)]
    return [toys.random_log_probs(1, n, toys.BPE, seed=n)[0].float() for n in (9, 1, 6, 12, 4)]
