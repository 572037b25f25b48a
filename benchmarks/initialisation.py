"""What initial weights are worth: rms at every input, and scores over seeds of the same training from other weights.

    python benchmarks/initialisation.py rms                                  the table of docs/initialisation.md
    python benchmarks/initialisation.py toy --variants ours pytorch --seeds 1 2 3
    python benchmarks/initialisation.py speech --raw egs2/mini_legonn/legonn1/dump/raw --updates 400
    python benchmarks/initialisation.py mt --raw egs2/mini_legonn/legonn1/dump/raw --variants ours pytorch flat

A variant multiplies weights after they were drawn, so models of one seed differ in nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from espnet2_legonn import LegoNN  # noqa: E402
from espnet2_legonn.model import build  # noqa: E402
from espnet2_legonn.model.attention import MultiHeadAttention  # noqa: E402
from espnet2_legonn.model.chain import Labels  # noqa: E402
from espnet2_legonn.model.inputs import read_audio  # noqa: E402
from espnet2_legonn.model.length_control import LengthController  # noqa: E402
from espnet2_legonn.model.losses import ctc_loss  # noqa: E402
from espnet2_legonn.model.parts.beam_conv import BeamConvolution  # noqa: E402
from espnet2_legonn.model.parts.frames import ConvSubsampling  # noqa: E402

Change = Callable[[nn.Module], None]


def to_std(weight: torch.Tensor, std: float) -> None:
    """Scale to this standard deviation, in place."""
    weight.mul_(std / weight.std())


def beam_conv(power: float | None, unit: bool = False) -> Change:
    """Rank r weighs (r + 1) ** -power, all ranks together 1; None is PyTorch's own. ``unit``: embeddings of std 1."""

    def change(module: nn.Module) -> None:
        if not isinstance(module, BeamConvolution):
            return
        embed_size, field = module.embed.embedding_dim, module.conv.kernel_size[0]
        ranks = module.conv.weight.unflatten(1, (module.k, embed_size)).unbind(1)
        embed = 1.0 if unit else embed_size**-0.5
        to_std(module.embed.weight, embed)
        share = torch.arange(1, module.k + 1) ** -(power or 0.0)
        share /= share.square().sum().sqrt()
        for weight, part in zip(ranks, share.tolist()):
            std = (3 * module.k * embed_size * field) ** -0.5
            to_std(weight, std if power is None else part / (embed * (embed_size * field) ** 0.5))

    return change


def attention(gain: float) -> Change:
    """Queries, keys and values: Xavier's times ``gain``."""

    def change(module: nn.Module) -> None:
        if isinstance(module, MultiHeadAttention):
            for linear in (module.linear_q, module.linear_k, module.linear_v):
                to_std(linear.weight, gain * linear.in_features**-0.5)

    return change


def queries(std: float) -> Change:
    """Learned positions of the length controller."""

    def change(module: nn.Module) -> None:
        if isinstance(module, LengthController):
            to_std(module.learned.weight, std)

    return change


def convolutions(conv: float, out: float, bias: bool = False) -> Change:
    """Variance of weights times their fan-in: 1/3 is PyTorch's, 2 is He's; ``bias``: leave PyTorch's."""

    def change(module: nn.Module) -> None:
        if isinstance(module, ConvSubsampling):
            for part in (*module.convs, module.out):
                weight = part.weight
                assert isinstance(weight, torch.Tensor) and isinstance(part.bias, torch.Tensor)
                to_std(weight, ((out if part is module.out else conv) / weight[0].numel()) ** 0.5)
                part.bias.mul_(float(bias))

    return change


def as_espnet(module: nn.Module) -> None:
    """Speech as in ESPnet: PyTorch's weights, and steps times sqrt(D) at run time."""
    if isinstance(module, ConvSubsampling):
        scale = module.out.out_features**0.5
        convolutions(1 / 3, 1 / 3, bias=True)(module)
        module.register_forward_hook(lambda _module, _inputs, found: (found[0] * scale, found[1]))


