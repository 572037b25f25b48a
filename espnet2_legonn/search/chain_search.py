"""The search of a whole chain: which scorers it has, and what is done where the vocabularies differ."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import torch

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.errors import ConfigError
from espnet2_legonn.model.inputs import normalized
from espnet2_legonn.model.interface import Marginals, SearchChoice
from espnet2_legonn.model.losses import ctc_loss
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.answers import best_paths
from espnet2_legonn.search.beam import joint_search
from espnet2_legonn.search.ctc import CTCScorer
from espnet2_legonn.search.hotwords import HotwordScorer, tree_of
from espnet2_legonn.search.options import BeamOptions, Hypothesis
from espnet2_legonn.search.scorers import DecoderScorer, InternalScorer, LengthBonus, Scorer

# Makes a scorer for (utterances, beam, device), for instance of a language model.
ScorerMaker = Callable[[int, int, torch.device], Scorer]


def same_tokens(marginals: Marginals | None, vocab: Vocabulary) -> bool:
    """Whether an interface is over these tokens, so that CTC can score each step."""
    return marginals is not None and marginals.interface.vocab.sha256 == vocab.sha256


def is_natural(marginals: Marginals | None, vocab: Vocabulary) -> bool:
    """Whether CTC takes part in the search unless told otherwise: the same tokens, and trained with CTC."""
    return marginals is not None and marginals.interface.grounded and same_tokens(marginals, vocab)


def fill(
    decoder: DecoderModule, marginals: Marginals | None, options: BeamOptions, choice: SearchChoice | None = None
) -> BeamOptions:
    """Options with numbers for what was left open; what is filled already stays.

    Args:
        marginals: of the chain's last interface, None if it has none.
        choice: weights tuned for the chain.
    """
    vocab = decoder.ports[1].vocab
    assert vocab is not None
    return options.filled(choice, is_natural(marginals, vocab))


def _added(
    options: BeamOptions, vocab: Vocabulary, more: Sequence[ScorerMaker], utterances: int, device: torch.device
) -> list[Scorer]:
    """Scorers beside decoder and CTC: those of ``more``, hotwords and the length bonus where they have weight.

    Raises:
        ConfigError: every hotword that the vocabulary cannot spell.
    """
    scorers = [make(utterances, options.beam_size, device) for make in more]
    if options.penalty:
        scorers.append(LengthBonus(options.penalty))
    if options.hotwords and options.hotword_weight:
        tree = tree_of(tuple(options.hotwords), vocab, str(device))
        scorers.append(HotwordScorer(tree, utterances, options.beam_size, options.hotword_weight))
    return scorers


@torch.inference_mode()
def search_decoder(
    decoder: DecoderModule,
    x: torch.Tensor,
    lengths: torch.Tensor,
    marginals: Marginals | None,
    options: BeamOptions,
    choice: SearchChoice | None = None,
    more: Sequence[ScorerMaker] = (),
    judge_all: bool = False,
) -> list[list[Hypothesis]]:
    """Search with a decoder module and CTC of the chain's last interface.

    Args:
        decoder: in evaluation mode.
        x: its input (B, K, V) or (B, T, D); lengths: (B,).
        marginals: of the last interface, None if the chain has none.
        choice: weights tuned for the chain.
        more: other scorers, over the decoder's tokens.
        judge_all: scorers of weight 0 judge, too, so that hypotheses carry their parts.

    Raises:
        ConfigError: ``ctc_weight`` without an interface, or of an interface that texts cannot be split for.
    """
    vocab = decoder.ports[1].vocab
    assert vocab is not None
    options = fill(decoder, marginals, options, choice)
    weight, beam = options.ctc_weight, options.beam_size
    assert weight is not None
    if marginals is None and weight:
        raise ConfigError("ctc_weight: this chain has no interface, so there is no CTC to search with; give 0")
    joint = same_tokens(marginals, vocab)
    scorers: list[Scorer] = []
    if weight < 1 or not joint or judge_all:
        scorers.append(_decoder_scorer(decoder, x, lengths, options, 1 - weight if joint else 1.0))
    if joint and marginals is not None and (weight or judge_all):
        scorers.append(CTCScorer(marginals.log_probs, marginals.lengths, beam, weight, 2 * beam))
    scorers += _added(options, vocab, more, len(lengths), x.device)
    if options.ilm_weight:
        scorers.append(InternalScorer(decoder, x, lengths, beam, options.ilm_weight))
    judges = marginals is not None and (weight or (judge_all and marginals.interface.vocab.unit != "phn"))
    if joint or marginals is None or not judges:
        return joint_search(scorers, lengths, options, decoder.sos_eos)
    wide = dataclasses.replace(options, nbest=beam)
    return rescore(joint_search(scorers, lengths, wide, decoder.sos_eos), vocab, marginals, options)


@torch.inference_mode()
def search_ctc(
    marginals: Marginals,
    options: BeamOptions,
    choice: SearchChoice | None = None,
    more: Sequence[ScorerMaker] = (),
) -> list[list[Hypothesis]]:
    """Search for a chain that ends in an interface: CTC over prefixes; with ``ctc_weight`` 0 the best path alone.

    The length penalty is 0 unless it is given: CTC has no bias against length.

    Raises:
        ConfigError: options of a decoder, or other scorers beside the best path.
    """
    if options.length_penalty is None and choice is None:
        options = dataclasses.replace(options, length_penalty=0.0)
    options = options.filled(choice, True)
    beam, x = options.beam_size, marginals.log_probs
    if options.ilm_weight:
        raise ConfigError("ilm_weight: this chain has no decoder whose habits could be taken away; give 0")
    added = _added(options, marginals.interface.vocab, more, len(marginals), x.device)
    if options.ctc_weight == 0:
        if heard := [scorer.name for scorer in added if scorer.weight]:
            raise ConfigError(
                f"ctc_weight: 0 is the best path of CTC alone, without {', '.join(heard)}; leave one of them out"
            )
        return [[Hypothesis(p.ids, p.score, p.score, {"ctc": p.score})] for p in best_paths(marginals)]
    scorers = [CTCScorer(x, marginals.lengths, beam, 1.0, 2 * beam), *added]
    return joint_search(scorers, marginals.lengths, options, x.shape[2] - 1)


def _decoder_scorer(
    decoder: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, options: BeamOptions, weight: float
) -> DecoderScorer:
    if options.temperature != 1 and decoder.input.contract is not None:
        x = (x / options.temperature).log_softmax(-1)
    return DecoderScorer(decoder, x, lengths, options.beam_size, weight)


def warn_without_ctc(decoder: DecoderModule, speech: bool, options: BeamOptions) -> bool:
    """BeamConv knows ranks alone: plugged onto speech it needs CTC to hold on to. Whether there was that to say."""
    said = speech and not decoder.input.passes_gradient and options.ctc_weight == 0
    if said:
        warnings.warn(
            "a BeamConv decoder behind speech can lose much without CTC in the search (ctc_weight: 0); "
            "leave ctc_weight out for the default",
            stacklevel=2,
        )
    return said


def rescore(
    nbest: Sequence[Sequence[Hypothesis]], vocab: Vocabulary, marginals: Marginals, options: BeamOptions
) -> list[list[Hypothesis]]:
    """Order the decoder's hypotheses anew with CTC of an interface over other tokens, through their texts.

    Args:
        nbest: hypotheses of each utterance over ``vocab``.
        marginals: of the interface.
        options: with ``ctc_weight`` and ``length_penalty`` filled in.

    Raises:
        ConfigError: the interface is over phonemes, which a text cannot be split into here.
    """
    other, weight = marginals.interface.vocab, options.ctc_weight
    assert weight is not None
    if other.unit == "phn":
        raise ConfigError("ctc_weight: the last interface is over phonemes, a text cannot be scored by it; give 0")
    rows = [i for i, hypotheses in enumerate(nbest) for _ in hypotheses]
    said = [normalized(vocab.decode(h.ids), other) for hypotheses in nbest for h in hypotheses]
    texts = [torch.tensor(other.encode(text), dtype=torch.long) for text in said]
    at, device = torch.tensor(rows, dtype=torch.long), marginals.log_probs.device
    labels = torch.nn.utils.rnn.pad_sequence(texts, True, -1).to(device)
    sizes = torch.tensor([len(t) for t in texts], device=device)
    losses, impossible = ctc_loss(marginals.log_probs[at], marginals.lengths[at.to(device)], labels, sizes)
    scores = iter((-losses).masked_fill(impossible, -torch.inf).tolist())
    found = []
    for hypotheses in nbest:
        again = [_with_part(h, next(scores), weight, options.length_power) for h in hypotheses]
        found.append(sorted(again, key=lambda h: -h.score)[: options.nbest])
    return found


def _with_part(hypothesis: Hypothesis, ctc: float, weight: float, penalty: float) -> Hypothesis:
    # Of the sum so far only the decoder's part gives way; other scorers keep their weights. Weight 0 only judges.
    log_prob = hypothesis.log_prob + (weight * (ctc - hypothesis.parts["decoder"]) if weight else 0.0)
    score = log_prob / (len(hypothesis.ids) + 1) ** penalty
    return Hypothesis(hypothesis.ids, score, log_prob, {**hypothesis.parts, "ctc": ctc})
