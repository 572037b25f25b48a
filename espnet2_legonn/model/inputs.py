"""What a user hands over (file names, arrays, texts) to padded batches, with every fault named."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from espnet2_legonn.data.text import NORMALIZATIONS, normalize
from espnet2_legonn.data.vocabulary import BLANK, RESERVED, SOS_EOS, Vocabulary
from espnet2_legonn.errors import DataError, harmless

Batch = tuple[torch.Tensor, torch.Tensor]
# Hz; resampling multiplies a file by the quotient of the rates.
RATES = (1000, 768_000)
# Of one file, all channels: 2 GB. A few kB of flac can be days of silence.
MAX_SAMPLES = 1 << 29
# Peaks above full scale are usual after resampling; these are numbers of 16 bits that were never scaled.
LOUDEST = 64.0
_BLOCK = 1 << 20


class UnknownTokens(UserWarning):
    """A text has tokens that its vocabulary lacks; they are read as <unk>."""


class Recording(NamedTuple):
    """A file made to fit a model: samples at its rate, and what the file had."""

    wave: np.ndarray
    seconds: float
    rate: int
    channels: int


def read_audio(path: str | Path, fs: int) -> np.ndarray:
    """One channel of samples in -1 ... 1.

    Raises:
        DataError: the file is missing, no audio, empty, has several channels or another sampling rate.
    """
    samples, rate = _decode(path, None)
    if rate != fs:
        raise DataError(f"{path}: sampled at {rate} Hz, this model was trained at {fs} Hz; resample it first")
    return check_waveform(samples, str(path))


def adapt_audio(path: str | Path, fs: int, channel: int | None = None, most_seconds: float | None = None) -> Recording:
    """One channel of samples in -1 ... 1 at ``fs``, from a file of any rate and number of channels.

    Args:
        channel: from 0; all channels are mixed if not given.
        most_seconds: no more than that is decoded.

    Raises:
        DataError: the file is missing, no audio, empty, too long, of an absurd rate, or has no such channel.
    """
    samples, rate = _decode(path, most_seconds)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if channel is not None and not 0 <= channel < channels:
        raise DataError(f"{path}: no channel {channel}; it has {channels}, the first is 0")
    if samples.ndim > 1:
        samples = samples.mean(1) if channel is None else samples[:, channel]
    wave, seconds = check_waveform(samples, str(path)), len(samples) / rate
    from espnet2_legonn.data.audio import change_rate  # slow to import

    if seconds * fs > MAX_SAMPLES:
        raise DataError(f"{path}: {seconds:.0f} s at {fs} Hz are more than {MAX_SAMPLES} samples; split it")
    return Recording(change_rate(wave, rate, fs), seconds, rate, channels)


def _decode(path: str | Path, most_seconds: float | None) -> tuple[np.ndarray, int]:
    """Samples (T,) or (T, channels), and their rate; what a header says of the length is not believed."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, blocks, length = file.samplerate, [], 0
            if not RATES[0] <= rate <= RATES[1]:
                raise DataError(f"{path}: sampled at {rate} Hz; {RATES[0]} to {RATES[1]} Hz are read; resample it")
            for block in file.blocks(_BLOCK // file.channels, dtype="float32"):
                blocks.append(block)
                length += len(block)
                if most_seconds is not None and length > most_seconds * rate:
                    raise DataError(f"{path}: longer than {most_seconds:g} s; give a part of it")
                if length * file.channels > MAX_SAMPLES:
                    raise DataError(f"{path}: more than {MAX_SAMPLES} samples; split it")
            return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32)), rate
    except (OSError, RuntimeError, TypeError) as error:  # TypeError: a headerless .raw
        reason = error if Path(path).exists() else "no such file"
        raise DataError(f"{path}: cannot be read as audio ({reason}); give wav, flac, mp3 or ogg") from None


def check_waveform(samples: Any, where: str) -> np.ndarray:
    """A waveform as float32 in -1 ... 1, or an error.

    Args:
        samples: (T,) floats in -1 ... 1, or integers as sound files hold them: int8, int16, int32, or uint8 around 128.

    Raises:
        DataError: empty, not one-dimensional, no samples by their type, or with values that are not finite.
    """
    wave = samples.detach().cpu() if isinstance(samples, torch.Tensor) else samples
    wave = np.asarray(wave.float() if isinstance(wave, torch.Tensor) and wave.dtype == torch.bfloat16 else wave)
    if wave.ndim != 1:
        raise DataError(
            f"{where}: shape {wave.shape}, one channel is needed; mix or choose a channel first. An array is one "
            "input: give several as a list of waveforms"
        )
    if not wave.size:
        raise DataError(f"{where}: no samples")
    if wave.dtype == np.uint8:
        wave = (wave.astype(np.float32) - 128) / 128
    elif wave.dtype.kind == "i" and wave.dtype.itemsize <= 4:
        wave = wave / -float(np.iinfo(wave.dtype).min)
    elif wave.dtype.kind != "f":
        raise DataError(
            f"{where}: samples of type {wave.dtype} have no known full scale; give floats in -1 ... 1, or int16 "
            "or int32"
        )
    if not np.isfinite(wave).all():
        raise DataError(f"{where}: {int((~np.isfinite(wave)).sum())} of {wave.size} samples are NaN or infinite")
    if (peak := float(np.abs(wave).max())) > LOUDEST:
        warnings.warn(
            f"{where}: samples of up to {peak:.0f}, a waveform is in -1 ... 1; divide 16-bit numbers by 32768",
            stacklevel=2,
        )
    return wave.astype(np.float32)


