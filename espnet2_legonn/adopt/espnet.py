"""A stock ASR experiment of ESPnet, or a packed zip of its zoo: front end, normalisation, encoder and CTC."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import torch

from espnet2_legonn.adopt import espnet_decoder
from espnet2_legonn.adopt.source import NAME, VOCAB, Adopted, AdoptOptions, assemble
from espnet2_legonn.adopt.vocabulary import Order
from espnet2_legonn.data.vocabulary import BLANK
from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.schema import nearest, read_yaml, shown
from espnet2_legonn.model.espnet_body import CHOSEN, ENCODERS, encoder_class
from espnet2_legonn.model.parts.espnet_frontend import SUBSAMPLING
from espnet2_legonn.packs import store
from espnet2_legonn.packs.espnet_archive import locate
from espnet2_legonn.packs.files import opened

UNITS = {"bpe": "bpe", "char": "char", "word": "word", "phn": "phn"}
# Of an experiment, best first; any other average after them.
WEIGHTS = ("valid.acc.ave.pth", "valid.loss.ave.pth", "valid.cer_ctc.ave.pth")
# Encoders whose subsampling is one of SUBSAMPLING, so that the rest of them is a body.
ADOPTED = ("transformer", "conformer", "branchformer", "e_branchformer", "multiconv_conformer")
# Of encoder_conf: what the input part or the chain does instead.
_LEFT = ("input_layer", "padding_idx", "interctc_layer_idx", "interctc_use_conditioning", "ctc_trim", "pos_enc_class")
_SCALING = ("abs_pos", "rel_pos", "legacy_rel_pos")
_RATE = re.compile(r"([0-9.]+)\s*(k?)(hz)?", re.IGNORECASE)


def adopt(source: Path, options: AdoptOptions) -> Adopted:
    """The encoder of an experiment's folder or of a packed zip, and its decoder if that is wanted, without an update.

    Raises:
        ConfigError: every reason why it cannot be adopted.
        CheckpointError: weights are missing or damaged, or hold more than tensors.
    """
    with opened(source) as folder:
        found = locate(folder)
        config = read_yaml(found[0] if found else folder / store.CONFIG)
        if not isinstance(config, dict) or "token_list" not in config or "encoder" not in config:
            raise ConfigError(f"{source}: no ASR experiment of ESPnet (no token_list and encoder in its config)")
        lacking = espnet_decoder.faults(config) if options.decoder else []
        if faults := [*_faults(config), *lacking, *_needless(config, options, bool(found))]:
            raise ConfigError(f"{source}: {fault}" for fault in faults)
        order = Order.of(_tokens(config, source), {_blank(config): BLANK})
        unit = str(config.get("token_type") or "bpe")
        model = _bpemodel(config, options, folder if found else None, source) if unit == "bpe" else None
        vocab = order.vocabulary(UNITS[unit], options.language, options.normalization, model)
        weights = found[1] if found else _weights(folder, options.model)
        read = store.read_tensors(weights)
        tensors, left = _renamed(read, order)
        modules = [{"name": NAME, "input": _input(config), "body": _body(config), "output": {"vocab": VOCAB}}]
        if options.decoder:
            modules, left = espnet_decoder.modules(config, modules[0]), left - {"decoder"}
            tensors |= espnet_decoder.renamed(read, order)
        chain = assemble(modules, vocab, tensors, str(weights))
    notes = [f"left behind: {', '.join(sorted(left))}"] if left else []
    notes += [f"tokens in our order (blank first, <sos/eos> last): ids differ from {source.name}'s"] * order.moved
    notes += [f"added, never written: {' '.join(order.added)}"] * bool(order.added)
    if not float((config.get("model_conf") or {}).get("ctc_weight", 0.5)):
        notes.append("ctc_weight was 0: nothing trained this CTC layer, its distributions mean nothing")
    version = config.get("version")
    kind = f"{config['encoder']}, decoder" if options.decoder else config["encoder"]
    return Adopted(chain, f"{kind} of {source.name}", notes, None if version is None else str(version))


def _weights(folder: Path, model: str | None) -> Path:
    if model is not None:
        return store.find_weights(folder, model)
    averages = [p.name for p in sorted(folder.glob("*.ave.pth"))]
    for name in (*WEIGHTS, *averages, "latest.pth"):
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder}: none of {', '.join(WEIGHTS)} and no other average; name the weights with --model")


def _tokens(config: dict[str, Any], source: Path) -> list[str]:
    tokens = config["token_list"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ConfigError(f"{source}: token_list is no list of tokens; ESPnet writes them into config.yaml")
    return tokens


def _blank(config: dict[str, Any]) -> str:
    """The token of CTC's blank; where the list has none of its name, ESPnet takes the first."""
    name = str((config.get("model_conf") or {}).get("sym_blank", BLANK))
    tokens = config["token_list"]
    return name if name in tokens else str(tokens[0])


