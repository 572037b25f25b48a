"""Beam search over a whole batch of utterances by the sum of several scorers; finished utterances leave the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from espnet2_legonn.errors import DataError
from espnet2_legonn.model.module import DecoderModule
from espnet2_legonn.search.options import BeamOptions, Hypothesis
from espnet2_legonn.search.scorers import BLANK, DecoderScorer, Scorer

__all__ = ["BeamOptions", "Hypothesis", "beam_search", "joint_search"]


_DEFAULT = BeamOptions()


class _Beams:
    """Living hypotheses of the utterances that are still searched.

    Row ``b * beam_size + i`` of ``tokens`` is hypothesis i of utterance ``alive[b]``.
    """

    def __init__(self, scorers: Sequence[Scorer], slots: torch.Tensor, options: BeamOptions, end: int) -> None:
        size, device = len(slots), slots.device
        self.options, self.end = options, end
        self.penalty = options.length_power
        self.names = [scorer.name for scorer in scorers]
        self.weights = [scorer.weight for scorer in scorers]
        self.alive = list(range(size))
        self.most, self.fewest = options.limits(slots)
        self.tokens = torch.full((size * options.beam_size, 1), end, dtype=torch.long, device=device)
        self.scores = torch.full((size, options.beam_size), -torch.inf, device=device)
        self.scores[:, 0] = 0.0  # all hypotheses are still the same: only one may be extended
        self.parts = torch.zeros(size, options.beam_size, len(scorers), device=device)
        self.finished: list[list[Hypothesis]] = [[] for _ in range(size)]

    def candidates(self, scorers: Sequence[Scorer]) -> torch.Tensor:
        """(B, k, C) what the scorers propose, each token once, and the end; a place left over holds <blank>."""
        number = min(2 * self.options.beam_size, self.end - 1)
        # A scorer of weight 0 only judges.
        proposed = [ids for scorer in scorers if scorer.weight and (ids := scorer.propose(number)) is not None]
        ids = F.pad(torch.cat(proposed, -1), (0, 1), value=self.end)
        if len(proposed) > 1:
            ids = ids.sort(-1).values
            ids[..., 1:] = ids[..., 1:].masked_fill(ids[..., 1:] == ids[..., :-1], BLANK)
        return ids

    def restrict(self, totals: torch.Tensor, candidates: torch.Tensor, length: int) -> torch.Tensor:
        """Forbid <blank>, the end before the shortest and anything but the end at the longest; (B, k, C)."""
        ends = candidates == self.end
        too_short, too_long = ((length < self.fewest), (length >= self.most))
        forbidden = torch.where(ends, too_short[:, None, None], too_long[:, None, None] | (candidates == BLANK))
        return totals.masked_fill(forbidden, -torch.inf)

    def advance(
        self, candidates: torch.Tensor, scores: Sequence[torch.Tensor], length: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Extend by one token.

        Args:
            candidates: (B, k, C) ids; scores: of each scorer, (B, k, C); length: tokens so far, without <sos/eos>.

        Returns:
            rows (N',) that the new hypotheses come from, their new tokens (N',), and the utterances (B',) that go on,
            None if all do.
        """
        k, width = self.options.beam_size, candidates.shape[-1]
        # A scorer of weight 0 only judges: its -inf forbids nothing.
        totals = self.scores.unsqueeze(-1) + sum(w * s for w, s in zip(self.weights, scores) if w)
        best, index = self.restrict(totals, candidates, length).flatten(1).topk(min(2 * k, k * width))
        if best[:, 0].isnan().any():
            raise DataError(
                "probabilities are NaN: the model's weights or its input are not finite (did training diverge?)"
            )
        self._give_up(best, totals, scores, length)
        parents, tokens = index // width, candidates.flatten(1).gather(1, index)
        gained = torch.stack([s.flatten(1).gather(1, index) for s in scores], -1)
        parts = self.parts.gather(1, parents.unsqueeze(-1).expand_as(gained)) + gained
        ends = tokens == self.end
        self._finish(best[:, :k], parents[:, :k], parts[:, :k], ends[:, :k], length)
        # The best k that go on: a stable sort keeps their order and puts the ended ones last.
        order = torch.sort(ends.long(), dim=1, stable=True).indices[:, :k]
        ended = ends.gather(1, order)
        self.scores = best.gather(1, order).masked_fill(ended, -torch.inf)
        if order.shape[1] < k:  # fewer candidates than the beam is wide (tiny vocabularies)
            missing = k - order.shape[1]
            order = F.pad(order, (0, missing))
            self.scores = F.pad(self.scores, (0, missing), value=-torch.inf)
        self.parts = parts.gather(1, order.unsqueeze(-1).expand(-1, -1, parts.shape[-1]))
        rows = torch.arange(len(self.alive), device=order.device).unsqueeze(1) * k + parents.gather(1, order)
        chosen = tokens.gather(1, order)
        dead = torch.isneginf(self.scores).all(1).tolist()
        stay = [b for b, u in enumerate(self.alive) if len(self.finished[u]) < k and not dead[b]]
        going = None
        if len(stay) < len(self.alive):
            going = torch.tensor(stay, dtype=torch.long, device=order.device)
            rows, chosen, self.scores, self.parts = rows[going], chosen[going], self.scores[going], self.parts[going]
            self.most, self.fewest = self.most[going], self.fewest[going]
            self.alive = [self.alive[b] for b in stay]
        rows, chosen = rows.flatten(), chosen.flatten()
        self.tokens = torch.cat([self.tokens.index_select(0, rows), chosen.unsqueeze(1)], 1)
        return rows, chosen, going

    def _give_up(self, best: torch.Tensor, totals: torch.Tensor, scores: Sequence[torch.Tensor], length: int) -> None:
        """An utterance that cannot go on and has no text yet is answered with its best hypothesis as it is.

        That happens where CTC has no text within the limits: too few slots for ``minlenratio``, or impossible tokens.
        """
        for b in torch.isneginf(best[:, 0]).nonzero().flatten().tolist():
            if not self.finished[self.alive[b]]:
                row = int(totals[b, :, -1].argmax())  # the end is the last candidate
                ids = self.tokens[b * self.options.beam_size + row, 1:].tolist()
                parts = self.parts[b, row] + torch.stack([s[b, row, -1] for s in scores])
                self._keep(b, ids, float(totals[b, row, -1]), parts.tolist(), length)

    def _keep(self, b: int, ids: list[int], log_prob: float, parts: list[float], length: int) -> None:
        score = log_prob / (length + 1) ** self.penalty
        self.finished[self.alive[b]].append(Hypothesis(ids, score, log_prob, dict(zip(self.names, parts))))

    def _finish(
        self, best: torch.Tensor, parents: torch.Tensor, parts: torch.Tensor, ends: torch.Tensor, length: int
    ) -> None:
        """Keep what ends among the best k candidates of each utterance."""
        which = (ends & torch.isfinite(best)).nonzero().tolist()
        if not which:
            return
        b, i = torch.tensor(which, device=best.device).T
        ids = self.tokens[b * self.options.beam_size + parents[b, i], 1:].tolist()
        found = zip(which, ids, best[b, i].tolist(), parts[b, i].tolist())
        for (b, _), tokens, log_prob, values in found:
            self._keep(b, tokens, log_prob, values, length)


