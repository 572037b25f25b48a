"""Decoding a step at a time with caches is teacher forcing, position by position."""

from __future__ import annotations

import pytest
import torch

from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.model.stepping import Past
from tests.modules import toys

INPUTS = {
    "wemb": toys.wemb("bpe"),
    "wemb5": toys.wemb("bpe", receptive_field=5),
    "collapsed": toys.wemb("bpe", collapse=True),
    "beam": toys.beam_conv("bpe", receptive_field=3),
}
SLOTS = torch.tensor([7, 3, 5])
TOLERANCE = {"rtol": 0, "atol": 1e-10}
pytestmark = pytest.mark.usefixtures("float64")


def decoder_and_memory(kind: str = "wemb") -> tuple[DecoderModule, torch.Tensor]:
    model = toys.chain([toys.decoder(INPUTS[kind])], seed=3).eval()
    return model.last, toys.random_log_probs(3, 7, toys.BPE)


def forced(
    decoder: DecoderModule, x: torch.Tensor, slots: torch.Tensor, rows: list[list[int]]
) -> torch.Tensor:
    """(N, L+1, V) log-probabilities."""
    logits, _ = decoder(x, slots, *toys.labels(*rows))
    return logits.log_softmax(-1)


@pytest.mark.parametrize("kind", INPUTS)
@torch.no_grad()
def test_steps_are_teacher_forcing(kind: str) -> None:
    decoder, x = decoder_and_memory(kind)
    rows = [[2, 3, 4, 5, 2], [5, 5, 1, 2, 3], [4, 4, 4, 4, 4]]
    wanted = forced(decoder, x, SLOTS, rows)
    state = decoder.start(x, SLOTS)
    inputs = torch.tensor([[toys.BPE - 1, *row] for row in rows])
    for n in range(6):
        torch.testing.assert_close(decoder.step(inputs[:, n], state), wanted[:, n], **TOLERANCE)
    assert state.length == 6


@torch.no_grad()
def test_beams_share_their_utterances_memory() -> None:
    decoder, x = decoder_and_memory()
    beam = [[[2, 3], [4, 5]], [[5, 1], [3, 3]], [[2, 2], [1, 5]]]
    state = decoder.start(x, SLOTS)
    decoder.step(torch.full((6,), toys.BPE - 1), state)
    decoder.step(torch.tensor([row[0] for pair in beam for row in pair]), state)
    found = decoder.step(torch.tensor([row[1] for pair in beam for row in pair]), state).view(3, 2, -1)
    assert len(state.body.sources[0].keys) == 3, "keys of the source are kept once for each utterance"
    for place in range(2):
        wanted = forced(decoder, x, SLOTS, [pair[place] for pair in beam])
        torch.testing.assert_close(found[:, place], wanted[:, 2], **TOLERANCE)


@torch.no_grad()
def test_after_select_hypotheses_go_on_from_their_parents() -> None:
    """Beam of 2: reorder, fork, then drop the middle utterance."""
    decoder, x = decoder_and_memory()
    state = decoder.start(x, SLOTS)
    sos = toys.BPE - 1
    decoder.step(torch.full((6,), sos), state)
    decoder.step(torch.tensor([2, 3, 4, 5, 1, 2]), state)
    state.select(torch.tensor([1, 0, 2, 2, 5, 4]))  # swapped, forked, swapped
    histories = [[3], [2], [4], [4], [2], [1]]
    tokens = [5, 5, 2, 3, 4, 4]
    found = decoder.step(torch.tensor(tokens), state)
    histories = [[*h, t] for h, t in zip(histories, tokens)]
    wanted = forced(decoder, x.repeat_interleave(2, 0), SLOTS.repeat_interleave(2), histories)
    torch.testing.assert_close(found, wanted[:, 2], **TOLERANCE)

    state.select(torch.tensor([1, 0, 4, 5]), torch.tensor([0, 2]))
    histories = [histories[i] for i in (1, 0, 4, 5)]
    tokens = [1, 2, 3, 3]
    found = decoder.step(torch.tensor(tokens), state)
    histories = [[*h, t] for h, t in zip(histories, tokens)]
    left = torch.tensor([0, 2])
    wanted = forced(decoder, x[left].repeat_interleave(2, 0), SLOTS[left].repeat_interleave(2), histories)
    torch.testing.assert_close(found, wanted[:, 3], **TOLERANCE)


