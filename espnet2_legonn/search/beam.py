"""Beam search over a whole batch of utterances, with key/value caches; finished utterances leave the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from espnet2_legonn.errors import ConfigError, DataError
from espnet2_legonn.modules.module import DecoderModule, DecoderState

BLANK = 0


@dataclass(frozen=True)
class BeamOptions:
    """How to search.

    Args:
        beam_size: hypotheses kept of each utterance.
        length_penalty: score = log-probability / length ** length_penalty (fairseq), <sos/eos> counted.
        maxlenratio: > 0: at most this times the slots; < 0: at most -maxlenratio tokens; 0: twice the slots + 10.
        minlenratio: at least this times the slots; < 0: at least -minlenratio tokens.
        nbest: hypotheses returned, at most beam_size.

    Raises:
        ConfigError: values that make no sense together.
    """

    beam_size: int = 5
    length_penalty: float = 1.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    nbest: int = 1

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ConfigError(f"beam_size: {self.beam_size} is less than 1")
        if not 1 <= self.nbest <= self.beam_size:
            raise ConfigError(f"nbest: {self.nbest} is not between 1 and beam_size ({self.beam_size})")

    def limits(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Most and fewest tokens (without <sos/eos>) of each utterance, (B,) each."""
        if self.maxlenratio < 0:
            most = torch.full_like(slots, int(-self.maxlenratio))
        elif self.maxlenratio > 0:
            most = (slots * self.maxlenratio).long().clamp(min=1)
        else:
            most = 2 * slots + 10
        if self.minlenratio < 0:
            fewest = torch.full_like(slots, int(-self.minlenratio))
        else:
            fewest = (slots * self.minlenratio).long()
        return most, torch.minimum(fewest, most)


class Hypothesis(NamedTuple):
    """One answer: ids without <sos/eos>, its score (see length_penalty) and its log-probability."""

    ids: list[int]
    score: float
    log_prob: float


class _Beams:
    """Living hypotheses of the utterances that are still searched.

    Row ``b * beam_size + i`` of ``tokens`` is hypothesis i of utterance ``alive[b]``.
    """

    def __init__(self, slots: torch.Tensor, options: BeamOptions, sos: int) -> None:
        size, device = len(slots), slots.device
        self.options, self.sos_eos = options, sos
        self.alive = list(range(size))
        self.most, self.fewest = options.limits(slots)
        self.tokens = torch.full((size * options.beam_size, 1), sos, dtype=torch.long, device=device)
        self.scores = torch.full((size, options.beam_size), -torch.inf, device=device)
        self.scores[:, 0] = 0.0  # all hypotheses are still the same: only one may be extended
        self.finished: list[list[Hypothesis]] = [[] for _ in range(size)]

    def restrict(self, log_probs: torch.Tensor, length: int) -> torch.Tensor:
        """Forbid <blank>, the end before the shortest and anything but the end at the longest; (B, k, V)."""
        log_probs = log_probs.view(len(self.alive), self.options.beam_size, -1)
        log_probs[..., BLANK] = -torch.inf
        too_short = (length < self.fewest)[:, None]
        log_probs[..., self.sos_eos] = log_probs[..., self.sos_eos].masked_fill(too_short, -torch.inf)
        others = torch.arange(log_probs.shape[-1], device=log_probs.device) != self.sos_eos
        return log_probs.masked_fill((length >= self.most)[:, None, None] & others, -torch.inf)

    def advance(self, log_probs: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Extend by one token.

        Args:
            log_probs: (N, V) of the next token; length: tokens so far, without <sos/eos>.

        Returns:
            rows (N',) that the new hypotheses come from, and the utterances (B',) that go on, None if all do.
        """
        k, vocab = self.options.beam_size, log_probs.shape[-1]
        totals = self.scores.unsqueeze(-1) + self.restrict(log_probs, length)
        best, index = totals.flatten(1).topk(min(2 * k, k * vocab))
        if best[:, 0].isnan().any():
            raise DataError(
                "probabilities are NaN: the model's weights or its input are not finite (did training diverge?)"
            )
        parents, tokens = index // vocab, index % vocab
        ends = tokens == self.sos_eos
        self._finish(best[:, :k], parents[:, :k], ends[:, :k], length)
        # The best k that go on: a stable sort keeps their order and puts the ended ones last.
        order = torch.sort(ends.long(), dim=1, stable=True).indices[:, :k]
        ended = ends.gather(1, order)
        self.scores = best.gather(1, order).masked_fill(ended, -torch.inf)
        if order.shape[1] < k:  # fewer candidates than the beam is wide (tiny vocabularies)
            missing = k - order.shape[1]
            order = torch.nn.functional.pad(order, (0, missing))
            self.scores = torch.nn.functional.pad(self.scores, (0, missing), value=-torch.inf)
        base = torch.arange(len(self.alive), device=order.device).unsqueeze(1) * k
        rows = base + parents.gather(1, order)
        chosen = tokens.gather(1, order)
        dead = torch.isneginf(self.scores).all(1).tolist()
        stay = [b for b, u in enumerate(self.alive) if len(self.finished[u]) < k and not dead[b]]
        going = None
        if len(stay) < len(self.alive):
            going = torch.tensor(stay, dtype=torch.long, device=order.device)
            rows, chosen, self.scores = rows[going], chosen[going], self.scores[going]
            self.most, self.fewest = self.most[going], self.fewest[going]
            self.alive = [self.alive[b] for b in stay]
        rows = rows.flatten()
        self.tokens = torch.cat([self.tokens.index_select(0, rows), chosen.view(-1, 1)], 1)
        return rows, going

    def _finish(self, best: torch.Tensor, parents: torch.Tensor, ends: torch.Tensor, length: int) -> None:
        """Keep what ends among the best k candidates of each utterance."""
        which = (ends & torch.isfinite(best)).nonzero().tolist()
        if not which:
            return
        rows = torch.tensor([b * self.options.beam_size for b, _ in which], device=best.device)
        places = torch.tensor(which, device=best.device)
        rows = rows + parents[places[:, 0], places[:, 1]]
        ids = self.tokens[rows, 1:].tolist()
        log_probs = best[places[:, 0], places[:, 1]].tolist()
        for (b, _), tokens, log_prob in zip(which, ids, log_probs):
            score = log_prob / (length + 1) ** self.options.length_penalty
            self.finished[self.alive[b]].append(Hypothesis(tokens, score, log_prob))


@torch.inference_mode()
def beam_search(
    decoder: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, options: BeamOptions = BeamOptions()
) -> list[list[Hypothesis]]:
    """The best texts of each utterance, best first.

    The answer for an utterance does not depend on the others in the batch. An utterance is done when beam_size
    hypotheses have ended within its best beam_size candidates (fairseq's rule), or at its longest.

    Args:
        decoder: a decoder module in evaluation mode.
        x: its input (B, K, V) or (B, T, D); lengths: (B,).

    Returns:
        for each utterance at most ``options.nbest`` hypotheses.
    """
    state: DecoderState = decoder.start(x, lengths)
    beams = _Beams(lengths, options, decoder.sos_eos)
    k = options.beam_size
    length = 0
    while beams.alive:
        log_probs = decoder.step(beams.tokens[:, -1], state)
        rows, going = beams.advance(log_probs, length)
        if beams.alive:
            state.select(rows, going)
        length += 1
    found = []
    for hypotheses in beams.finished:
        hypotheses.sort(key=lambda h: -h.score)
        found.append(hypotheses[: min(options.nbest, k)])
    return found
