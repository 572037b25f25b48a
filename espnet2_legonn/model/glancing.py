"""Glancing training: the more a first pass gets wrong, the more slots are shown a token before a second pass learns.

Qian et al. 2021 (arXiv:2008.07905), with CTC as in Gu & Kong 2021 (arXiv:2012.15833). All slots speak at once, so none
knows what its neighbours will say. A few that are told teach the others to agree with them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from espnet2_legonn.model.losses import Labels, infeasible
from espnet2_legonn.model.masks import valid_mask


@torch.no_grad()
def likeliest_path(log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels, blank: int = 0) -> torch.Tensor:
    """The likeliest way in which slots say their labels (Viterbi over CTC's states), for a whole batch at once.

    ``torchaudio``'s ``forced_align`` finds the same for one item.

    Args:
        log_probs: (B, K, V), K at least 1; slots: (B,).
        labels: (B, L). What a row means that has no path (``losses.infeasible``) is not defined.

    Returns:
        (B, K) tokens; ``blank`` beyond the slots.
    """
    ids = labels.ids.clamp(min=0)
    said = ids.new_full((len(ids), 2 * ids.shape[1] + 1), blank)  # blank, label 1, blank, label 2, ... blank
    said[:, 1::2] = ids
    leaps = torch.zeros_like(said, dtype=torch.bool)  # from label to label, where they differ
    leaps[:, 3::2] = ids[:, 1:] != ids[:, :-1]
    never = -torch.inf
    heard = log_probs.gather(2, said.unsqueeze(1).expand(-1, log_probs.shape[1], -1))
    score = torch.full_like(heard[:, 0], never)
    score[:, :2] = heard[:, 0, :2]
    moves = []
    for k in range(1, log_probs.shape[1]):
        step = F.pad(score[:, :-1], (1, 0), value=never)
        leap = F.pad(score[:, :-2], (2, 0), value=never)[:, : score.shape[1]].masked_fill(~leaps, never)
        best, move = torch.stack([score, step, leap]).max(0)
        inside = (k < slots).unsqueeze(1)
        score = torch.where(inside, best + heard[:, k], score)
        moves.append(torch.where(inside, move, 0))
    # A path ends in the last label or in the blank behind it.
    end = 2 * labels.lengths.unsqueeze(1)
    ends = torch.cat([end, (end - 1).clamp(min=0)], 1)
    state = ends.gather(1, score.gather(1, ends).argmax(1, keepdim=True))
    states = [state]
    for move in reversed(moves):
        state = state - move.gather(1, state)
        states.append(state)
    tokens = said.gather(1, torch.cat(states[::-1], 1))
    return tokens.masked_fill(~valid_mask(slots, log_probs.shape[1]), blank)


@torch.no_grad()
def glance(
    log_probs: torch.Tensor, slots: torch.Tensor, labels: Labels, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which slots are shown which token.

    As many slots of an item as ``share`` of those whose best token is not that of the likeliest path, rounded down;
    they are drawn from all of its slots. An item without a path is shown nothing.

    Args:
        log_probs: (B, K, V) of a first pass; slots: (B,); labels: (B, L).

    Returns:
        (B, K) tokens, and (B, K) True where one is shown.
    """
    inside = valid_mask(slots, log_probs.shape[1])
    tokens = likeliest_path(log_probs, slots, labels)
    wrong = ((log_probs.argmax(-1) != tokens) & inside).sum(1)
    number = (share * wrong).floor().masked_fill(infeasible(*labels, slots), 0)
    order = torch.rand(tokens.shape, device=tokens.device).masked_fill(~inside, 2.0).argsort(1).argsort(1)
    return tokens, order < number.unsqueeze(1)
