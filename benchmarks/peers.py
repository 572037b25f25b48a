"""ESPnet and CTranslate2 with the same weights as our baseline."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.systems import BEAM, LENGTH, Decode, Size, baseline
from espnet2_legonn import LegoNN


def espnet_model(size: Size, folder: Path) -> tuple[Any, Any]:
    """ESPnet's translation model with random weights, and its arguments; it never says blank, unknown or the end."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from espnet2.tasks.mt import MTTask

        logging.getLogger().setLevel(logging.ERROR)
        (folder / "tokens.txt").write_text("\n".join(size.tokens) + "\n")
        tokens = str(folder / "tokens.txt")
        words = ["--output_dir", str(folder), "--token_list", tokens, "--src_token_list", tokens]
        words += ["--token_type", "word", "--src_token_type", "word", "--frontend", "embed", "--init", "xavier_uniform"]
        words += ["--encoder", "transformer", "--decoder", "transformer"]
        sizes = {"attention_heads": size.heads, "linear_units": size.units}
        confs: dict[str, dict[str, Any]] = {
            "frontend_conf": {"embed_dim": size.width},
            "encoder_conf": {
                "input_layer": "null", "output_size": size.width, "num_blocks": size.encoders,
                "attention_dropout_rate": 0.1, **sizes,
            },
            "decoder_conf": {
                "num_blocks": size.decoders, "self_attention_dropout_rate": 0.1, "src_attention_dropout_rate": 0.1,
                **sizes,
            },
            "model_conf": {"report_bleu": "false", "lsm_weight": 0.1},
        }  # fmt: skip
        words += [w for name, conf in confs.items() for key, v in conf.items() for w in (f"--{name}", f"{key}={v}")]
        args = MTTask.get_parser().parse_args(words)
        torch.manual_seed(0)
        model = MTTask.build_model(args)
    with torch.no_grad():
        bias = model.decoder.output_layer.bias
        bias.zero_()
        bias[[0, 1, -1]] = -30.0  # every search writes exactly LENGTH tokens
        model.decoder.output_layer.weight.mul_(2.0)  # opinions
        # Of the end there is next to none: ours adds its score to a text that is cut off, the others do not.
        model.decoder.output_layer.weight[[0, 1, -1]] *= 1e-3
    return model, args


def espnet(model: Any, args: Any, folder: Path) -> Decode:
    """ESPnet's Text2Text, which takes one text at a time."""
    import espnet as package
    from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump

    torch.save(model.state_dict(), folder / "model.pth")
    args.version, args.distributed = package.__version__, False
    with open(folder / "config.yaml", "w") as file:
        yaml_no_alias_safe_dump(vars(args), file, sort_keys=False)
    weights = {"ctc_weight": 0.0, "lm_weight": 0.0, "ngram_weight": 0.0}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from espnet2.bin.mt_inference import Text2Text

        search = Text2Text(
            folder / "config.yaml", folder / "model.pth", beam_size=BEAM, maxlenratio=float(-LENGTH), **weights
        )
    end = len(args.token_list) - 1

    def decode(x: torch.Tensor) -> list[list[int]]:
        # It puts <sos/eos> before and behind a source.
        found = [search(torch.cat([row[1:], torch.tensor([end])])) for row in x]
        return [result[0][3].yseq.tolist()[1:-1] for result in found]

    return decode


def same_weights(model: Any, size: Size) -> LegoNN:
    """Our baseline with ESPnet's weights, the bias of its output and its LayerNorms."""
    names = {
        "mods.encoder.body.": "encoder.",
        "mods.decoder.body.": "decoder.",
        "mods.encoder.input.embed.": "frontend.embed.0.",
        "mods.decoder.embed.": "decoder.embed.0.",
        "mods.decoder.output.": "decoder.output_layer.",
    }
    chain, theirs, taken = baseline(size), model.state_dict(), {}
    for key in chain.state_dict():
        prefix = next((p for p in names if key.startswith(p)), None)
        if prefix is not None:
            taken[key] = theirs[names[prefix] + key[len(prefix) :]]
    chain.load_state_dict(taken, strict=False)
    chain.last.output.bias = nn.Parameter(theirs["decoder.output_layer.bias"].clone())
    for part in chain.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-12
    return chain


def ctranslate2(model: Any, size: Size, dtype: str, folder: Path) -> Decode:
    """CTranslate2 on one thread."""
    import ctranslate2 as package

    spec = _specification(model, size)
    spec.validate()
    spec.optimize(quantization=None if dtype == "float32" else dtype)
    spec.save(str(folder))
    translator = package.Translator(str(folder), device="cpu", compute_type=dtype, inter_threads=1, intra_threads=1)
    tokens, ids = size.tokens, {token: i for i, token in enumerate(size.tokens)}

    def decode(x: torch.Tensor) -> list[list[int]]:
        texts = [[*(tokens[i] for i in row), tokens[-1]] for row in x.tolist()]
        found = translator.translate_batch(
            texts, beam_size=BEAM, max_batch_size=len(texts), max_decoding_length=LENGTH, min_decoding_length=LENGTH
        )
        return [[ids[token] for token in result.hypotheses[0]] for result in found]

    return decode


def _specification(model: Any, size: Size) -> Any:
    from ctranslate2.specs import transformer_spec

    def linear(target: Any, *layers: nn.Linear) -> None:
        target.weight = np.concatenate([layer.weight.detach().numpy() for layer in layers])
        target.bias = np.concatenate([layer.bias.detach().numpy() for layer in layers])

    def norm(target: Any, layer: nn.LayerNorm) -> None:
        target.gamma, target.beta = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()

    spec = transformer_spec.TransformerSpec.from_config((size.encoders, size.decoders), size.heads, pre_norm=True)
    positions = model.decoder.embed[1].pe[0, :512].numpy().copy()
    encoder, decoder = spec.encoder, spec.decoder
    encoder.embeddings[0].weight = model.frontend.embed[0].weight.detach().numpy().copy()
    decoder.embeddings.weight = model.decoder.embed[0].weight.detach().numpy().copy()
    for side, body in ((encoder, model.encoder), (decoder, model.decoder)):
        side.position_encodings.encodings = positions
        norm(side.layer_norm, body.after_norm)
    linear(decoder.projection, model.decoder.output_layer)
    blocks = [*zip(encoder.layer, model.encoder.encoders), *zip(decoder.layer, model.decoder.decoders)]
    for layer, block in blocks:
        own, into = block.self_attn, layer.self_attention
        norm(into.layer_norm, block.norm1)
        linear(into.linear[0], own.linear_q, own.linear_k, own.linear_v)
        linear(into.linear[1], own.linear_out)
        last = block.norm2
        if hasattr(block, "src_attn"):
            cross, into, last = block.src_attn, layer.attention, block.norm3
            norm(into.layer_norm, block.norm2)
            linear(into.linear[0], cross.linear_q)
            linear(into.linear[1], cross.linear_k, cross.linear_v)
            linear(into.linear[2], cross.linear_out)
        norm(layer.ffn.layer_norm, last)
        linear(layer.ffn.linear_0, block.feed_forward.w_1)
        linear(layer.ffn.linear_1, block.feed_forward.w_2)
    spec.register_source_vocabulary(size.tokens)
    spec.register_target_vocabulary(size.tokens)
    spec.config.unk_token = "<unk>"
    spec.config.bos_token = spec.config.eos_token = spec.config.decoder_start_token = "<sos/eos>"
    return spec