VARIANTS: dict[str, list[Change]] = {
    "ours": [],
    "pytorch": [beam_conv(None)],
    "flat": [beam_conv(0.0)],
    "rank": [beam_conv(1.0)],
    "rank_unit": [beam_conv(1.0, unit=True)],
    "qkv": [attention(2**-0.5)],
    "queries": [queries(0.7)],
    "queries_quarter": [queries(0.25)],
    "speech_pytorch": [convolutions(1 / 3, 1 / 3, bias=True)],
    "speech_he1": [convolutions(2.0, 1.0)],
    "speech_espnet": [as_espnet],
}


@contextlib.contextmanager
def initialised(variant: str) -> Iterator[None]:
    """Modules built meanwhile begin with the weights of this variant."""
    original = build.build_module

    def changed(*args: Any) -> nn.Module:
        module = original(*args)
        with torch.no_grad():
            for part in module.modules():
                for change in VARIANTS[variant]:
                    change(part)
        return module

    with mock.patch.object(build, "build_module", changed):
        yield


class Crowd:
    """Chains of one architecture trained side by side on the same sentences: one pass for all of them.

    A model of this size costs PyTorch's overhead, not arithmetic; together twenty cost little more than three.

    Args:
        chains: of one architecture, with their own weights.
        names: of their modules that are trained.
        rate, steps: AdamW with linear warm-up and decay, as in tests/learn.
    """

    def __init__(self, chains: list[LegoNN], names: list[str], rate: float, steps: int) -> None:
        self.modules = {n: [c.mods[n] for c in chains] for n in names}
        self.states = {n: torch.func.stack_module_state(list(m)) for n, m in self.modules.items()}
        self.parameters = [p for parameters, _ in self.states.values() for p in parameters.values()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        warm = steps // 8
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda s: min((s + 1) / warm, max(steps - s, 1) / (steps - warm))
        )

    def __call__(self, name: str, inputs: tuple[torch.Tensor, ...], each: tuple[int | None, ...]) -> Any:
        """All modules of this name; ``each``: 0 where every model has an input of its own."""
        module = self.modules[name][0]

        def one(parameters: Any, buffers: Any, *args: torch.Tensor) -> Any:
            return torch.func.functional_call(module, (parameters, buffers), args)

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels know no vmap
            return torch.vmap(one, (0, 0, *each), randomness="different")(*self.states[name], *inputs)

    def step(self, losses: torch.Tensor) -> None:
        """One update of every model by its own loss, (models,); gradients are clipped for each by itself."""
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        for grad in grads:
            grad.mul_((1 / norm.clamp(min=1)).view(-1, *[1] * (grad.dim() - 1)))
        self.optimizer.step()
        self.schedule.step()

    def train(self, on: bool) -> None:
        """Dropout on or off."""
        for modules in self.modules.values():
            modules[0].train(on)


def decoded(crowd: Crowd, marginals: tuple[torch.Tensor, torch.Tensor], labels: Labels, own: bool) -> Any:
    """Cross-entropy of a token (models,), and which sentences greedy search gets right (models, B).

    Args:
        marginals: log-probabilities and slots, one for each model (``own``) or one for all.
    """
    each = (0, 0, None, None) if own else (None,) * 4
    logits, targets = crowd("decoder", (*marginals, *labels), each)
    models, batch = logits.shape[:2]
    smooth = F.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), ignore_index=-1, reduction="none", label_smoothing=0.1
    )
    # Greedy search gets a sentence right just if every token is best behind the right ones.
    right = ((logits.argmax(-1) == targets) | (targets < 0)).all(-1)
    return smooth.view(models, -1).sum(1) / (labels.lengths.sum() + batch), right