def _faults(config: dict[str, Any]) -> list[str]:
    """Every reason why the config cannot be adopted."""
    faults, conf = [], config.get("encoder_conf") or {}
    encoder, layer = config["encoder"], conf.get("input_layer", "conv2d")
    if config.get("frontend") not in (None, "default") or config.get("input_size") is not None:
        what = "features that another front end made" if config.get("input_size") is not None else config["frontend"]
        faults.append(f"frontend: {shown(what)} is not adopted, only ESPnet's default one (log-mel of waveforms)")
    for name in ("preencoder", "postencoder"):
        if config.get(name) is not None:
            faults.append(f"{name}: {shown(config[name])} is not adopted")
    if encoder not in ADOPTED:
        remedy = "adopt the model it was made from" if encoder not in ENCODERS else "its input layer is no part of ours"
        known = f"{', '.join(ADOPTED)}{nearest(encoder, ADOPTED)}"
        faults.append(f"encoder: {shown(encoder)} is not one of {known}; {remedy}")
    if layer not in SUBSAMPLING:
        faults.append(f"encoder_conf.input_layer: {shown(layer)} is not one of {', '.join(SUBSAMPLING)}")
    if conf.get("interctc_use_conditioning") or conf.get("ctc_trim"):
        faults.append("encoder_conf: this encoder reads its own CTC inside (interctc_use_conditioning, ctc_trim)")
    if config.get("normalize") not in (None, "global_mvn", "utterance_mvn"):
        faults.append(f"normalize: {shown(config['normalize'])} is not global_mvn or utterance_mvn")
    if (config.get("token_type") or "bpe") not in UNITS:
        faults.append(f"token_type: {shown(config['token_type'])} is not one of {', '.join(UNITS)}")
    if _rate((config.get("frontend_conf") or {}).get("fs", 16000)) is None:
        faults.append(f"frontend_conf.fs: {shown(config['frontend_conf']['fs'])} is no rate")
    return faults


def _needless(config: dict[str, Any], options: AdoptOptions, packed: bool) -> list[str]:
    """Options that would change nothing."""
    faults = ["model: a packed archive names its weights itself; leave it out"] if packed and options.model else []
    if options.bpemodel is not None and (config.get("token_type") or "bpe") != "bpe":
        faults.append(f"bpemodel: its tokens are of type {shown(config['token_type'])}; leave it out")
    return faults


def _rate(value: Any) -> int | None:
    """Hz of ``16000``, ``16k`` or ``8kHz``."""
    match = _RATE.fullmatch(str(value).strip())
    return round(float(match[1]) * (1000 if match[2] else 1)) if match else None


