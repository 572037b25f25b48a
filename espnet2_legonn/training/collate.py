"""Utterances to a padded batch. ESPnet's own CommonCollateFn does the same, but importing it costs 5 s and tries to
download NLTK's data."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


def collate(data: Collection[tuple[str, dict[str, np.ndarray]]]) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Waveforms are padded with 0, ids with -1; each name gets ``<name>_lengths`` (B,)."""
    batch = {}
    items = list(data)
    for name in items[0][1]:
        arrays = [torch.from_numpy(np.asarray(arrays[name])) for _, arrays in items]
        padding = 0.0 if arrays[0].is_floating_point() else -1
        batch[name] = pad_sequence(arrays, batch_first=True, padding_value=padding)
        batch[f"{name}_lengths"] = torch.tensor([len(a) for a in arrays])
    return [uid for uid, _ in items], batch
