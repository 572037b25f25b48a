"""Word times, a long recording and hotwords, on sentences whose truth espeak-ng tells: docs/speech.md.

    python -m benchmarks.words DATA           DATA: egs2/mini_legonn/legonn1/dump/raw of the demo
    python -m benchmarks --docs               writes the figures into the page

Sentences of the demo's test set are said anew by voices that no training set has, and espeak-ng tells when each word
begins. The models are the packs of the repository.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import soxr

from benchmarks import pages, process
from espnet2_legonn import LegoNN
from espnet2_legonn.data.tables import read_table
from espnet2_legonn.inference.cues import Spoken, cues
from espnet2_legonn.model.timeline import Timeline
from espnet2_legonn.search.words import Word, align

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "egs2/mini_legonn/legonn1/local"))
from mini import speech  # noqa: E402

WORD = 1  # espeakEVENT_WORD of speak_lib.h
PAUSES = (0.2, 0.3, 0.5, 0.8, 1.5, 3.0)  # seconds between the sentences of the recording


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", ctypes.c_char * 8),
    ]  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A sentence, its samples at 16 kHz, and the seconds at which its words begin (None: espeak-ng does not tell)."""

    text: str
    samples: np.ndarray
    begins: Sequence[float | None]


class Teller(speech.Espeak):
    """espeak-ng that keeps when its words begin."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[int, float] = {}

    def _receive(self, samples: Any, count: int, events: int) -> int:
        found = ctypes.cast(events, ctypes.POINTER(Event))
        i = 0
        while found[i].type:
            if found[i].type == WORD:
                self.words[found[i].text_position] = found[i].audio_position / 1000
            i += 1
        return int(super()._receive(samples, count, events))

    def sentence(self, text: str, number: int) -> Said:
        """Said by one of the test set's voices, with noise 25 dB below it."""
        self.words.clear()
        voices = speech.VOICES["test_asr"]
        pcm, rate = self.say(text, f"{speech.LANGUAGE}+{voices[number % len(voices)]}", 165, 50, 50)
        samples = speech.add_noise(soxr.resample(pcm / 32768, rate, speech.RATE), 25, number).astype(np.float32)
        begins, place = [], 0
        for word in text.split():
            place = text.index(word, place)
            begins.append(self.words.get(place + 1))
            place += len(word)
        return Said(text, samples, begins)


def summary(errors: Iterable[float]) -> dict[str, float]:
    """Median and 90 % of absolute errors, in milliseconds."""
    found = np.abs(list(errors)) * 1000
    return {"words": len(found), "median": round(float(np.median(found))), "90": round(float(np.quantile(found, 0.9)))}


def times(encoder: LegoNN, said: Sequence[Said]) -> dict[str, float]:
    """How far the begins of words are from the truth, text given."""
    vocab, errors = encoder.require_text(), []
    for one in said:
        x, lengths = encoder.batch([one.samples])
        with Timeline(encoder) as timeline:
            interfaces, _, _ = encoder.encode(x, lengths)
        spans = timeline.spans(lengths, interfaces)
        assert spans is not None, "the encoder reads sound"
        found = align(list(interfaces.values())[-1], spans, vocab.encode(one.text), vocab)
        if len(found) == len(one.begins):
            errors += [word.start - begin for word, begin in zip(found, one.begins) if begin is not None]
    return summary(errors)


def recording(said: Sequence[Said], seconds: float) -> tuple[np.ndarray, list[str], list[float | None]]:
    """Sentences one after the other with pauses: samples, words, and when these begin."""
    draw, pieces, words, begins, at = random.Random(1), [], [], [], 0.0
    for i, one in enumerate(said):
        quiet = np.random.default_rng(i).standard_normal(int(draw.choice(PAUSES) * speech.RATE)) * 1e-3
        at += len(quiet) / speech.RATE
        words += one.text.split()
        begins += [None if begin is None else at + begin for begin in one.begins]
        pieces += [quiet.astype(np.float32), one.samples]
        at += len(one.samples) / speech.RATE
        if at > seconds:
            break
    return np.concatenate(pieces), words, begins