def _bpemodel(config: dict[str, Any], options: AdoptOptions, archive: Path | None, source: Path) -> bytes:
    """The sentencepiece model; a config names it from the recipe's folder, which an experiment lies some way below."""
    named = options.bpemodel or config.get("bpemodel")
    if not isinstance(named, (str, Path)):
        raise ConfigError(f"{source}: token_type bpe, but no bpemodel in its config; give --bpemodel FILE")
    places = [Path(named)]
    if options.bpemodel is None:
        if archive is not None:  # nothing outside of what a stranger packed
            inside = archive / str(named).lstrip("/")
            places = [inside] if inside.resolve().is_relative_to(archive.resolve()) else []
        else:
            places = [folder / named for folder in (Path(), *source.resolve().parents[:4])]
    for place in places:
        if place.is_file():
            return place.read_bytes()
    raise ConfigError(f"{source}: its sentencepiece model {named} is not there; give --bpemodel FILE")


def _input(config: dict[str, Any]) -> dict[str, Any]:
    frontend, conf = dict(config.get("frontend_conf") or {}), config.get("encoder_conf") or {}
    rate = _rate(frontend.pop("fs", 16000))
    frontend.pop("frontend_conf", None)
    frontend.pop("apply_stft", None)
    norm = config.get("normalize_conf") or {}
    kind = {None: "none", "global_mvn": "global", "utterance_mvn": "utterance"}[config.get("normalize")]
    places = str(conf.get("pos_enc_layer_type", "rel_pos"))
    return {
        "type": "espnet_frontend",
        "fs": rate,
        "frontend": frontend,
        "normalize": kind,
        "means": bool(norm.get("norm_means", True)),
        "variances": bool(norm.get("norm_vars", kind == "global")),
        "subsampling": conf.get("input_layer", "conv2d"),
        # ESPnet's positions multiply what they get; our bodies do not, and the transformer's stand in the input.
        "scale": config["encoder"] != "transformer" and places in _SCALING,
        "dropout": float(conf.get("positional_dropout_rate", 0.1)),
    }


def _body(config: dict[str, Any]) -> dict[str, Any]:
    conf = {key: value for key, value in (config.get("encoder_conf") or {}).items() if key not in _LEFT}
    kind = f"espnet:{config['encoder']}"
    for key in (*CHOSEN, "output_size", "num_blocks"):  # ESPnet's defaults, where ours are others or a width is needed
        parameter = inspect.signature(encoder_class(kind).__init__).parameters.get(key)
        if parameter is not None and key not in conf:
            conf[key] = parameter.default
    return {"type": kind, **conf}


def _renamed(tensors: dict[str, torch.Tensor], order: Order) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The encoder's weights by the names of module and weight, and which parts of the model are left behind.

    Raises:
        CheckpointError: there is no CTC layer.
    """
    if "ctc.ctc_lo.weight" not in tensors:
        raise CheckpointError("the weights have no CTC layer (ctc.ctc_lo): this is no model with CTC")
    found, left = {}, set()
    moves = (
        ("frontend.frontend.", None),
        ("frontend.", "input.frontend."),
        ("normalize.", "input.normalization."),
        ("encoder.embed.conv.", "input.embed.conv."),
        ("encoder.embed.out.0.", "input.embed.out.0."),
        ("encoder.embed.out.1.", "body.encoder.embed.0."),
        ("encoder.embed.pos_enc.", "body.encoder.embed.0."),
        ("encoder.embed.out.", "input.embed.out."),
        ("encoder.", "body.encoder."),
    )
    for name, tensor in tensors.items():
        if name.startswith("ctc.ctc_lo."):
            continue
        before, behind = next(((a, b) for a, b in moves if name.startswith(a)), (None, None))
        if before is None or behind is None:
            left.add(name.partition(".")[0])
        else:
            found[f"{NAME}.{behind}{name.removeprefix(before)}"] = tensor
    weight, bias = order.layer(tensors["ctc.ctc_lo.weight"], tensors.get("ctc.ctc_lo.bias"))
    return {**found, f"{NAME}.interface.ctc_lo.weight": weight, f"{NAME}.interface.ctc_lo.bias": bias}, left
