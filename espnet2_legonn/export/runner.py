#!/usr/bin/env python3
"""Answers of a LegoNN chain that was exported: onnxruntime, numpy and, for subwords, sentencepiece are all it needs.

    python run.py "ein Hund läuft"         # without texts, lines of standard input
    python run.py talk.wav --json          # a chain that reads speech

    from run import Runner
    print(Runner(FOLDER)("ein Hund läuft"))
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import unicodedata
import wave
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from espnet2_legonn.export.search import (
    BLANK,
    CTC,
    Beam,
    Candidate,
    RunnerError,
    SearchOptions,
    Steps,
    collapse,
    log_softmax,
)

UNK, MANIFEST, FORMAT = 1, "export.json", 1
# As in the package's data.text: what is invisible, and what is an apostrophe.
INVISIBLE = dict.fromkeys([0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF])
APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4`\u2032\uff07", "'"))
INNER_APOSTROPHE, KEPT = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])"), "\ue000"
BYTES = {f"<0x{i:02X}>": i for i in range(256)}


class InterfaceText(NamedTuple):
    """What an interface says by itself."""

    ids: list[int]
    score: float
    text: str


class Result(NamedTuple):
    """Hypotheses, best first, and their texts; what each interface says, by module; what is to be known of it."""

    nbest: list[Candidate]
    texts: list[str]
    interfaces: dict[str, InterfaceText]
    notes: list[str]

    @property
    def best(self) -> Candidate:
        return self.nbest[0]

    @property
    def text(self) -> str:
        return self.texts[0]


# -- text --------------------------------------------------------------------------------------------------------------


def normalize(text: str, name: str) -> str:
    """The text treatments ``tc``, ``lc`` and ``lc.rm`` of the package."""
    text = unicodedata.normalize("NFC", text).translate(INVISIBLE)
    text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    if name != "tc":
        text = unicodedata.normalize("NFC", text.lower())
    if name == "lc.rm":
        text = INNER_APOSTROPHE.sub(KEPT, text.translate(APOSTROPHES))
        text = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in text).replace(KEPT, "'")
    return " ".join(text.split())


class TokenTable:
    """Tokens, and how text becomes tokens; ``about`` is its entry of export.json."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.unit, self.normalization, self.sha256 = about["unit"], about["normalization"], about["sha256"]
        self.tokens = (folder / about["tokens"]).read_text(encoding="utf-8").split("\n")[:-1]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.model = (folder / about["bpemodel"]).read_bytes() if about["bpemodel"] else b""
        self.end, self.merges = len(self.tokens) - 1, self.model.startswith(b"#version:")
        self._splitter: Callable[[str], Any] | None = None
        self.spells_bytes = BYTES.keys() <= self.ids.keys()

    def split(self, text: str) -> list[str]:
        """Normalised text to tokens."""
        if self.unit == "char":
            return ["<space>" if c == " " else c for c in " ".join(text.split())]
        if self.unit != "bpe":
            return text.split()
        if self._splitter is None:
            self._splitter = self._load()
        return list(self._splitter(text))

    def _load(self) -> Callable[[str], Any]:
        if self.merges:
            from io import StringIO

            from subword_nmt.apply_bpe import BPE

            merges = BPE(StringIO(self.model.decode("utf-8")))
            return lambda text: merges.segment_tokens(text.split())
        from sentencepiece import SentencePieceProcessor

        processor = SentencePieceProcessor(model_proto=self.model)
        return lambda text: processor.encode(text, out_type=str)

    def encode(self, text: str) -> list[int]:
        """Raw or normalised text to ids."""
        if self.normalization in ("tc", "lc", "lc.rm") and self.unit != "phn":
            text = normalize(text, self.normalization)
        ids = [self.ids.get(token, UNK) for token in self.split(text)]
        return [UNK if i in (BLANK, self.end) else i for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text."""
        tokens = [self.tokens[i] for i in ids if i not in (BLANK, self.end)]
        if self.merges:
            return re.sub(r"@@(?: |$)", "", " ".join(tokens))
        if self.unit == "char":
            return "".join(" " if token == "<space>" else token for token in tokens)
        if self.unit != "bpe":
            return " ".join(tokens)
        text = ""
        for spelled, run in groupby(tokens, lambda token: self.spells_bytes and token in BYTES):
            if spelled:
                text += bytes(BYTES[token] for token in run).decode("utf-8", errors="replace")
            else:
                text += "".join(run).replace("\u2581", " ")
        return (text.replace("\r", " ").replace("\n", " ") if self.spells_bytes else text).strip(" ")


# -- sound -------------------------------------------------------------------------------------------------------------


def log_mel(samples: np.ndarray, window: np.ndarray, filters: np.ndarray, hop: int) -> np.ndarray:
    """(samples,) in -1 ... 1 to (frames, n_mels); window (W,), filters (n_fft / 2 + 1, n_mels)."""
    size = 2 * (len(filters) - 1)
    samples = np.pad(samples.astype(np.float32), (0, max(0, size - len(samples))))
    side = (size - len(window)) // 2
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop, side : side + len(window)]
    spectrum = np.fft.rfft(frames * window, size)  # where a window lies in its frame changes phases alone
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(np.maximum(power @ filters, 1e-10)).astype(np.float32)


def waveform(samples: Any) -> np.ndarray:
    """(samples,) of floats, or of integers as sound files hold them, as float32 in -1 ... 1."""
    found = np.asarray(samples)
    if found.ndim != 1:
        raise RunnerError(f"samples of shape {found.shape}: one channel is needed")
    if found.dtype.kind == "i" and found.dtype.itemsize <= 4:
        found = found / -float(np.iinfo(found.dtype).min)
    if found.dtype.kind != "f" or not np.isfinite(found).all():
        raise RunnerError(f"samples of type {found.dtype}: give finite floats in -1 ... 1, int16 or int32")
    return found.astype(np.float32)


def read_sound(path: str | Path, fs: int) -> np.ndarray:
    """One channel in -1 ... 1: wav of 16 bits, and whatever soundfile reads where that is installed."""
    try:
        try:
            import soundfile

            samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        except ImportError:
            with wave.open(str(path)) as file:
                rate, data = file.getframerate(), file.readframes(file.getnframes())
                if file.getsampwidth() != 2:
                    raise RunnerError(f"{path}: {8 * file.getsampwidth()} bits; install soundfile") from None
                samples = np.frombuffer(data, "<i2").reshape(-1, file.getnchannels()) / np.float32(32768)
    except (OSError, RuntimeError, EOFError, wave.Error) as error:
        raise RunnerError(f"{path}: cannot be read as sound ({error})") from None
    if rate != fs or not len(samples):
        raise RunnerError(f"{path}: {len(samples)} samples at {rate} Hz, this chain reads {fs} Hz; resample it first")
    return waveform(samples.mean(1))


# -- the chain ---------------------------------------------------------------------------------------------------------


class Runner:
    """An exported chain.

    Args:
        folder: of ``legonn export``, by default that of this file.
        threads: for products; by default OMP_NUM_THREADS, else onnxruntime's choice.

    Raises:
        RunnerError: names every file that is missing or damaged.
    """

    def __init__(self, folder: str | Path | None = None, threads: int | None = None) -> None:
        import onnxruntime

        self.folder = Path(folder or Path(__file__).parent)
        self.about = checked(self.folder)
        self.vocabs = {name: TokenTable(self.folder, about) for name, about in self.about["vocabs"].items()}
        self.modules: list[dict[str, Any]] = self.about["modules"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0) if threads is None else threads
        options.log_severity_level = 3
        self.sessions = {
            file: onnxruntime.InferenceSession(self.folder / file, options, providers=["CPUExecutionProvider"])
            for module in self.modules
            for file in module["graphs"]
        }
        self.decoder = self.modules[-1] if self.modules[-1]["writes"] == "text" else None
        self.kind, self.fs = self.modules[0]["reads"], self.modules[0]["fs"]
        self._mel = np.load(self.folder / self.modules[0]["filters"]) if self.kind == "speech" else {}

    def __call__(self, item: Any, **options: Any) -> str:
        """Text of one input; options are those of ``Options``."""
        return self.answers([item], SearchOptions(**options))[0].text

    def read(self, item: Any) -> np.ndarray:
        """A text or ids, a file name or samples, features (frames, n) or log-probabilities (K, V), as an array."""
        if self.kind == "tokens":
            vocab = self.vocabs[self.modules[0]["vocab"]]
            found = np.array(vocab.encode(item) if isinstance(item, str) else item, np.int64)
            if found.ndim != 1 or (found.size and not 0 <= found.min() <= found.max() <= vocab.end):
                raise RunnerError(f"{item!r:.60}: no list of ids from 0 to {vocab.end}")
        elif self.kind == "speech":
            found = read_sound(item, self.fs) if isinstance(item, (str, Path)) else waveform(item)
        else:
            found = np.asarray(item, np.float32)
        if not found.size:
            raise RunnerError(f"{item!r:.60}: there is nothing to read in it")
        if self.kind == "speech":
            return log_mel(found, self._mel["window"], self._mel["filters"], self.modules[0]["hop"])
        return found

    def answers(self, inputs: Sequence[Any], options: Any = None) -> list[Result]:
        """All that the chain says of each input; they are decoded together.

        Raises:
            RunnerError: an input or option that cannot be used.
        """
        options = options or SearchOptions()
        if not len(inputs):
            raise RunnerError("no inputs: the list is empty")
        if not (1 <= options.nbest <= options.beam_size and options.temperature > 0):
            raise RunnerError("beam_size and nbest begin at 1, nbest ends at beam_size, temperature is above 0")
        said, x, lengths, notes = self._encode([self.read(item) for item in inputs])
        found = self._search(said, x, lengths, options)
        vocab, interfaces = self.vocabs[self.modules[-1]["target"]], {}
        for module in self.modules:
            if module is not self.decoder and module["name"] in said:
                interfaces[module["name"]] = self._best_paths(module, said[module["name"]])
        return [
            Result(nbest, [vocab.decode(h.ids) for h in nbest], {n: p[i] for n, p in interfaces.items()}, notes[i])
            for i, nbest in enumerate(found)
        ]

    def _encode(self, items: list[np.ndarray]) -> tuple[dict[str, list[np.ndarray]], np.ndarray, np.ndarray, Any]:
        """Log-probabilities (K, V) of each interface and input; what the decoder reads, its lengths; notes."""
        x, lengths = padded(items, 4 if self.kind in ("speech", "features") else 1)
        said: dict[str, list[np.ndarray]] = {"": items} if self.kind == "marginals" else {}
        notes: list[list[str]] = [[] for _ in items]
        for module in self.modules if self.decoder is None else self.modules[:-1]:
            x, lengths = collapsed(module, x, lengths)
            session, name = self.sessions[module["graphs"][0]], module["name"]
            names = [output.name for output in session.get_outputs()]
            given = dict(zip(names, session.run(names, {"x": x, "lengths": lengths})))
            x, lengths = given["output"], given["slots"]
            for note, wanted in zip(notes, given["wanted"]):
                if (limit := module["longest"]) and wanted > limit:
                    seen = f"at most {limit} were seen in training ({wanted / limit:.1f} times)"
                    note.append(f"{wanted} slots behind {name}, {seen}; the text is not to be trusted, split the input")
            if module["target"]:
                spoken = given["log_probs" if "log_probs" in given else "output"]
                said[name] = [row[:n] for row, n in zip(spoken, lengths)]
                if any(np.isnan(row).any() for row in said[name]):
                    raise RunnerError(f"{name}: probabilities are NaN: its weights or its input are not finite")
        return said, x, lengths, notes

    def _best_paths(self, module: dict[str, Any], log_probs: list[np.ndarray]) -> list[InterfaceText]:
        vocab, found = self.vocabs[module["target"]], []
        for row in log_probs:
            ids = [i for i, _ in groupby(row.argmax(-1).tolist()) if i != BLANK]
            found.append(InterfaceText(ids, float(row.max(-1).sum()), vocab.decode(ids)))
        return found

    def _search(
        self, said: dict[str, list[np.ndarray]], x: np.ndarray, lengths: np.ndarray, options: Any
    ) -> list[list[Candidate]]:
        """Hypotheses of each input; the last interface is searched by CTC, alone or beside the decoder."""
        decoder, k = self.decoder, options.beam_size
        name, last = list(said.items())[-1] if said else ("", [])
        given = {"target": self.modules[0]["vocab"], "grounded": True}  # distributions that the first module reads
        writer = next((module for module in self.modules if module["name"] == name), given)
        vocab, other = self.vocabs[self.modules[-1]["target"]], self.vocabs.get(writer["target"])
        joint = bool(last) and other is not None and other.sha256 == vocab.sha256
        weight, penalty = self._weights(options, decoder is None or bool(joint and writer["grounded"]), bool(last))
        if decoder is None and not weight:
            paths = self._best_paths(writer, last)
            return [[Candidate(p.ids, p.score, p.score, {"ctc": p.score})] for p in paths]
        weights = {"ctc": 1.0} if decoder is None else {"decoder": 1 - weight if joint else 1.0, "ctc": weight * joint}
        weights = {scorer: w for scorer, w in weights.items() if w}
        beams = [
            Beam(int(n), options, penalty, vocab.end, weights, CTC(last[i], k, 2 * k) if "ctc" in weights else None)
            for i, n in enumerate(lengths)
        ]
        self._run(beams, self._steps(x, lengths, options, vocab.end) if "decoder" in weights else None)
        found = [sorted(beam.finished, key=lambda h: -h.score) for beam in beams]
        if decoder is not None and weight and not joint and other is not None:
            if other.unit == "phn":
                raise RunnerError("ctc_weight: the last interface is over phonemes, no text is scored by it; give 0")
            for i, hypotheses in enumerate(found):
                texts = [vocab.decode(h.ids) for h in hypotheses[:k]]
                scores = [CTC.of_text(last[i], other.encode(text)) for text in texts]
                again = [self._rescored(h, ctc, weight, penalty) for h, ctc in zip(hypotheses, scores)]
                found[i] = sorted(again, key=lambda h: -h.score)
        return [hypotheses[: options.nbest] for hypotheses in found]

    def _weights(self, options: Any, natural: bool, speaks: bool) -> tuple[float, float]:
        """Weight of CTC and length penalty: what is asked for, else what was tuned, else the package's defaults.

        Args:
            natural: CTC takes part unless told otherwise; speaks: there is an interface.
        """
        tuned = self.about["search"]
        if tuned is None:
            tuned = {"ctc_weight": 0.4 if natural else 0.0, "length_penalty": 0.0 if self.decoder is None else 1.0}
        weight = tuned["ctc_weight"] if options.ctc_weight is None else options.ctc_weight
        penalty = tuned["length_penalty"] if options.length_penalty is None else options.length_penalty
        if not 0 <= weight <= 1 or (weight and not speaks):
            raise RunnerError(f"ctc_weight: {weight} is not between 0 and 1, or this chain has no interface; give 0")
        return weight, penalty

    @staticmethod
    def _rescored(h: Candidate, ctc: float, weight: float, penalty: float) -> Candidate:
        log_prob = h.log_prob + weight * (ctc - h.parts["decoder"])
        return Candidate(h.ids, log_prob / (len(h.ids) + 1) ** penalty, log_prob, {**h.parts, "ctc": ctc})

    def _steps(self, x: np.ndarray, lengths: np.ndarray, options: Any, end: int) -> Steps:
        assert self.decoder is not None
        if options.temperature != 1 and self.decoder["reads"] == "marginals":
            x = log_softmax(x / np.float32(options.temperature))
        start, step = (self.sessions[file] for file in self.decoder["graphs"])
        return Steps(start, step, *collapsed(self.decoder, x, lengths), options.beam_size, end)

    @staticmethod
    def _run(beams: list[Beam], steps: Steps | None) -> None:
        alive = beams
        while alive:
            moves = [beam.extend(None if steps is None else steps.log_probs[i]) for i, beam in enumerate(alive)]
            going = [i for i, beam in enumerate(alive) if not beam.done]
            if going and steps is not None:
                steps.advance(going, *(np.stack([moves[i][side] for i in going]) for side in (0, 1)))
            alive = [alive[i] for i in going]


def padded(items: Sequence[np.ndarray], multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(B, T, ...) with zeros behind each item, T a multiple of some number, and lengths (B,)."""
    lengths = np.array([len(item) for item in items])
    size = -(-lengths.max() // multiple) * multiple
    batch = np.zeros((len(items), size, *items[0].shape[1:]), items[0].dtype)
    for row, item in zip(batch, items):
        row[: len(item)] = item
    return batch, lengths


def collapsed(module: dict[str, Any], x: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a module reads; one that merges runs of slots has that done here, since sizes follow from values."""
    if not module["collapse"]:
        return x, lengths
    return padded([collapse(row[:n]) for row, n in zip(x, lengths)])


def checked(folder: Path) -> dict[str, Any]:
    """What export.json says, if every file is what it says."""
    try:
        about: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise RunnerError(f"{folder}: format {about['format']}, this program reads {FORMAT}; export again")
        files = about["files"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, RunnerError):
            raise
        raise RunnerError(f"{folder / MANIFEST}: cannot be read ({error}); export again") from None
    faults = []
    for name, wanted in files.items():
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        if found != wanted:
            faults.append(f"{path}: SHA-256 is {found}, {MANIFEST} says {wanted}; copy or export it again")
    if faults:
        raise RunnerError("\n".join(faults))
    return about


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", help="texts, or sound files; without any, lines of standard input")
    for name, value in SearchOptions()._asdict().items():
        parser.add_argument(f"--{name}", type=float if value is None else type(value), default=value)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="also scores and what each interface says")
    args = parser.parse_args()
    try:
        runner, inputs = Runner(), args.inputs or sys.stdin.read().splitlines()
        options = SearchOptions(**{name: getattr(args, name) for name in SearchOptions._fields})
        size = max(1, args.batch_size)
        for begin in range(0, len(inputs), size):
            for answer in runner.answers(inputs[begin : begin + size], options):
                shown: dict[str, Any] = {"text": answer.text, "nbest": [h._asdict() for h in answer.nbest]}
                shown["interfaces"] = {name: said.text for name, said in answer.interfaces.items()}
                print(json.dumps(shown, ensure_ascii=False) if args.json else answer.text, flush=True)
                sys.stderr.writelines(f"note: {note}\n" for note in answer.notes)
    except RunnerError as error:
        print(f"RunnerError:\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
