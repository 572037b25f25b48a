"""A small Llama over the English units of this recipe, in the layout of Hugging Face: `run_lm.sh` decodes with it."""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import torch
import transformers

from espnet2_legonn.data.tables import read_table
from espnet2_legonn.errors import command


def tokenizer_of(bpemodel: Path) -> transformers.PreTrainedTokenizerFast:
    """The recipe's sentencepiece model as a tokenizer.json: the same pieces in the same order."""
    spm = sentencepiece.SentencePieceProcessor(model_file=str(bpemodel))
    pieces = [(spm.id_to_piece(i), spm.get_score(i)) for i in range(spm.get_piece_size()) if not spm.is_control(i)]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram([*pieces, ("</s>", 0.0)], unk_id=0))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="</s>", bos_token="</s>"
    )


def batches(lines: list[list[int]], size: int, end: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Lines of similar length: what is read, `</s>` first, and what is to be written, -100 where there is nothing."""
    order = sorted(range(len(lines)), key=lambda i: (len(lines[i]), random.random()))
    groups, group = [], []
    for i in order:
        if (len(group) + 1) * (len(lines[i]) + 1) > size:
            groups, group = [*groups, group], []
        group.append(i)
    groups.append(group)
    random.shuffle(groups)
    for group in groups:
        longest = max(len(lines[i]) for i in group)
        read = torch.tensor([[end, *lines[i], *[end] * (longest - len(lines[i]))] for i in group])
        wanted = torch.tensor([[*lines[i], end, *[-100] * (longest - len(lines[i]))] for i in group])
        yield read, wanted


def loss_of(model: Any, read: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum over the tokens, in nats."""
    logits = model(input_ids=read, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100, reduction="sum")


@command
def main() -> int:
    """Train, and say the perplexity of the validation text after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="text of a data directory")
    parser.add_argument("--valid", type=Path, required=True, help="text of a data directory")
    parser.add_argument("--bpemodel", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    tokenizer = tokenizer_of(args.bpemodel)
    end = int(tokenizer.eos_token_id)
    train, valid = ([tokenizer(text).input_ids for text in read_table(p).values()] for p in (args.train, args.valid))
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=args.size, intermediate_size=3 * args.size, tie_word_embeddings=True,
            num_hidden_layers=args.layers, num_attention_heads=4, num_key_value_heads=4, head_dim=args.size // 4,
            max_position_embeddings=512, bos_token_id=end, eos_token_id=end, attention_dropout=0.1,
        )
    )  # fmt: skip
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, {len(train)} lines", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    total = args.epochs * sum(1 for _ in batches(train, 3000, end))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / 200, 0.5 + 0.5 * math.cos(math.pi * min(n / total, 1.0)))
    )
    for epoch in range(1, args.epochs + 1):
        model.train()
        for read, wanted in batches(train, 3000, end):
            loss = loss_of(model, read, wanted) / (wanted >= 0).sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            sums = [(float(loss_of(model, r, w)), int((w >= 0).sum())) for r, w in batches(valid, 3000, end)]
        nats = sum(s for s, _ in sums) / sum(n for _, n in sums)
        print(f"epoch {epoch}: perplexity of a token of the validation text {math.exp(nats):.2f}", flush=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
