"""Reading references in training: a sentence of slots that say the labels, for a share of the items."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.chain import Chain
from espnet2_legonn.model.interface import Interface, Marginals
from espnet2_legonn.model.losses import Labels
from espnet2_legonn.model.references import reference_slots, with_references
from espnet2_legonn.studies.oracle import laid_out
from tests.train.toys import DECODER, ENCODER, VOCABS, control

VOCAB = Vocabulary(("<blank>", "<unk>", "a", "b", "c", "<sos/eos>"))


def labels(*items: list[int]) -> Labels:
    longest = max(len(item) for item in items)
    return Labels(
        torch.tensor([item + [-1] * (longest - len(item)) for item in items]), torch.tensor([len(i) for i in items])
    )


def flat(slots: list[int]) -> torch.Tensor:
    return torch.zeros(len(slots), max(slots), len(VOCAB)).log_softmax(-1)


def test_slots_say_the_labels_and_nothing_else() -> None:
    """The best path of the slots is the text, whatever the number of slots; as the oracle lays a reference out."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        lengths = torch.randint(1, 7, (4,), generator=generator).tolist()
        items = [torch.randint(1, 5, (n,), generator=generator).tolist() for n in lengths]
        slots = torch.tensor([2 * n + int(torch.randint(0, 4, (1,), generator=generator)) for n in lengths])
        tokens, said = reference_slots(labels(*items), slots, int(slots.max()))
        assert said.all(), "two slots a label are enough for equal neighbours"
        marginals = Marginals(
            with_references(flat(slots.tolist()), slots, labels(*items), 1.0), slots, Interface(VOCAB)
        )
        assert marginals.greedy_ids() == items
        for row, item, n in zip(tokens.tolist(), items, slots.tolist()):
            assert not any(row[n:]), "padding is blank"
            if n == 2 * len(item):
                assert row[:n] == laid_out(item, 2.0, VOCAB.blank_id)


@pytest.mark.parametrize(
    ("item", "slots", "said"),
    [
        ([2, 3, 4], 3, True),
        ([2, 3, 4], 2, False),
        ([2, 2], 2, False),
        ([2, 2], 3, False),
        ([2, 2], 4, True),
        ([], 3, False),
    ],
)
def test_what_no_slots_can_say_is_left_alone(item: list[int], slots: int, said: bool) -> None:
    """Labels 1.5 slots apart may touch: then two equal ones would be one."""
    assert reference_slots(labels(item, [2]), torch.tensor([slots, 1]), 4)[1].tolist() == [said, True]
    own = torch.randn(1, slots, len(VOCAB)).log_softmax(-1)
    read = with_references(own, torch.tensor([slots]), labels(item), 1.0)
    assert torch.equal(read, own) is not said


def test_others_keep_their_gradient_and_their_distributions() -> None:
    torch.manual_seed(0)
    own = torch.randn(200, 4, len(VOCAB)).log_softmax(-1).requires_grad_()
    read = with_references(own, torch.full((200,), 4), labels(*[[2, 3]] * 200), 0.3)
    replaced = (read != own).flatten(1).any(1)
    assert 30 < int(replaced.sum()) < 90, "a share of 0.3 of 200"
    (grad,) = torch.autograd.grad((read * torch.randn_like(read)).sum(), own)
    assert grad[replaced].abs().sum() == 0 and (grad[~replaced].flatten(1).abs().sum(1) > 0).all()
    torch.testing.assert_close(read[replaced].exp().sum(-1), torch.ones(int(replaced.sum()), 4))


def chain(share: float, kind: str = "wemb") -> Chain:
    torch.manual_seed(0)
    decoder = copy.deepcopy(DECODER)
    more = {"k": 2, "embed_size": 4} if kind == "beam_conv" else {}
    decoder["input"] = {**decoder["input"], "type": kind, **more, "references": share}
    encoder = {**copy.deepcopy(ENCODER), "length_control": control(ratio=1)}
    for module in (encoder, decoder):
        module["body"]["dropout"] = 0.0
    return Chain.from_config({"vocabs": VOCABS, "modules": [encoder, decoder]})


@pytest.mark.parametrize("kind", ["wemb", "beam_conv"])
def test_a_decoder_reads_them_in_training_alone(kind: str) -> None:
    """All items: the encoder learns nothing of the decoder. In evaluation the option changes nothing."""
    plain, taught = chain(0.0, kind), chain(0.999999, kind)
    x, lengths = torch.tensor([[2, 3, 4, 2, 3, 4], [4, 3, 2, 2, 0, 0]]), torch.tensor([6, 4])
    said = labels([2, 3], [3])
    targets = dict.fromkeys(plain.names, said)
    plain.eval(), taught.eval()
    for name, loss in plain.losses(x, lengths, targets).items():
        assert torch.equal(loss.total, taught.losses(x, lengths, targets)[name].total)
    plain.train(), taught.train()
    last = taught.names[-1]
    assert taught.losses(x, lengths, targets)[last].total != plain.losses(x, lengths, targets)[last].total
    grads = torch.autograd.grad(
        taught.losses(x, lengths, targets)[last].total, list(taught.first.parameters()), allow_unused=True
    )
    assert all(grad is None or not grad.any() for grad in grads)


def test_large_vocabularies_are_not_taken_in_pieces_then() -> None:
    """Pieces are computed twice, and a random choice would be another one the second time."""
    reader = chain(0.2).last.input
    assert not reader.in_place
    assert reader.eval().in_place and chain(0.0).last.input.in_place


def test_a_share_is_below_one() -> None:
    with pytest.raises(ConfigError, match=r"input\.references: 1\.0 is not at least 0 and less than 1"):
        chain(1.0)


def test_packs_keep_it() -> None:
    config = chain(0.25).configs[-1]
    assert dataclasses.asdict(config)["input"]["references"] == 0.25
