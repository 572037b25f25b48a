"""English speech from espeak-ng (wheel espeakng-loader), the same bytes in any order and any process.

The samples of a text depend on what the library said before (C statics outlive espeak_Terminate) and on
generators seeded by the clock. So every utterance reloads the library (a few ms) and seeds both generators.
"""

from __future__ import annotations

import _ctypes
import ctypes
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from tqdm import tqdm

RATE = 16000  # Hz, of the files. The synthesiser itself runs at 22,050 Hz
LANGUAGE = "en-us"
SNR_DB = (15.0, 30.0)
SYNCHRONOUS, UTF8, CHARACTERS, NO_EXIT = 2, 1, 1, 0x8000
PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
INSTALL = "python -m pip install espeakng-loader soundfile soxr"
# The speakers of each set, all human-like variants of espeak-ng. Those of the test set are heard nowhere else
# and speak at ordinary speed (Andrea, anika: a quarter faster than the rest, Marco and Alicia slower).
VOICES = {
    "train_asr": "m1 m3 m5 m7 f1 f3 f5 Alex Andy Annie Lee Michael belinda david Andrea paul".split(),
    "train_ted": "m2 m6 f2 Gene Mario Mike adam anika boris caleb ed john miguel pablo steph Marco".split(),
    "valid_asr": "m8 Alicia ian robert".split(),
    "valid_ted": "m8 Alicia ian robert".split(),
    "test_asr": "m4 f4 rob linda shelby edward".split(),
}


class SynthesiserMissing(RuntimeError):
    """The wheel that carries espeak-ng is not installed."""

    def __init__(self, module: str | None) -> None:
        super().__init__(
            f"the demo's speech needs the Python module {module}, which is missing; run: {INSTALL}"
        )


@dataclass(frozen=True)
class Utterance:
    """What is said, by whom and how: rate in words per minute, pitch and range 0-99, SNR and noise seed."""

    id: str
    speaker: str
    text: str
    voice: str
    rate: int
    pitch: int
    range: int
    snr_db: float
    noise_seed: int


def plan(name: str, texts: Sequence[str], seed: int) -> list[Utterance]:
    """Give every text of a set a speaker and a manner, sorted by id. Ids are `<speaker>-<set>-<number>`."""
    traits = {}
    for voice in VOICES[name]:
        rng = Random(f"{seed} {voice}")
        traits[voice] = (rng.randint(150, 185), rng.randint(40, 60), rng.randint(40, 60))
    utterances = []
    for number, text in enumerate(texts):
        rng = Random(f"{seed} {name} {number}")
        voice = rng.choice(VOICES[name])
        rate, pitch, range_ = traits[voice]
        utterances.append(
            Utterance(
                id=f"{voice.lower()}-{name}-{number:05d}",
                speaker=voice.lower(),
                text=text,
                voice=f"{LANGUAGE}+{voice}",
                rate=rate + rng.randint(-15, 15),
                pitch=pitch + rng.randint(-5, 5),
                range=range_,
                snr_db=round(rng.uniform(*SNR_DB), 2),
                noise_seed=rng.getrandbits(32),
            )
        )
    return sorted(utterances, key=lambda u: u.id)


