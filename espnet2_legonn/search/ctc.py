"""CTC of an interface as a scorer: probabilities of prefixes (Graves 2008, 7.5; Watanabe et al. 2017), all at once.

``n[t]`` and ``b[t]`` are the log-probabilities that slots 1 ... t say the prefix and end in its last label, or in
blank. Both are linear recurrences over slots, x[t] = p[t] * (x[t-1] + u[t]), so one ``logcumsumexp`` solves each: with
the running sum A[t] of log p, log x[t] = A[t] + logcumsumexp(log u[s] - A[s-1])[t].
"""

from __future__ import annotations

import torch

from espnet2_legonn.model.masks import valid_mask
from espnet2_legonn.search.scorers import BLANK, Scorer

# Stands for log 0, which running sums cannot hold: no sum of real log-probabilities comes near it, and float64 keeps
# the others exact to 1e-5 beside thousands of them. What is below half of it is log 0 again.
_NEVER = -1e7


class CTCScorer(Scorer):
    """How well an interface's own distributions explain a text, by CTC over all alignments (equations 5, 6).

    Args:
        log_probs: (U, K, V) marginals of the interface, whose last id is ``<sos/eos>``.
        lengths: (U,) slots.
        beam: hypotheses of an utterance.
        weight: of the scores.
        number: candidates that a search asks for at once.
    """

    def __init__(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, beam: int, weight: float = 1.0, number: int = 10
    ) -> None:
        super().__init__("ctc", weight)
        self.beam, self.end = beam, log_probs.shape[2] - 1
        log_probs = log_probs.to(torch.promote_types(log_probs.dtype, torch.float32))
        self.log_probs, self.slots = log_probs.contiguous(), lengths
        self.utterance = torch.arange(len(lengths), device=lengths.device)  # row of log_probs of each that goes on
        self.inside = valid_mask(lengths, log_probs.shape[1])
        self._shortlist(number)
        blank = self._clean(log_probs[:, :, BLANK], self.inside)
        self.blank = blank.unsqueeze(1).cumsum(-1)  # (B, 1, K) running sum
        # (B, beam, K + 1) b, and n + b, from slot 0 on, where nothing is said: log 1 in b, log 0 in n.
        self.b = torch.nn.functional.pad(_possible(self.blank), (1, 0)).expand(-1, beam, -1)
        self.whole = self.b
        self.prefix = self.b.new_zeros(len(lengths), beam)
        self.last = torch.full((len(lengths), beam), -1, dtype=torch.long, device=lengths.device)
        self.again = self.prefix - torch.inf  # log-probability of the last label once more

    @staticmethod
    def _clean(log_probs: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """float64, finite, and 0 in slots beyond the end, which nobody reads but sums run over."""
        return log_probs.double().clamp(min=_NEVER).masked_fill(~inside, 0.0)

    def _shortlist(self, number: int) -> None:
        """Tokens that some slot finds likely: what CTC may propose, about two for each slot."""
        best = self.log_probs.masked_fill(~self.inside.unsqueeze(2), -torch.inf).amax(1)
        best[:, BLANK] = -torch.inf
        wanted = 2 * self.slots + 2 * number + 16
        size = min(best.shape[1] - 2, int(wanted.max()))
        self.short = best[:, :-1].topk(size).indices  # (U, M)
        index = self.short.unsqueeze(1).expand(-1, self.log_probs.shape[1], -1)
        probs = self.log_probs.gather(2, index).exp().masked_fill(~self.inside.unsqueeze(2), 0.0)
        # Not more for an utterance because others are longer; <blank> comes in only where tokens are impossible.
        never = (torch.arange(size, device=probs.device) >= wanted.unsqueeze(1)) | (self.short == BLANK)
        self.short_probs = probs.masked_fill(never.unsqueeze(1), 0.0)  # (U, K, M)

    def _columns(self, ids: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, beam, C, K) of ids (B, beam, C) in each slot."""
        slots, vocab = self.log_probs.shape[1:]
        place = torch.arange(slots, device=ids.device) * vocab
        start = (self.utterance * (slots * vocab)).view(-1, 1, 1, 1)
        return self.log_probs.reshape(-1).take(start + ids.unsqueeze(-1) + place)

    def propose(self, number: int) -> torch.Tensor:
        before = self.whole[..., :-1].masked_fill(~self.inside.unsqueeze(1), -torch.inf)
        most = before.amax(-1, keepdim=True).clamp(min=-1e30)
        with torch.autocast(before.device.type, enabled=False):  # a bf16 product would shuffle close ones
            found = (before - most).exp().to(self.short_probs.dtype) @ self.short_probs  # (B, beam, M)
        repeats = self.short.unsqueeze(1) == self.last.unsqueeze(-1)
        found = torch.where(repeats, (self.again.unsqueeze(-1) - most).exp().to(found.dtype), found)
        best = found.topk(min(number, found.shape[-1])).indices
        return self.short.unsqueeze(1).expand_as(found).gather(2, best)

    def score(self, candidates: torch.Tensor) -> torch.Tensor:
        columns = self._columns(candidates)
        # Relative to the prefix before float32: long texts have large sums, of which nothing may be lost.
        prefix = self.prefix.unsqueeze(-1).clamp(min=-1e30)
        joined = (self.whole[..., :-1] - prefix).to(columns.dtype).unsqueeze(2) + columns
        found = joined.masked_fill_(~self.inside[:, None, None], -torch.inf).logsumexp(-1)
        again = (self.again.unsqueeze(-1) - prefix).to(found)
        found = torch.where(candidates == self.last.unsqueeze(-1), again, found)
        at = self.slots.view(-1, 1, 1).expand(-1, self.beam, 1)
        ends = (self.whole.gather(2, at) - prefix).to(found)
        return torch.where(candidates == self.end, ends, found)

    def advance(self, rows: torch.Tensor, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        whole, b, last = (part.flatten(0, 1).index_select(0, rows) for part in (self.whole, self.b, self.last))
        if going is not None:
            self.utterance, self.slots, self.inside, self.blank, self.short, self.short_probs = (
                part.index_select(0, going)
                for part in (self.utterance, self.slots, self.inside, self.blank, self.short, self.short_probs)
            )
        whole, b = (part.view(len(self.slots), self.beam, -1) for part in (whole, b))
        repeated = (tokens == last).view(len(self.slots), self.beam, 1)
        self.last = tokens.view(len(self.slots), self.beam)
        inside = self.inside.unsqueeze(1)
        label = self._clean(self._columns(self.last.unsqueeze(-1)).squeeze(2), inside)
        before = torch.where(repeated, b, whole)[..., :-1]
        self.prefix = _possible((before + label).masked_fill(~inside, -torch.inf).logsumexp(-1))
        n = _recurrence(before, label.cumsum(-1))
        self.b = _recurrence(n[..., :-1], self.blank)
        self.whole = torch.logaddexp(n, self.b)
        self.again = _possible((self.b[..., :-1] + label).masked_fill(~inside, -torch.inf).logsumexp(-1))


def _possible(x: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(x < _NEVER / 2, -torch.inf)


def _recurrence(enters: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
    """log x[0 ... K] of x[t] = p[t] * (x[t-1] + u[t]) with x[0] = 0.

    Args:
        enters: log u[1 ... K]; running: sums of log p over slots 1 ... t.
    """
    shifted = torch.nn.functional.pad(running[..., :-1], (1, 0))
    x = _possible(running + torch.logcumsumexp(enters - shifted, -1))
    return torch.nn.functional.pad(x, (1, 0), value=-torch.inf)
