"""Equations 1-21, each against plain NumPy float64 (reference.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.model.attention import MultiHeadAttention
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.model.length_control import LengthController
from espnet2_legonn.model.losses import ctc_loss
from espnet2_legonn.model.parts.beam_conv import BeamConvolution
from espnet2_legonn.model.parts.ctc import CTCInterface
from espnet2_legonn.model.parts.ingestor import Ingestor, collapse
from espnet2_legonn.model.parts.tokens import TokenInput
from espnet2_legonn.model.parts.wemb import WeightedEmbedding
from espnet2_legonn.model.transformer import CrossTransformer, EncoderBlock, FeedForward, TransformerEncoder
from tests.modules import reference as ref
from tests.modules import toys

D, HEADS = toys.D, toys.HEADS
LENGTHS = [5, 2, 7]
RATIOS = [(2, 1), (5, 6), (83, 100), (1, 1), (1, 3)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def make(module: torch.nn.Module) -> tuple[torch.nn.Module, ref.Weights]:
    module = toys.doubled(toys.scramble(module)).eval()
    return module, toys.weights(module)


def states(lengths: list[int] = LENGTHS, size: int = D) -> list[torch.Tensor]:
    return [torch.randn(n, size, dtype=torch.float64) for n in lengths]


def assert_items(
    found: torch.Tensor, lengths: torch.Tensor, wanted: list[np.ndarray], tolerance: float = 1e-10
) -> None:
    assert lengths.tolist() == [len(w) for w in wanted]
    for row, want in zip(found.detach().numpy(), wanted):
        np.testing.assert_allclose(row[: len(want)], want, rtol=tolerance, atol=tolerance)


# -- transformer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    module, w = make(MultiHeadAttention(D, HEADS))
    query, source = states([5, 5 if causal else 7])
    found = module(query[None], source[None], None, causal)
    np.testing.assert_allclose(
        found[0].detach(), ref.mha(query.numpy(), source.numpy(), w, HEADS, causal), atol=1e-12
    )


def test_feed_forward() -> None:
    module, w = make(FeedForward(toys.sizes()))
    (x,) = states([5])
    np.testing.assert_allclose(module(x).detach(), ref.ffn(x.numpy(), w), atol=1e-12)


def test_equations_10_and_11_one_block() -> None:
    module, w = make(EncoderBlock(toys.sizes()))
    (x,) = states([5])
    found = module(x[None], None)[0]
    np.testing.assert_allclose(found.detach(), ref.encoder_block(x.numpy(), w, HEADS), atol=1e-11)


def test_equations_10_and_11_stack_with_final_norm() -> None:
    module, w = make(TransformerEncoder(toys.sizes(3)))
    items = states()
    x, lengths = toys.padded(items, 50.0, 2)
    assert_items(module(x, lengths), lengths, [ref.encoder(i.numpy(), w, HEADS) for i in items])


def test_equations_13_to_16_stack_with_final_norm() -> None:
    module, w = make(CrossTransformer(toys.sizes(2)))
    targets, sources = states([4, 6, 3]), states()
    y, lengths = toys.padded(targets, 9.0)
    x, source_lengths = toys.padded(sources, 50.0, 2)
    pairs = list(zip(targets, sources))
    wanted = [ref.cross_stack(t.numpy(), s.numpy(), w, HEADS) for t, s in pairs]
    assert_items(module(y, x, source_lengths, lengths), lengths, wanted)
    wanted = [ref.cross_stack(t.numpy(), s.numpy(), w, HEADS, causal=True) for t, s in pairs]
    assert_items(module(y, x, source_lengths), lengths, wanted)


@pytest.mark.parametrize("ratio", RATIOS)
def test_equations_12_to_16_length_controller(ratio: tuple[int, int]) -> None:
    module, w = make(LengthController(toys.sizes(2), ratio, 9))
    items = states([5, 2, 12])
    found, slots = module(*toys.padded(items, 50.0, 2))
    assert_items(found, slots, [ref.length_controller(i.numpy(), w, HEADS, ratio, 9) for i in items])
    for row, k in zip(found, slots.tolist()):
        assert not row[k:].any(), "slots beyond K are zero"


def test_equation_12_needs_both_kinds_of_positions() -> None:
    module, _ = make(LengthController(toys.sizes(1), (1, 1), 9))
    x, lengths = toys.padded(states([5]))
    before = module(x, lengths)[0]
    with torch.no_grad():
        module.learned.weight.zero_()
    assert (module(x, lengths)[0] - before).abs().max() > 1e-3


def test_token_input() -> None:
    module, w = make(TokenInput(toys.SRC, D))
    items = [[3, 4, 5], [2], [1, 0, 4, 4]]
    found, lengths = module(*toys.padded(items))
    assert_items(found, lengths, [ref.token_input(i, w) for i in items])


def test_positions_are_vaswanis_also_when_the_table_grows() -> None:
    from espnet2_legonn.model.position import SinusoidalPositions

    module = SinusoidalPositions(D)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-7)):
        for length, start in ((5, 0), (700, 0), (3, 1500), (5, 0)):
            found = module(torch.zeros(length, D, dtype=dtype), dtype, start)
            np.testing.assert_allclose(found, ref.positions(length, D, start), rtol=0, atol=tolerance)


# -- CTC -------------------------------------------------------------------------------------------


def test_equation_5() -> None:
    module, w = make(CTCInterface(D, toys.PHN))
    (x,) = states([5])
    np.testing.assert_allclose(module(x).detach(), ref.ctc_distribution(x.numpy(), w), atol=1e-12)
    torch.testing.assert_close(module(x).exp().sum(-1), torch.ones(5, dtype=torch.float64))


CTC_CASES = [[1], [1, 2], [1, 1], [2, 1, 2], [2, 2, 1], [1, 1, 1], []]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_equation_6_by_enumeration_of_all_paths(steps: int) -> None:
    items = [case for case in CTC_CASES if ref.ctc_by_enumeration(np.zeros((steps, 3)), case) < np.inf]
    log_probs = toys.random_log_probs(len(items), steps + 2, 3)
    lengths = torch.full((len(items),), steps)
    found, impossible = ctc_loss(log_probs, lengths, *toys.labels(*items, extra=1))
    assert not impossible.any()
    for loss, row, item in zip(found, log_probs.numpy(), items):
        wanted = ref.ctc_by_enumeration(row[:steps], item)
        assert loss.item() == pytest.approx(wanted, rel=1e-10)
        assert ref.ctc_by_forward(row[:steps], item) == pytest.approx(wanted, rel=1e-10)


def test_equation_6_by_the_forward_algorithm_in_a_padded_batch() -> None:
    items = [[3, 3, 3, 4], [1, 5, 1, 5, 5, 2], [2], []]
    lengths = torch.tensor([9, 14, 4, 6])
    log_probs = toys.random_log_probs(4, 17, 6)
    found, impossible = ctc_loss(log_probs, lengths, *toys.labels(*items, extra=2))
    wanted = [ref.ctc_by_forward(p[:n], i) for p, n, i in zip(log_probs.numpy(), lengths.tolist(), items)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert not impossible.any()


@pytest.mark.parametrize("labels", CTC_CASES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_infeasible_is_exactly_where_no_path_exists(labels: list[int], steps: int) -> None:
    no_path = ref.ctc_by_enumeration(np.zeros((steps, 3)), labels) == np.inf
    loss, impossible = ctc_loss(
        toys.random_log_probs(1, steps, 3), torch.tensor([steps]), *toys.labels(labels, extra=1)
    )
    assert bool(impossible[0]) == no_path
    assert torch.isfinite(loss).all() and (loss[0] == 0) == no_path


def test_a_batch_of_empty_labels_alone() -> None:
    log_probs = toys.random_log_probs(2, 3, 4)
    empty = torch.zeros(2, 0, dtype=torch.long)
    losses, impossible = ctc_loss(log_probs, torch.tensor([3, 2]), empty, torch.tensor([0, 0]))
    np.testing.assert_allclose(losses, [-log_probs[0, :3, 0].sum(), -log_probs[1, :2, 0].sum()])
    assert not impossible.any()


def test_greedy_ctc() -> None:
    log_probs = toys.random_log_probs(6, 9, 4, sharp=4.0)
    lengths = torch.tensor([9, 1, 4, 7, 9, 5])
    vocab = Vocabulary(tuple(toys.tokens(4, "p")), "phn")
    marginals = Marginals(log_probs, lengths, Interface(vocab))
    wanted = [ref.greedy(p[:n]) for p, n in zip(log_probs.numpy(), lengths.tolist())]
    assert marginals.greedy_ids() == wanted
    assert [marginals[i].greedy_ids()[0] for i in range(6)] == wanted
    special = [[2, 2, 0, 2], [0, 0, 0, 0], [2, 2, 2, 2]]
    one_hot = F.one_hot(torch.tensor(special), 4).float().clamp(min=1e-9).log()
    assert Marginals(one_hot, torch.tensor([4, 4, 3]), Interface(vocab)).greedy_ids() == [[2, 2], [], [2]]


def test_marginals_index_from_the_end() -> None:
    vocab = Vocabulary(tuple(toys.tokens(4, "p")), "phn")
    marginals = Marginals(toys.random_log_probs(3, 5, 4), torch.tensor([5, 2, 4]), Interface(vocab))
    assert marginals[-1].log_probs.shape == (1, 4, 4)


# -- ingestors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [1, 3, 5])
def test_equation_17_weighted_embedding(field: int) -> None:
    module, w = make(WeightedEmbedding(toys.PHN, D, field))
    log_probs, lengths = toys.random_log_probs(3, 8, toys.PHN), torch.tensor([8, 1, 5])
    wanted = [
        ref.weighted_embedding(np.exp(p[:n]), w["weight"])
        for p, n in zip(log_probs.numpy(), lengths.tolist())
    ]
    assert_items(module(log_probs, lengths), lengths, wanted)


@pytest.mark.parametrize(("vocab", "k"), [(toys.PHN, 1), (toys.PHN, 3), (toys.PHN, toys.PHN), (900, 2)])
def test_equation_17_of_the_likeliest_tokens(vocab: int, k: int) -> None:
    """As with all others' probabilities at zero; the large vocabulary is searched by blocks. So are the gradients."""
    module, w = make(WeightedEmbedding(vocab, D, 1, k))
    log_probs, lengths = toys.random_log_probs(3, 8, vocab).requires_grad_(), torch.tensor([8, 1, 5])
    probs = log_probs.detach().exp().numpy()
    kept = np.where(probs >= np.sort(probs, -1)[..., [-k]], probs, 0.0)
    found = module(log_probs, lengths)
    wanted = [ref.weighted_embedding(p[:n], w["weight"]) for p, n in zip(kept, lengths.tolist())]
    assert_items(found.detach(), lengths, wanted)
    found.sum().backward()
    gradient = kept * w["weight"].sum(-1) * (np.arange(8) < lengths.numpy()[:, None])[..., None]
    assert log_probs.grad is not None
    np.testing.assert_allclose(log_probs.grad.numpy(), gradient, atol=1e-10)