class Espeak:
    """espeak-ng by ctypes. Its state is global: one object a process, so several run in several processes."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise SynthesiserMissing(error.name) from error
        self.path = espeakng_loader.get_library_path()
        # espeak_Initialize wants the folder that contains espeak-ng-data
        self.data = os.path.dirname(espeakng_loader.get_data_path()).encode()
        self.library: ctypes.CDLL | None = None
        self.pieces: list[bytes] = []
        # C keeps only the pointer: the reference must live as long as the library
        integer, samples, pointer = ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_void_p
        self.callback = ctypes.CFUNCTYPE(integer, samples, integer, pointer)(self._receive)

    def say(self, text: str, voice: str, rate: int, pitch: int, range: int) -> tuple[np.ndarray, int]:
        """Return int16 samples (time,) and their sampling rate in Hz.

        Raises:
            ValueError: unknown voice.
            RuntimeError: espeak-ng reports a failure.
        """
        library, sample_rate = self._fresh()
        try:
            if library.espeak_SetVoiceByName(voice.encode()):
                raise ValueError(f"espeak-ng has no voice {voice!r}; choose one of speech.VOICES")
            for name, value in (("rate", rate), ("pitch", pitch), ("range", range)):
                library.espeak_SetParameter(PARAMETERS[name], value, 0)
            self.pieces.clear()
            raw = text.encode()
            status = library.espeak_Synth(raw, len(raw) + 1, 0, CHARACTERS, 0, UTF8, None, None)
            if status or library.espeak_Synchronize() or not self.pieces:
                raise RuntimeError(f"espeak-ng failed with status {status} on {text!r}")
            return np.frombuffer(b"".join(self.pieces), np.int16).copy(), sample_rate
        finally:
            library.espeak_Terminate()

    def _fresh(self) -> tuple[ctypes.CDLL, int]:
        if self.library is not None:
            _ctypes.dlclose(self.library._handle)
        self.library = library = ctypes.CDLL(self.path)
        pointer, size, unsigned = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p, size, unsigned, ctypes.c_int, unsigned, unsigned, pointer, pointer
        ]  # fmt: skip
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, self.data, NO_EXIT)
        if sample_rate <= 0:
            raise RuntimeError(f"espeak-ng does not start (status {sample_rate}); reinstall it: {INSTALL}")
        library.espeak_SetSynthCallback(self.callback)
        library.espeak_ng_SetRandSeed(1)
        ctypes.CDLL(None).srand(1)
        return library, sample_rate

    def _receive(self, samples: ctypes._Pointer, count: int, events: int) -> int:
        if count > 0 and samples:
            self.pieces.append(ctypes.string_at(samples, 2 * count))
        return 0


def add_noise(clean: np.ndarray, snr_db: float, seed: int) -> np.ndarray:
    """White noise at a signal-to-noise ratio over the whole utterance: (time,) float to float."""
    noise = np.random.default_rng(seed).standard_normal(len(clean))
    power = float(np.mean(clean**2)) / 10 ** (snr_db / 10)
    return clean + noise * power**0.5


_espeak: Espeak | None = None  # one a process


def render(utterance: Utterance, folder: str) -> int:
    """Write `<folder>/<id>.flac` (16 kHz mono 16 bit) by a temporary name. Returns its number of samples."""
    global _espeak
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise SynthesiserMissing(error.name) from error
    if _espeak is None:
        _espeak = Espeak()
    u = utterance
    pcm, rate = _espeak.say(u.text, u.voice, u.rate, u.pitch, u.range)
    clean = soxr.resample(pcm / 32768.0, rate, RATE)
    noisy = add_noise(clean, u.snr_db, u.noise_seed)
    samples = np.clip(np.round(noisy * 32767), -32768, 32767).astype(np.int16)
    target = os.path.join(folder, f"{u.id}.flac")
    soundfile.write(target + ".tmp", samples, RATE, format="FLAC", subtype="PCM_16")
    os.replace(target + ".tmp", target)
    return len(samples)


def render_all(utterances: Sequence[Utterance], folder: Path, nj: int) -> list[int]:
    """Render a set over `nj` processes. Returns the numbers of samples in order.

    Raises:
        SynthesiserMissing: espeakng-loader, soundfile or soxr is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folders = [str(folder)] * len(utterances)
    if nj <= 1:
        return list(_progress(map(render, utterances, folders), len(utterances), folder.parent.name))
    with ProcessPoolExecutor(nj, mp_context=multiprocessing.get_context("spawn")) as pool:
        counts = pool.map(render, utterances, folders, chunksize=25)
        return list(_progress(counts, len(utterances), folder.parent.name))


def _progress(counts: Iterator[int], total: int, name: str) -> Iterator[int]:
    yield from tqdm(counts, total=total, desc=f"speaking {name}", unit="utt", file=sys.stderr, disable=None)
