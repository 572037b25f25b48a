"""What a user hands over (file names, arrays, texts) to padded batches, with every fault named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet2_legonn.errors import DataError
from espnet2_legonn.interface import Vocabulary

Batch = tuple[torch.Tensor, torch.Tensor]


def read_audio(path: str | Path, fs: int) -> np.ndarray:
    """One channel of samples in -1 ... 1.

    Raises:
        DataError: the file is missing, no audio, empty, has several channels or another sampling rate.
    """
    import soundfile

    try:
        samples, rate = soundfile.read(str(path), dtype="float32")
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read as audio ({error})") from None
    if rate != fs:
        raise DataError(f"{path}: sampled at {rate} Hz, this model was trained at {fs} Hz; resample it first")
    return check_waveform(samples, str(path))


def check_waveform(samples: Any, where: str) -> np.ndarray:
    """A waveform as float32 in -1 ... 1, or an error.

    Raises:
        DataError: empty, not one-dimensional, or with values that are not finite.
    """
    wave = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else np.asarray(samples)
    if wave.dtype == np.int16:
        wave = wave / 32768.0
    if wave.ndim != 1:
        raise DataError(f"{where}: shape {wave.shape}, one channel is needed; mix or choose a channel first")
    if not wave.size:
        raise DataError(f"{where}: no samples")
    if not np.isfinite(wave).all():
        raise DataError(f"{where}: {int((~np.isfinite(wave)).sum())} of {wave.size} samples are NaN or infinite")
    return wave.astype(np.float32)


def encode_text(text: Any, vocab: Vocabulary, where: str) -> list[int]:
    """Source text (or ids) to ids.

    Raises:
        DataError: nothing to translate, or ids outside the vocabulary.
    """
    if isinstance(text, (torch.Tensor, np.ndarray, list, tuple)):
        array = np.asarray(text.tolist() if isinstance(text, torch.Tensor) else text)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise DataError(f"{where}: {text!r} is no list of ids")
        ids = [int(i) for i in array]
        wrong = [i for i in ids if not 0 <= i < len(vocab)]
        if wrong:
            raise DataError(f"{where}: id {wrong[0]} is outside the vocabulary of {len(vocab)} tokens")
    elif not isinstance(text, str):
        raise DataError(f"{where}: {text!r} is neither text nor ids")
    else:
        ids = vocab.encode(text)
        unknown = [token for token in vocab.split(text) if token not in vocab.ids]
        if unknown:
            warnings.warn(f"{where}: not in the vocabulary, read as <unk>: {' '.join(unknown[:10])}", stacklevel=4)
    if not ids:
        raise DataError(f"{where}: empty text")
    return ids


def pad(items: Sequence[np.ndarray] | Sequence[list[int]], dtype: torch.dtype, device: torch.device) -> Batch:
    """(B, T) padded with zeros, and (B,) lengths."""
    lengths = torch.tensor([len(item) for item in items], device=device)
    batch = torch.zeros(len(items), int(lengths.max()), dtype=dtype)
    for row, item in zip(batch, items):
        row[: len(item)] = torch.as_tensor(item, dtype=dtype)
    return batch.to(device), lengths


def collect(items: Sequence[Any], read: Any) -> list[Any]:
    """``read(item, place)`` of all items; the faults of all are reported together.

    Raises:
        DataError: every fault.
    """
    done, faults = [], []
    for i, item in enumerate(items):
        try:
            done.append(read(item, f"input {i}"))
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return done