@torch.inference_mode()
def joint_search(
    scorers: Sequence[Scorer], slots: torch.Tensor, options: BeamOptions, end: int
) -> list[list[Hypothesis]]:
    """The best texts of each utterance by the weighted sum of all scorers, best first.

    The answer for an utterance does not depend on the others in the batch. An utterance is done when beam_size
    hypotheses have ended within its best beam_size candidates (fairseq's rule), or at its longest. Each scorer that
    proposes offers ``2 * beam_size`` tokens for each hypothesis; all scorers judge all of them. One of weight 0 only
    judges. Every utterance has an answer: if no text within the limits is possible, its best prefix.

    Args:
        scorers: fresh ones, all over the same tokens; at least one proposes.
        slots: (B,) what ``options.maxlenratio`` and ``minlenratio`` refer to.
        end: id of ``<sos/eos>``, the last of the vocabulary.

    Returns:
        for each utterance at most ``options.nbest`` hypotheses.

    Raises:
        DataError: a scorer says NaN.
    """
    beams = _Beams(scorers, slots, options, end)
    length = 0
    while True:
        candidates = beams.candidates(scorers)
        rows, tokens, going = beams.advance(candidates, [s.score(candidates) for s in scorers], length)
        if not beams.alive:
            break
        for scorer in scorers:
            scorer.advance(rows, tokens, going)
        length += 1
    return [sorted(found, key=lambda h: -h.score)[: options.nbest] for found in beams.finished]


def beam_search(
    decoder: DecoderModule, x: torch.Tensor, lengths: torch.Tensor, options: BeamOptions = _DEFAULT
) -> list[list[Hypothesis]]:
    """The search with a decoder module alone, as in the paper.

    Args:
        decoder: in evaluation mode.
        x: its input (B, K, V) or (B, T, D); lengths: (B,).
    """
    with torch.inference_mode():
        scorer = DecoderScorer(decoder, x, lengths, options.beam_size)
    return joint_search([scorer], lengths, options, decoder.sos_eos)
