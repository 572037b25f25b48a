"""Tiny language models of the real classes, with tokenizers that are trained here; nothing is fetched."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet2_legonn import LegoNN
from espnet2_legonn.data.hf_vocab import ModelVocabulary, of_model
from espnet2_legonn.model.description import parse
from espnet2_legonn.model.module import build_module
from tests.modules import toys

THERE = importlib.util.find_spec("transformers") is not None
PEFT = importlib.util.find_spec("peft") is not None
transformers: Any = importlib.import_module("transformers") if THERE else None

WIDTH = 16
_LLAMA = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
          "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
_BART = {"d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
         "max_position_embeddings": 40}  # fmt: skip
_T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
CAUSAL = {
    "gpt2": ("GPT2", "GPT2LMHeadModel", {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 40}),
    "llama": ("Llama", "LlamaForCausalLM", {**_LLAMA, "head_dim": 8}),
    "gpt_neox": ("GPTNeoX", "GPTNeoXForCausalLM", {**_LLAMA, "rotary_pct": 0.5}),
    "qwen2": ("Qwen2", "Qwen2ForCausalLM", _LLAMA),
    "qwen3": ("Qwen3", "Qwen3ForCausalLM", {**_LLAMA, "head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("Gemma", "GemmaForCausalLM", {**_LLAMA, "head_dim": 8}),
}
SEQ2SEQ = {
    "t5": ("T5", "T5ForConditionalGeneration", _T5),
    "mt5": ("MT5", "MT5ForConditionalGeneration", {**_T5, "tie_word_embeddings": False}),
    "bart": ("Bart", "BartForConditionalGeneration", {**_BART, "scale_embedding": True}),
    "marian": ("Marian", "MarianMTModel", {**_BART, "scale_embedding": True}),
}
KINDS = {**CAUSAL, **SEQ2SEQ}
TEXTS = ["a dog runs over the green grass", "two men are cooking rice", "The dog, in 2016: a\tcat\n"] * 3


def bytes_tokenizer() -> Any:
    """Byte-level BPE without an unknown, as GPT-2's; one token ends and begins a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    )
    end = "<|endoftext|>"
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token=end, eos_token=end, unk_token=end)


def words_tokenizer(words: str = "a dog runs over the green grass two men are cooking rice") -> Any:
    """Whole words; puts ``<s>`` before and ``</s>`` behind a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokens = ["<pad>", "</s>", "<unk>", "<s>", *dict.fromkeys(words.split())]
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 3), ("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def write(folder: Path, name: str, tokenizer: Any = None, seed: int = 1) -> Path:
    """A model in the layout of the Hub, with more rows than tokens, as many have."""
    kind, cls, sizes = KINDS[name]
    tokenizer = tokenizer or (bytes_tokenizer() if name in ("gpt2", "gpt_neox", "qwen2") else words_tokenizer())
    size = len(tokenizer) + 3
    torch.manual_seed(seed)
    ids = {"vocab_size": size, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id}
    if name in SEQ2SEQ:
        ids |= {"decoder_start_token_id": tokenizer.eos_token_id if name == "bart" else tokenizer.pad_token_id}
    if name == "marian":
        ids |= {"decoder_vocab_size": size}
    model = getattr(transformers, cls)(getattr(transformers, f"{kind}Config")(**sizes, **ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def module(folder: Path, name: str, source: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    """Description of a decoder module."""
    kind = "hf_causal_lm" if name in CAUSAL else "hf_seq2seq"
    return {
        "name": "decoder",
        "input": {"type": "hf_embedding", "vocab": "lm", **(source or {})},
        "body": {"type": kind, "model": str(folder), **body},
        "output": {"vocab": "lm"},
    }


def decoder(folder: Path, name: str, source: dict[str, Any] | None = None, **body: Any) -> LegoNN:
    """A chain of the decoder alone."""
    found = of_model(str(folder))
    described = {
        "vocabs": {"lm": {"tokens": list(found.vocab.tokens)}},
        "modules": [module(folder, name, source, **body)],
    }
    torch.manual_seed(2)
    made = build_module(parse(described).modules[0], {"lm": found.vocab})
    return LegoNN([made], {"lm": found.vocab}).eval()


def chain(folder: Path, name: str, source: dict[str, Any] | None = None, **body: Any) -> LegoNN:
    """A text encoder over the model's vocabulary, and the model."""
    found = of_model(str(folder))
    described = {
        "vocabs": {"lm": {"tokens": list(found.vocab.tokens)}, "src": toys.VOCABS["src"]},
        "modules": [toys.encoder("enc", toys.TEXT, "lm", "2"), module(folder, name, source, **body)],
    }
    config = parse(described)
    vocabs = {
        "lm": found.vocab,
        "src": LegoNN.from_config({**described, "modules": described["modules"][:1]}).vocabs["src"],
    }
    torch.manual_seed(2)
    return LegoNN([build_module(m, vocabs) for m in config.modules], vocabs).eval()


def marginals(found: ModelVocabulary, slots: int, seed: int = 0, sharp: float = 2.0) -> torch.Tensor:
    """(1, K, V) in the default type; every second slot says blank."""
    log_probs = toys.random_log_probs(1, slots, len(found.vocab), seed, sharp)
    log_probs[:, ::2, 0] += 15.0
    return log_probs.log_softmax(-1).to(torch.get_default_dtype())


def expected_rows(found: ModelVocabulary, log_probs: np.ndarray, table: np.ndarray, temperature: float) -> np.ndarray:
    """(K, V) in our order and the model's own table -> (K', D) with ``blank: drop``, in plain NumPy."""
    rows = []
    for slot in log_probs:
        if slot.argmax() == 0:
            continue
        weights = np.exp((slot - slot.max()) / temperature)
        weights[0] = 0.0
        weights /= weights.sum()
        rows.append(sum(w * (table[place] if place >= 0 else 0 * table[0]) for w, place in zip(weights, found.rows)))
    return np.stack(rows)
