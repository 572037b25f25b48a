"""The transformer decoder of a stock ASR experiment of ESPnet, which reads hidden states: that of a baseline."""

from __future__ import annotations

import re
from typing import Any

import torch

from espnet2_legonn.adopt.source import DECODER, VOCAB
from espnet2_legonn.adopt.vocabulary import Order
from espnet2_legonn.data.vocabulary import SOS_EOS
from espnet2_legonn.errors import CheckpointError
from espnet2_legonn.files.schema import shown

# ESPnet's defaults of decoder_conf. Other keys change nothing in decoding, or are faults.
_HEADS, _UNITS, _BLOCKS = 4, 2048, 6
_WANTED = {
    "input_layer": "embed", "use_output_layer": True, "normalize_before": True, "concat_after": False, "qk_norm": False,
}  # fmt: skip
_BLOCK = re.compile(r"decoder\.decoders\.(\d+)\.")


def faults(config: dict[str, Any]) -> list[str]:
    """Every reason why the decoder cannot be adopted."""
    found, conf, model = [], config.get("decoder_conf") or {}, config.get("model_conf") or {}
    if config.get("decoder") != "transformer":
        found.append(f"decoder: {shown(config.get('decoder'))} is not adopted, only ESPnet's transformer")
    for key, value in _WANTED.items():
        if conf.get(key, value) != value:
            found.append(f"decoder_conf.{key}: {shown(conf[key])} is not adopted, only {shown(value)}")
    if float(model.get("ctc_weight", 0.5)) == 1.0:
        found.append("model_conf.ctc_weight: 1.0 trained no decoder")
    begins = [str(model.get(key) or SOS_EOS) for key in ("sym_sos", "sym_eos")]
    if begins != [SOS_EOS] * 2 or config["token_list"][-1] != SOS_EOS:
        found.append(f"token_list: texts must begin and end with {SOS_EOS}, its last token")
    return found


def modules(config: dict[str, Any], encoder: dict[str, Any]) -> list[dict[str, Any]]:
    """The encoder module, whose CTC stands beside its states now, and the decoder module."""
    conf, model = config.get("decoder_conf") or {}, config.get("model_conf") or {}
    rate = float(conf.get("dropout_rate", 0.1))
    body = {
        "num_blocks": int(conf.get("num_blocks", _BLOCKS)),
        "size": encoder["body"]["output_size"],
        "heads": int(conf.get("attention_heads", _HEADS)),
        "linear_units": int(conf.get("linear_units", _UNITS)),
        "dropout": rate,
        "attention_dropout": float(conf.get("self_attention_dropout_rate", 0.0)),
        "type": "transformer_decoder",
    }
    ctc = {"vocab": VOCAB, "weight": float(model.get("ctc_weight", 0.5))}
    smoothing = float(model.get("lsm_weight", 0.0))
    output = {"vocab": VOCAB, "tie": False, "bias": True, "label_smoothing": smoothing}
    decoder = {"name": DECODER, "input": {"type": "states"}, "body": body, "output": output}
    return [{**encoder, "output": {"type": "states", "ctc": ctc}}, decoder]


def renamed(tensors: dict[str, torch.Tensor], order: Order) -> dict[str, torch.Tensor]:
    """Its weights by the names of module and weight.

    Raises:
        CheckpointError: the weights have no decoder.
    """
    table, head = tensors.get("decoder.embed.0.weight"), tensors.get("decoder.output_layer.weight")
    if table is None or head is None:
        raise CheckpointError("the weights have no decoder (decoder.embed, decoder.output_layer)")
    found = {
        f"{DECODER}.body.{name.removeprefix('decoder.')}": tensor
        for name, tensor in tensors.items()
        if _BLOCK.match(name) or name.startswith("decoder.after_norm.")
    }
    weight, bias = order.layer(head, tensors.get("decoder.output_layer.bias"))
    found[f"{DECODER}.embed.weight"] = order.layer(table, None)[0]
    return {**found, f"{DECODER}.output.weight": weight, f"{DECODER}.output.bias": bias}