@torch.no_grad()
def test_a_wrong_parent_would_show() -> None:
    decoder, x = decoder_and_memory()
    state = decoder.start(x[:1], SLOTS[:1])
    decoder.step(torch.full((2,), toys.BPE - 1), state)
    decoder.step(torch.tensor([2, 3]), state)
    kept = decoder.step(torch.tensor([4, 4]), state)
    assert (kept[0] - kept[1]).abs().max() > 1e-3


@torch.no_grad()
def test_steps_do_not_depend_on_the_batch() -> None:
    decoder, x = decoder_and_memory("wemb5")
    x[1, 3:] = torch.nan
    state, alone = decoder.start(x, SLOTS), decoder.start(x[1:2, :3], SLOTS[1:2])
    for tokens in ([6, 6, 6], [2, 5, 3], [4, 4, 1]):
        together = decoder.step(torch.tensor(tokens), state)
        single = decoder.step(torch.tensor(tokens[1:2]), alone)
        torch.testing.assert_close(together[1:2], single, **TOLERANCE)


@torch.no_grad()
def test_baseline_decoder_steps() -> None:
    encoder = {"name": "enc", "input": toys.TEXT, "body": toys.body(), "output": {"type": "states"}}
    model = toys.chain([encoder, toys.decoder({"type": "states"})]).eval()
    _, memory, lengths = model.encode(*toys.padded([[3, 4], [5, 2, 1]]))
    rows = [[2, 3], [4, 4]]
    wanted = forced(model.last, memory, lengths, rows)
    state = model.last.start(memory, lengths)
    for n, tokens in enumerate([[6, 6], [2, 4], [3, 4]]):
        torch.testing.assert_close(model.last.step(torch.tensor(tokens), state), wanted[:, n], **TOLERANCE)


@torch.no_grad()
def test_hypotheses_grow_beyond_the_first_room() -> None:
    """Memory for 32 positions doubles twice; rows change places in every room."""
    decoder, x = decoder_and_memory()
    generator, rows = torch.Generator().manual_seed(0), [[], [], []]
    state, tokens = decoder.start(x, SLOTS), [toys.BPE - 1] * 3
    for _ in range(70):
        found = decoder.step(torch.tensor(tokens), state)
        tokens = torch.randint(1, toys.BPE - 1, (3,), generator=generator).tolist()
        rows = [[*row, token] for row, token in zip(rows, tokens)]
    wanted = forced(decoder, x, SLOTS, [row[:-1] for row in rows])
    torch.testing.assert_close(found, wanted[:, -1], **TOLERANCE)
    state.select(torch.tensor([2, 0, 1]), torch.tensor([2, 0, 1]))
    found = decoder.step(torch.tensor(tokens)[[2, 0, 1]], state)
    wanted = forced(decoder, x, SLOTS, rows)[[2, 0, 1], -1]
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("leaves", range(28, 36))
def test_utterances_leave_where_memory_grows(leaves: int) -> None:
    """Rows change places at every step, and fewer go on from step ``leaves`` on; 32 positions are the first room."""
    generator = torch.Generator().manual_seed(0)
    past, wanted = Past(2), torch.zeros(0, 6, 2)
    for n in range(70):
        one = torch.rand(wanted.shape[1], 2, generator=generator)
        past.grow(one)[-1] = one
        wanted = torch.cat([wanted, one.unsqueeze(0)])
        rows = torch.randint(0, len(one), (4 if n >= leaves else 6,), generator=generator)
        past.select(rows)
        wanted = wanted[:, rows]
        assert torch.equal(past.rows, wanted)