def test_equation_17_of_a_certain_token_is_its_row() -> None:
    module, w = make(WeightedEmbedding(4, D))
    certain = F.one_hot(torch.tensor([[0, 3]]), 4).double().log()
    found = module(certain, torch.tensor([2]))[0].detach()
    np.testing.assert_allclose(found, w["weight"][[0, 3]], atol=1e-12)  # the blank has a row as any other


@pytest.mark.parametrize("field", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_equations_19_and_20_beam_convolution(field: int, k: int) -> None:
    module, w = make(BeamConvolution(toys.PHN, D, field, k, 4))
    log_probs, lengths = toys.random_log_probs(3, 7, toys.PHN), torch.tensor([7, 1, 4])
    wanted = [ref.beam_convolution(np.exp(p[:n]), w, k) for p, n in zip(log_probs.numpy(), lengths.tolist())]
    assert_items(module(log_probs, lengths), lengths, wanted)


def test_equation_19_ranks_but_no_probabilities_matter() -> None:
    module, _ = make(BeamConvolution(5, D, 1, 3, 4))
    p = torch.tensor([[0.05, 0.4, 0.1, 0.3, 0.15]]).double()
    lengths = torch.tensor([1])
    same_ranks = torch.tensor([[0.01, 0.7, 0.02, 0.17, 0.1]]).double()
    other_ranks = torch.tensor([[0.05, 0.3, 0.1, 0.4, 0.15]]).double()
    first = module(p[None].log(), lengths)
    assert torch.equal(first, module(same_ranks[None].log(), lengths))
    assert not torch.allclose(first, module(other_ranks[None].log(), lengths))


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("kind", ["wemb1", "wemb3", "beam1", "beam3"])
def test_equations_17_18_20_21_ingestors(kind: str, merges: bool) -> None:
    field, k = int(kind[-1]), 3 if kind.startswith("beam") else None
    embed = WeightedEmbedding(toys.PHN, D, field) if k is None else BeamConvolution(toys.PHN, D, field, k, 4)
    module, w = make(Ingestor(embed, toys.sizes(2), merges))
    log_probs, lengths = toys.random_log_probs(3, 9, toys.PHN, seed=3), torch.tensor([9, 1, 6])
    items = list(zip(log_probs.numpy(), lengths.tolist()))
    wanted = [ref.ingestor(np.exp(p[:n]), w, HEADS, k, merges) for p, n in items]
    found, new_lengths = module(log_probs, lengths)
    assert_items(found, new_lengths, wanted)


# -- collapse (DESIGN 6b) --------------------------------------------------------------------------


def from_path(path: list[int], size: int, seed: int = 0) -> np.ndarray:
    """Random distributions whose argmax follows ``path``."""
    logits = np.random.default_rng(seed).normal(size=(len(path), size))
    logits[np.arange(len(path)), path] = logits.max(-1) + 0.5
    return ref.log_softmax(logits)


PATHS = [
    [0, 2, 2, 0, 2, 3, 3, 1, 0],
    [0, 0, 0],
    [2],
    [0],
    [1, 1, 1, 1],
    [3, 0, 3, 0, 0],
    [0, 0, 1],
]


def test_collapse_against_a_loop() -> None:
    items = [from_path(p, 4, i) for i, p in enumerate(PATHS)]
    x, lengths = toys.padded([torch.from_numpy(i) for i in items], 0.0, 2)
    found, new_lengths = collapse(x, lengths)
    assert_items(found.exp(), new_lengths, [ref.collapse(np.exp(i)) for i in items], 1e-12)
    assert new_lengths.tolist() == [4, 1, 1, 1, 1, 2, 1]
    torch.testing.assert_close(found[0, :4].exp().sum(-1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_collapse_of_random_batches(seed: int) -> None:
    log_probs = toys.random_log_probs(8, 14, 4, seed)
    lengths = torch.randint(1, 15, (8,), generator=torch.Generator().manual_seed(seed))
    found, new_lengths = collapse(log_probs, lengths)
    items = [ref.collapse(np.exp(p[:n])) for p, n in zip(log_probs.numpy(), lengths.tolist())]
    assert_items(found.exp(), new_lengths, items, 1e-12)
    assert found.shape[1] == max(len(i) for i in items)


def test_collapse_agrees_with_greedy_ctc() -> None:
    log_probs = toys.random_log_probs(1, 30, 5)
    merged, _ = collapse(log_probs, torch.tensor([30]))
    assert merged[0].argmax(-1).tolist() == ref.greedy(log_probs[0].numpy())


def test_gradients_flow_through_the_averages() -> None:
    path = [0, 2, 2, 2, 0, 0, 3]
    logits = torch.from_numpy(from_path(path, 4))[None].requires_grad_()
    weight = torch.randn(2, 4, dtype=torch.float64)

    def objective(values: torch.Tensor) -> torch.Tensor:
        merged, lengths = collapse(values.log_softmax(-1), torch.tensor([7]))
        assert lengths.item() == 2
        return (merged[0].exp() * weight).sum()

    assert torch.autograd.gradcheck(objective, (logits,))
    (gradient,) = torch.autograd.grad(objective(logits), logits)
    probs = logits[0].detach().softmax(-1)
    for t, token in enumerate(path):
        share = {0: 0.0, 2: 1 / 3, 3: 1.0}[token]
        w = weight[0 if token == 2 else 1]
        wanted = share * probs[t] * (w - (probs[t] * w).sum())
        torch.testing.assert_close(gradient[0, t], wanted)


# -- whole modules and chains (1-4, 7, 9) ----------------------------------------------------------

SOURCES = [[3, 4, 5, 6], [2, 3], [7, 1, 2, 2, 5, 6]]
PHONES = [[2, 3], [4], [2, 2, 3, 4]]
WORDS = [[2, 3, 4], [5], [2, 2, 4, 5]]


def reference_module(w: ref.Weights, x: np.ndarray, description: dict) -> np.ndarray:
    """One encoder module of toys: log-probabilities or states of one item."""
    kind = description["input"]["type"]
    if kind == "tokens":
        h = ref.token_input(x, ref.part(w, "input"))
    else:
        k = description["input"].get("k")
        h = ref.ingestor(
            np.exp(x), ref.part(w, "input"), HEADS, k, description["input"].get("collapse", False)
        )
    h = ref.encoder(h, ref.part(w, "body"), HEADS)
    ratio = {"2": (2, 1), "1/1.2": (5, 6)}.get(description.get("length_control", {}).get("ratio"))
    if ratio is not None:
        h = ref.length_controller(h, ref.part(w, "length_control"), HEADS, ratio, 20)
    return (
        h
        if description["output"].get("type") == "states"
        else ref.ctc_distribution(h, ref.part(w, "interface"))
    )


def reference_losses(
    model: Chain, modules: list[dict], targets: dict[str, list[list[int]]]
) -> dict[str, float]:
    """Sum of each module's loss over SOURCES, item by item."""
    w, losses = toys.weights(model), dict.fromkeys(targets, 0.0)
    for i, x in enumerate(SOURCES):
        share = 1.0
        for m in modules:
            own = ref.part(w, f"mods.{m['name']}")
            if m["name"] == "decoder":
                read = m["input"]
                memory = (
                    x
                    if read["type"] == "states"
                    else ref.ingestor(
                        np.exp(x), ref.part(own, "input"), HEADS, read.get("k"), read.get("collapse", False)
                    )
                )
                log_probs = ref.decoder(memory, targets["decoder"][i], own, HEADS)
                losses["decoder"] += share * ref.cross_entropy(
                    log_probs, targets["decoder"][i], m["output"]["label_smoothing"]
                )
                break
            x = reference_module(own, x, m)
            if "ctc" in m["output"]:
                weight = m["output"]["ctc"]["weight"]
                log_probs = ref.ctc_distribution(x, ref.part(own, "interface"))
                losses[m["name"]] += weight * ref.ctc_by_forward(log_probs, targets[m["name"]][i])
                share = 1 - weight
            elif m["name"] in targets:
                losses[m["name"]] += m["output"]["ctc_weight"] * ref.ctc_by_forward(x, targets[m["name"]][i])
    return losses


def torch_losses(model: Chain, targets: dict[str, list[list[int]]]) -> dict:
    return model.losses(*toys.padded(SOURCES), {n: toys.labels(*t) for n, t in targets.items()})


BASELINE = [
    {"name": "enc", "input": toys.TEXT, "body": toys.body(), "output": {"type": "states"}},
    toys.decoder({"type": "states"}, tie=False),
]
CHAINS = {
    "baseline": (BASELINE, {"decoder": WORDS}),
    # w CTC + (1 - w) CE, as ESPnet's ctc_weight; a length controller, since the source is shorter than the target
    "hybrid": (
        [{**toys.encoder("enc", toys.TEXT, "bpe", "2"), "output": toys.HYBRID}, toys.decoder({"type": "states"})],
        {"enc": WORDS, "decoder": WORDS},
    ),
    "wemb": (toys.two(toys.wemb("bpe")), {"enc": WORDS, "decoder": WORDS}),
    "beam": (toys.two(toys.beam_conv("bpe", receptive_field=3)), {"enc": WORDS, "decoder": WORDS}),
    "smoothed": (
        toys.two(toys.wemb("bpe", receptive_field=5), label_smoothing=0.1, tie=False),
        {"enc": WORDS, "decoder": WORDS},
    ),
    "collapsed": (toys.two(toys.wemb("bpe", collapse=True)), {"enc": WORDS, "decoder": WORDS}),
    "weighted": (toys.two(toys.wemb("bpe"), {"ctc_weight": 0.3}), {"enc": WORDS, "decoder": WORDS}),
    "three": (toys.three(), {"first": PHONES, "second": WORDS, "decoder": WORDS}),
    "three_beam": (
        toys.three(toys.beam_conv("phn"), toys.beam_conv("bpe")),
        {"first": PHONES, "second": WORDS, "decoder": WORDS},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_equation_9_and_all_below_it_end_to_end(name: str) -> None:
    """(1-3) in the baseline, (5-8) and the ingestors else; each term over its own number of target tokens."""
    modules, targets = CHAINS[name]
    model = toys.doubled(toys.chain(modules, seed=4, sharp=3.0)).eval()
    found, wanted = torch_losses(model, targets), reference_losses(model, modules, targets)
    assert list(found) == list(targets)
    for part, loss in found.items():
        ends = len(SOURCES) if part == "decoder" else 0  # <sos/eos> is a target of the decoder alone
        assert loss.tokens.item() == sum(map(len, targets[part])) + ends
        assert loss.total.item() == pytest.approx(wanted[part], rel=1e-10)
    objective = sum(loss.total / loss.tokens for loss in found.values())
    counted = sum(
        wanted[p] / (sum(map(len, t)) + (len(SOURCES) if p == "decoder" else 0)) for p, t in targets.items()
    )
    assert objective.item() == pytest.approx(counted, rel=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_pytorchs(smoothing: float) -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    wanted = ref.cross_entropy(ref.log_softmax(logits.numpy()), [2, 3, 3, 0], smoothing)
    targets = torch.tensor([2, 3, 3, 0, 6])
    found = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_equations_4_and_7_condition_on_earlier_tokens_alone() -> None:
    model = toys.chain(toys.two(toys.wemb("bpe"))).double().eval()
    log_probs, lengths = toys.random_log_probs(1, 6, toys.BPE), torch.tensor([6])
    first, _ = model["decoder"].last(log_probs, lengths, *toys.labels([2, 3, 4, 5]))
    other, _ = model["decoder"].last(log_probs, lengths, *toys.labels([2, 3, 5, 2]))
    torch.testing.assert_close(first[:, :3], other[:, :3], rtol=0, atol=1e-10)
    assert (first[:, 3] - other[:, 3]).abs().max() > 1e-3


def test_targets_end_with_sos_eos_and_are_minus_one_beyond() -> None:
    model = toys.chain(toys.two(toys.wemb("bpe")))
    log_probs = toys.random_log_probs(2, 6, toys.BPE).float()
    _, targets = model["decoder"].last(log_probs, torch.tensor([6, 4]), *toys.labels([2, 3, 4], [5], extra=1))
    assert targets.tolist() == [[2, 3, 4, 6, -1], [5, 6, -1, -1, -1]]


def test_accuracy_counts_right_tokens() -> None:
    modules, targets = CHAINS["wemb"]
    model = toys.doubled(toys.chain(modules, seed=4)).eval()
    right, tokens = torch_losses(model, targets)["decoder"].stats["acc"]
    w, wanted = toys.weights(model), 0
    for x, words in zip(SOURCES, WORDS):
        log_probs = reference_module(ref.part(w, "mods.enc"), x, modules[0])
        own = ref.part(w, "mods.decoder")
        memory = ref.ingestor(np.exp(log_probs), ref.part(own, "input"), HEADS)
        wanted += int((ref.decoder(memory, words, own, HEADS).argmax(-1) == [*words, toys.BPE - 1]).sum())
    assert (right.item(), tokens.item()) == (wanted, 11)


def test_tied_matrices_are_one_and_stay_within_the_decoder() -> None:
    model = toys.chain(toys.two(toys.wemb("bpe")))
    decoder = model["decoder"].last
    assert decoder.embed.weight is decoder.output.weight is decoder.input.embed.weight
    assert model["enc"].last.interface.ctc_lo.weight is not decoder.embed.weight
    untied = toys.chain(toys.two(toys.wemb("bpe"), tie=False))["decoder"].last
    assert untied.embed.weight is not untied.output.weight is not untied.input.embed.weight