def normalized(text: str, vocab: Vocabulary) -> str:
    """Raw text in the normalisation that the vocabulary was made with; phonemes are no raw text and stay."""
    if vocab.normalization not in NORMALIZATIONS or vocab.unit == "phn":
        return text
    return normalize(text, vocab.normalization)


def unknown_tokens(text: str, vocab: Vocabulary) -> list[str]:
    """Tokens of a text, normalised before, that the vocabulary lacks or that are no words."""
    return [token for token in vocab.split(text) if token not in vocab.ids or token in RESERVED]


def encode_text(text: Any, vocab: Vocabulary, where: str) -> list[int]:
    """Source text (raw: it gets the vocabulary's normalisation) or ids to ids.

    Raises:
        DataError: nothing to translate, or ids outside the vocabulary.
    """
    if isinstance(text, (torch.Tensor, np.ndarray, list, tuple)):
        array = np.asarray(text.tolist() if isinstance(text, torch.Tensor) else text)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise DataError(
                f"{where}: shape {array.shape} of {array.dtype} is no list of ids; give several texts as a list of them"
            )
        ids = [int(i) for i in array]
        wrong = [i for i in ids if not 0 <= i < len(vocab)]
        if wrong:
            raise DataError(f"{where}: id {wrong[0]} is outside the vocabulary of {len(vocab)} tokens")
    elif not isinstance(text, str):
        raise DataError(f"{where}: {text!r} is neither text nor ids")
    else:
        text = normalized(text, vocab)
        ids = vocab.encode(text)
        if unknown := unknown_tokens(text, vocab):
            told = harmless(" ".join(unknown[:10]))  # a stranger's model makes pieces of its own
            warnings.warn(f"{where}: not in the vocabulary, read as <unk>: {told}", UnknownTokens, stacklevel=4)
    if not ids:
        raise DataError(f"{where}: empty text")
    return ids


def checked_ids(value: Any, vocab: Vocabulary, where: str) -> np.ndarray:
    """Training text, or ids of its tokens, to ids (L,).

    Args:
        where: names it in errors, ``utterance X: text``.

    Raises:
        DataError: empty, ``<blank>`` or ``<sos/eos>`` among the words, or ids that are no word's.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iu":
            raise DataError(f"{where} holds {value.dtype}, but ids are integers")
        wrong = [int(i) for i in value.flat if not vocab.blank_id < i < vocab.sos_eos_id]
        if wrong:
            raise DataError(
                f"{where} has the id {wrong[0]}; of {len(vocab)} tokens, a text has those between "
                f"{vocab.blank_id} ({BLANK}) and {vocab.sos_eos_id} ({SOS_EOS})"
            )
    elif reserved := vocab.reserved(str(value)):
        raise DataError(
            f"{where} says {reserved[0]}, which is no word: CTC and the decoder need it for themselves; take it out of "
            "the text or rename it"
        )
    ids = np.asarray(value if isinstance(value, np.ndarray) else vocab.encode(str(value)), dtype=np.int64)
    if not ids.size:
        raise DataError(f"{where} is empty; stage 4 removes such utterances")
    return ids


def pad(items: Sequence[np.ndarray | list[int]], dtype: torch.dtype, device: torch.device) -> Batch:
    """(B, T, ...) padded with zeros, and (B,) lengths; items differ in their first axis alone."""
    lengths = torch.tensor([len(item) for item in items], device=device)
    batch = torch.zeros(len(items), int(lengths.max()), *np.shape(items[0])[1:], dtype=dtype)
    for row, item in zip(batch, items):
        row[: len(item)] = torch.as_tensor(item, dtype=dtype)
    return batch.to(device), lengths


def is_list(inputs: Any) -> bool:
    """Whether several inputs are given: only a list or tuple of them is that.

    An array, a tensor or a list of numbers is one input, whatever its shape: (samples, channels) is no batch.
    """
    return isinstance(inputs, (list, tuple)) and not (len(inputs) and isinstance(inputs[0], numbers.Number))


def as_items(inputs: Any) -> list[Any]:
    """One input or several, as a list."""
    return list(inputs) if is_list(inputs) else [inputs]


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