def transcribed(
    path: Path, models: Sequence[str], vad: str, words: Sequence[str], begins: Sequence[float | None]
) -> dict[str, Any]:
    """``legonn transcribe`` of the recording, in a process of its own: what it found, seconds of processor, memory."""
    command = ["-m", "espnet2_legonn.bin.legonn", "transcribe", str(path), "--format", "json"]
    for model in models:
        command += ["--model", model]
    used = process.run([*command, "--vad", vad], path.parent)
    found = json.loads(used.out)
    aligned = jiwer.process_words(" ".join(words), found["text"])
    errors = []
    for chunk in aligned.alignments[0]:
        if chunk.type == "equal":
            for i, j in zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx), range(chunk.hyp_start_idx, chunk.hyp_end_idx)
            ):
                if (begin := begins[i]) is not None:
                    errors.append(found["words"][j]["start"] - begin)
    spoken = [Word(w["word"], w["start"], w["end"], 1.0) for w in found["words"]]
    known = np.array([begin for begin in begins if begin is not None])
    near = [np.abs(known - cue.start).min() for cue in cues([Spoken(0, spoken[-1].end, "", spoken)])]
    return {
        "vad": vad, "parts": len(found["parts"]), "wer": round(100 * aligned.wer, 1), "begins": summary(errors),
        "cues": summary(near), "rtf": round(used.seconds / soundfile.info(path).duration, 3),
        "mb": round(used.mb),
    }  # fmt: skip


def hotwords(chain: LegoNN, data: Path, weights: Sequence[float]) -> list[dict[str, float]]:
    """Rare words given as hotwords: WER and recall where they are said, WER and false alarms where they are not."""
    heard = collections.Counter(w for t in read_table(data / "train_asr/text").values() for w in t.split())
    texts, files = read_table(data / "test_asr/text"), read_table(data / "test_asr/wav.scp")
    vocab = chain.require_text()
    rare = {w for t in texts.values() for w in t.split() if heard[w] <= 3}
    rare_keys = [key for key, t in texts.items() if rare & set(t.split())][:120]
    plain_keys = [key for key, t in texts.items() if not rare & set(t.split())][:80]
    given = sorted(
        {w for k in rare_keys for w in texts[k].split() if w in rare and vocab.unk_id not in vocab.encode(w)}
    )

    def found(keys: Sequence[str], weight: float) -> list[str]:
        more = {"hotwords": given, "hotword_weight": weight} if weight else {}
        parts = [keys[i : i + 20] for i in range(0, len(keys), 20)]
        return [t for part in parts for t in chain([str(data.parents[1] / files[key]) for key in part], **more)]

    rows = []
    for weight in weights:
        rare_found, plain_found = found(rare_keys, weight), found(plain_keys, weight)
        said = [(w, t) for key, t in zip(rare_keys, rare_found) for w in texts[key].split() if w in given]
        rows.append(
            {
                "weight": weight,
                "wer": round(100 * jiwer.wer([texts[k] for k in rare_keys], rare_found), 1),
                "recall": round(100 * sum(w in t.split() for w, t in said) / len(said), 1),
                "plain_wer": round(100 * jiwer.wer([texts[k] for k in plain_keys], plain_found), 1),
                "false": sum(w in given for t in plain_found for w in t.split()),
            }
        )
    return rows


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--vad", nargs="+", default=["silero", "energy"])
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    asr, mt = (str(next((ROOT / "packs").glob(f"{name}-*.zip"))) for name in ("asr_encoder", "mt_de_en"))
    systems = {"encoder": [asr], "plugged decoder": [asr, f"{mt}#decoder"]}
    texts = list(read_table(args.data / "test_asr/text").values())
    teller = Teller()
    said = [teller.sentence(text, i // 8) for i, text in enumerate(texts[: int(args.seconds / 2)])]
    encoder = LegoNN.from_pretrained(asr)
    found: dict[str, Any] = {"times": times(encoder, said[::5][:60]), "recording": [], "hotwords": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        samples, words, begins = recording(said, args.seconds)
        found["seconds"] = len(samples) / speech.RATE
        soundfile.write(path, samples, speech.RATE)
        for name, models in systems.items():
            for vad in args.vad:
                row = {"model": name, **transcribed(path, models, vad, words, begins)}
                print(row, file=sys.stderr, flush=True)
                found["recording"].append(row)
    chains = {"encoder": encoder, "plugged decoder": encoder + LegoNN.from_pretrained(mt)[-1:]}
    for name, chain in chains.items():
        found["hotwords"][name] = hotwords(chain, args.data.resolve(), (0, 0.5, 1, 1.5, 2, 3))
    pages.WORDS.write_text(json.dumps(found, indent=1) + "\n")
    print(pages.words(found))


if __name__ == "__main__":
    main()