def translated(crowd: Crowd, x: torch.Tensor, lengths: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
    """Losses (models,), and which sentences interface and decoder get right, (models, B) each."""
    log_probs, slots = crowd("encoder", (x, lengths), (None, None))
    models = len(log_probs)
    wanted = [labels.ids.repeat(models, 1), labels.lengths.repeat(models)]
    ctc, _ = ctc_loss(log_probs.flatten(0, 1), slots.flatten(0, 1), *wanted)
    loss, right = decoded(crowd, (log_probs, slots), labels, own=True)
    rows = [row[:n] for row, n in zip(labels.ids.tolist(), labels.lengths.tolist())]
    said = [
        [[t for t, _ in itertools.groupby(row[:n]) if t] for row, n in zip(rows_, lengths_)]
        for rows_, lengths_ in zip(log_probs.argmax(-1).tolist(), slots.tolist())
    ]
    heard = torch.tensor([[row == target for row, target in zip(found, rows)] for found in said])
    return loss + ctc.view(models, -1).sum(1) / labels.lengths.sum(), heard, right


def built(args: argparse.Namespace, description: dict[str, Any]) -> list[LegoNN]:
    """A chain for each variant and seed."""
    chains = []
    for variant, seed in itertools.product(args.variants, args.seeds):
        torch.manual_seed(seed)
        with initialised(variant):
            chains.append(LegoNN.from_config(description).train())
    return chains


def show(args: argparse.Namespace, what: str, found: torch.Tensor) -> None:
    """A row for each variant: (models,) in the order of ``built``."""
    for variant, row in zip(args.variants, found.view(len(args.variants), -1).tolist()):
        values = " ".join(f"{v:.3g}" for v in row)
        print(f"| {variant} | {what} | {statistics.mean(row):.3g} | {values} |", flush=True)


def toy(args: argparse.Namespace) -> None:
    """Percent of unseen toy sentences that are right, for each variant and seed: interface and pair."""
    from tests.learn.conftest import BEAM_CONV, WEMB, Language, Recipe, Toy, padded

    language = Language() if args.large else Language(subjects=4, objects=4, adjectives=3, verbs=4, adverbs=2)
    bench = Toy(language)
    ingestor = {**dict(BEAM_CONV), "k": args.k} if args.ingestor == "beam_conv" else dict(WEMB)
    recipe = Recipe(language, 0, args.steps, blocks=1, dropout=args.dropout, ingestor=tuple(ingestor.items()))
    chains = built(args, bench.description(recipe))
    source, target = (chains[0].vocabs[n].ids for n in ("src", "tgt"))

    def batch(pairs: list[Any]) -> Any:
        x, lengths = padded([[source[w] for w in s] for s, _ in pairs], 0)
        return x, lengths, Labels(*padded([[target[w] for w in t] for _, t in pairs], -1))

    crowd = Crowd(chains, ["encoder", "decoder"], bench.rate, args.steps)
    unseen = frozenset(" ".join(source) for source, _ in bench.test)
    pairs = language.pairs(3 * bench.batch * args.steps, args.seeds[0], unseen)
    pairs = [pair for pair in pairs if len(pair[0]) <= args.longest]
    tests = {
        "": [pair for pair in bench.test if len(pair[0]) <= args.longest],
        " longer than in training": [pair for pair in bench.test if len(pair[0]) > args.longest],
    }
    print("| variant | | mean | seeds |\n|---|---|---|---|")
    for step in range(args.steps):
        crowd.step(translated(crowd, *batch(pairs[step * bench.batch : (step + 1) * bench.batch]))[0])
        if (step + 1) % args.every == 0:
            crowd.train(False)
            for name, test in tests.items():
                if test:
                    with torch.no_grad():
                        _, heard, right = translated(crowd, *batch(test))
                    show(args, f"interface{name}, {step + 1} updates", 100 * heard.float().mean(1))
                    show(args, f"pair{name}, {step + 1} updates", 100 * right.float().mean(1))
            crowd.train(True)


Read = tuple[tuple[torch.Tensor, torch.Tensor], Labels]


def interface_of(pack: LegoNN, folder: Path, ids: Callable[[str], list[int]], size: int) -> list[Read]:
    """What a trained encoder says about a set, in batches of ``size`` sentences of similar length, with the targets."""
    from tests.learn.conftest import padded

    texts = [
        dict(line.split(maxsplit=1) for line in (folder / n).read_text().splitlines()) for n in ("src_text", "text")
    ]
    keys = sorted(texts[0], key=lambda k: (len(texts[0][k]), k))
    found = []
    with torch.no_grad():
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            said = pack.marginals([texts[0][k] for k in part])
            found.append(((said.log_probs, said.lengths), Labels(*padded([ids(texts[1][k]) for k in part], -1))))
    return found


def mt(args: argparse.Namespace) -> None:
    """The demo's BeamConv decoder behind its trained De-En encoder, which stays: own pair and plugged on Romanian."""
    plan = yaml.safe_load((ROOT / "egs2/mini_legonn/legonn1/conf/plan.yaml").read_text())
    de, ro = (LegoNN.from_pretrained(next((ROOT / "packs").glob(f"{n}-*.zip")))[:1] for n in ("mt_de_en", "ro_encoder"))
    vocab = de.vocabs[plan["modules"]["de"]["output"]["vocab"]]
    description = {
        "vocabs": {"bpe_en": {"tokens": list(vocab.tokens), "unit": "word"}},
        "modules": [plan["modules"]["beam_conv"]],
    }
    chains = built(args, description)
    train = interface_of(de, args.raw / "train_de_en", vocab.encode, 32)
    own, plugged = (
        interface_of(pack, args.raw / name, vocab.encode, 64) for pack, name in ((de, "test_de_en"), (ro, "test_ro_en"))
    )
    crowd, order = Crowd(chains, ["decoder"], 3e-3, args.steps), random.Random(0)
    print("| variant | | mean | seeds |\n|---|---|---|---|")
    for step in range(args.steps):
        crowd.step(decoded(crowd, *order.choice(train), own=False)[0])
        if (step + 1) % args.every == 0:
            crowd.train(False)
            for name, batches in (("own pair", own), ("plugged on Romanian", plugged)):
                with torch.no_grad():
                    losses, rights = zip(*(decoded(crowd, *b, own=False) for b in batches))
                show(args, f"{name}, {step + 1} updates: % sentences right", 100 * torch.cat(rights, 1).float().mean(1))
                show(args, f"{name}, {step + 1} updates: cross-entropy", torch.stack(losses).mean(0))
            crowd.train(True)


class Sounds:
    """A set of the mini corpus with its phonemes, in memory.

    Args:
        folder: ``dump/raw/<set>``; paths of ``wav.scp`` are from the recipe's folder.
        ids: of phonemes.
    """

    def __init__(self, folder: Path, ids: dict[str, int]) -> None:
        root = folder.resolve().parents[2]
        files = dict(line.split() for line in (folder / "wav.scp").read_text().splitlines())
        labels = dict(line.split(maxsplit=1) for line in (folder / "text_phn").read_text().splitlines())
        self.items = [
            (torch.from_numpy(read_audio(root / file, 16000)).float(), [ids[p] for p in labels[utterance].split()])
            for utterance, file in files.items()
        ]
        self.items.sort(key=lambda item: len(item[0]))

    def batches(self, bins: int) -> list[tuple[torch.Tensor, torch.Tensor, Labels]]:
        """Items of similar length, at most ``bins`` samples with padding."""
        from tests.learn.conftest import padded

        groups: list[list[Any]] = [[]]
        for item in self.items:
            if (len(groups[-1]) + 1) * len(item[0]) > bins:
                groups.append([])
            groups[-1].append(item)
        return [
            (
                nn.utils.rnn.pad_sequence([wave for wave, _ in group], batch_first=True),
                torch.tensor([len(wave) for wave, _ in group]),
                Labels(*padded([ids for _, ids in group], -1)),
            )
            for group in groups
        ]


def speech_ctc(variant: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """CTC loss of a phoneme (nats) on unseen speech after so many updates: the demo's recogniser, as it trains it."""
    recipe = args.raw.resolve().parents[1]
    plan = yaml.safe_load((ROOT / "egs2/mini_legonn/legonn1/conf/plan.yaml").read_text())
    tokens = (recipe / plan["vocabs"]["phn_en"]["tokens"]).read_text().split()
    torch.manual_seed(seed)
    vocabs = {"phn_en": {"tokens": tokens, "unit": "phn"}}
    with initialised(variant):
        chain = LegoNN.from_config({"vocabs": vocabs, "modules": [plan["modules"]["phonemes"]]})
    train, valid = (
        Sounds(args.raw / s, chain.vocabs["phn_en"].ids).batches(600_000) for s in ("train_asr", "valid_asr")
    )
    optimizer = torch.optim.AdamW(chain.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warm = 300
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warm, (warm / (s + 1)) ** 0.5))
    order, scores = random.Random(seed), {}
    chain.train()

    def loss(batch: tuple[torch.Tensor, torch.Tensor, Labels]) -> Any:
        return chain.losses(batch[0], batch[1], {chain.names[0]: batch[2]})[chain.names[0]]

    for update in range(1, args.updates + 1):
        part = loss(order.choice(train))
        optimizer.zero_grad(set_to_none=True)
        (part.total / part.tokens).backward()
        torch.nn.utils.clip_grad_norm_(chain.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if update % args.every == 0:
            chain.eval()
            with torch.no_grad():
                parts = [loss(batch) for batch in valid]
            scores[str(update)] = float(sum(p.total for p in parts) / sum(p.tokens for p in parts))
            chain.train()
    return scores


def scales(args: argparse.Namespace) -> None:
    """rms of the content at every input, as in docs/initialisation.md; positions have 0.71."""
    from tests.modules import contents

    print("| input | " + " | ".join(contents.SIZES) + " |\n|---|" + "---|" * len(contents.SIZES))
    for name in contents.contents("demo"):
        values = [statistics.mean(contents.measure(size, name, seed) for seed in args.seeds) for size in contents.SIZES]
        print(f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + " |", flush=True)


def speech(args: argparse.Namespace) -> None:
    """``speech_ctc`` for each seed and variant."""
    found: dict[str, dict[str, list[float]]] = {v: {} for v in args.variants}
    for seed, variant in itertools.product(args.seeds, args.variants):
        scores = speech_ctc(variant, seed, args)
        print(f"# {variant}, seed {seed}: {scores}", flush=True)
        for updates, value in scores.items():
            found[variant].setdefault(updates, []).append(value)
    print("| variant | updates | mean | seeds |\n|---|---|---|---|")
    for variant, columns in found.items():
        for updates, values in columns.items():
            print(f"| {variant} | {updates} | {statistics.mean(values):.2f} | {' '.join(f'{v:.2f}' for v in values)} |")


def main() -> None:
    """See the examples above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rms")
    p = commands.add_parser("toy")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--every", type=int, default=150)
    p.add_argument("--longest", type=int, default=99, help="words of a training sentence; longer ones are scored apart")
    p.add_argument("--large", action="store_true", help="thirty words instead of a dozen")
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--k", type=int, default=4)
    p.add_argument("--ingestor", choices=["wemb", "beam_conv"], default="beam_conv")
    p = commands.add_parser("mt")
    p.add_argument("--raw", type=Path, default=ROOT / "egs2/mini_legonn/legonn1/dump/raw")
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--every", type=int, default=250)
    p = commands.add_parser("speech")
    p.add_argument("--raw", type=Path, default=ROOT / "egs2/mini_legonn/legonn1/dump/raw")
    p.add_argument("--updates", type=int, default=400)
    p.add_argument("--every", type=int, default=100)
    for name, p in commands.choices.items():
        if name != "rms":  # the table shows the code as it is
            p.add_argument("--variants", nargs="+", choices=VARIANTS, default=["ours"])
        p.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"rms": scales, "toy": toy, "mt": mt, "speech": speech}[args.command](args)


if __name__ == "__main__":
    main()
