"""``legonn transcribe`` and ``legonn translate``."""

from __future__ import annotations

import argparse
import contextlib
import glob
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from espnet2_legonn.bin.commands.lines import SPEECH_FORMATS, TIMED, Lines, Part
from espnet2_legonn.errors import DataError, LegoNNError, harmless

if TYPE_CHECKING:
    from espnet2_legonn.export import runner
    from espnet2_legonn.export.backend import Exported
    from espnet2_legonn.inference.espnet import Speech2Text, Text2Text
    from espnet2_legonn.inference.legonn import LegoNN
    from espnet2_legonn.model.inputs import Recording
    from espnet2_legonn.search import answers

    Model = Speech2Text | Text2Text | Exported
    Answer = answers.Answer | runner.Result

# What libsndfile decodes; a file that is named is tried whatever it is called.
SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif", ".au", ".sph")
# What one input may raise without an end of the others.
_LOST = (LegoNNError, RuntimeError, MemoryError, OSError)
STATUS = "exit status: 0 all done, 1 some inputs failed (they are named on stderr), 2 nothing could be done"
NBEST = """--nbest 2 or more: in text, a line for each answer in Moses's format, inputs numbered from 0:
NUMBER ||| TEXT ||| decoder= -3.2 ctc= -4.1 ||| SCORE"""
EPILOGS = {
    "transcribe": f"""Other sampling rates are resampled and several channels mixed, with a note.
FILE may be a folder (searched for {" ".join(s[1:] for s in SUFFIXES)}) or a pattern in quotes.
text: one line a file, FILE<TAB>TEXT for several; json: one object a line, with words, times and confidences;
srt, vtt: subtitles; ctm: NIST's table of words. Times behind a length controller are estimates.
What is longer than anything the model heard in training is cut where nobody speaks: by Silero's detector of speech if
it is installed (extra vad), else by energy.
{NBEST}
{STATUS}
example: legonn transcribe talk.wav interviews/ --model packs/asr#encoder --model packs/mt#decoder --format json""",
    "translate": f"""One line of output for each text; an empty text gives an empty line, as does one that failed.
{NBEST}
{STATUS}
example: echo "ein Hund läuft" | legonn translate --model packs/mt_de_en""",
}


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    option = parser.add_argument
    if name == "transcribe":
        option("files", nargs="+", metavar="FILE", help="audio files, folders, patterns")
    else:
        option("texts", nargs="*", metavar="TEXT", help="texts; without any, lines of standard input")
        option("-f", "--file", type=Path, help="translate the lines of this file")
        option("--votes", nargs="+", type=float, help="of voting encoders behind the first (default: ctc_weight)")
    option(
        "--model", action="append", required=True, metavar="PACK[#MODULE,...]",
        help="a pack; given more than once, the parts are plugged in this order"
        + ("" if name == "transcribe" else "; A#MODULE,B#MODULE: encoders that vote, texts then have tabs between"),
    )  # fmt: skip
    formats = SPEECH_FORMATS if name == "transcribe" else ("text", "json")
    option("--format", choices=formats, default="text", help="json: also the scores and each module's own text")
    option("-o", "--output", type=Path, help="write here; by default on standard output")
    if name == "transcribe":
        option("--channel", type=int, help="take this channel (the first is 0) instead of mixing all")
        option(
            "--vad", choices=["auto", "silero", "energy", "none"], default="auto",
            help="how long recordings are cut; none: they are not",
        )  # fmt: skip
        option(
            "--longest", type=float, metavar="SECONDS", help="of one part; by default what the model heard in training"
        )
    _add_search(parser.add_argument_group("search").add_argument)
    option("--batch_size", type=int, default=8, help="inputs decoded together; the answers do not depend on it")
    option("--device", default="cpu", help="cpu, cuda, cuda:N")
    option(
        "--backend", choices=["torch", "onnx"], default="torch",
        help="onnx: --model is a folder of `legonn export`, run by onnxruntime on CPUs",
    )  # fmt: skip
    option("--trust", action="store_true", help="also packs without a card, archives of espnet2.bin.pack")
    parser.epilog = EPILOGS[name]
    parser.set_defaults(run=transcribe if name == "transcribe" else translate)


def _add_search(option: Callable[..., Any]) -> None:
    option(
        "--config", type=Path, metavar="YAML",
        help="options of the search, those below and others (lm_file, ngram_file, penalty), as conf/decode.yaml of a "
        "recipe; what is given here wins",
    )  # fmt: skip
    option("--beam_size", type=int, help="hypotheses kept of each input (default: 5)")
    option("--nbest", type=int, help="answers for each input, with what each scorer says of them (default: 1)")
    option(
        "--ctc_weight", type=float,
        help="w in (1 - w) * decoder + w * CTC of the interface; 0: the decoder alone; by default what was tuned, else "
        "0.4 where both have the same tokens",
    )  # fmt: skip
    option(
        "--length_penalty", type=float,
        help="score = log-probability / length ** length_penalty; by default what was tuned, else 1.0",
    )  # fmt: skip
    option("--temperature", type=float, help="above 1 (the default) the decoder reads flatter distributions")
    option("--hotwords", nargs="+", metavar="WORDS", help="what is expected, or a file with one a line")
    option("--hotword_weight", type=float, help="what each token of a hotword gains (default: 1)")
    option("--dtype", help="of products: float32 (the default), bfloat16, float16, or int8, which is for CPUs")


@dataclass
class Desk:
    """Where answers, notes and errors go, without disturbing the progress bar.

    Args:
        failed: inputs without an answer so far.
        said: notes that were given; none is given twice.
        out: takes the answers.
    """

    failed: int = 0
    said: set[str] = field(default_factory=set)
    out: TextIO = field(default_factory=lambda: sys.stdout)

    @contextlib.contextmanager
    def opened(self, path: Path | None, inputs: Sequence[str]) -> Iterator[None]:
        """Answers go to this file, if one is given; never over one of the inputs."""
        if path is None:
            yield
            return
        if path.resolve() in [Path(name).resolve() for name in inputs]:
            raise DataError(f"{path}: is an input; choose another --output")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.out = path.open("w", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror}); choose another --output") from None
        with self.out:
            yield

    def write(self, text: str) -> None:
        """An answer; a reader of a pipe has it at once."""
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.out):
            self.out.write(text)
            self.out.flush()

    def note(self, message: str, kind: str | None = None) -> None:
        """Something worth knowing; once for each ``kind`` (by default, for each message)."""
        if (kind or message) not in self.said:
            self.said.add(kind or message)
            self._complain(f"note: {message}" + (" (said once)" if kind else ""))

    def error(self, faults: Iterable[str]) -> None:
        """An input that gets no answer."""
        self.failed += 1
        for fault in faults:
            self._complain(f"error: {fault}")

    @staticmethod
    def _complain(line: str) -> None:
        from tqdm import tqdm

        tqdm.write(harmless(line), file=sys.stderr)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Warnings of the chain become notes."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            if issubclass(warning.category, UserWarning):
                self.note(str(warning.message))


def transcribe(args: argparse.Namespace) -> int:
    """Decode audio files in the order given; the exit status."""
    desk = Desk()
    files = _find(args.files, desk)
    _require(args.model, args.backend)
    args.search = _search(args)
    if args.format in ("srt", "vtt", "ctm") and args.nbest > 1:
        raise DataError(f"--format {args.format} has room for one answer; leave --nbest out, or take --format json")
    if args.format == "ctm" and args.backend == "onnx":
        raise DataError("--format ctm: an export says no times of words; take --backend torch")
    from espnet2_legonn.inference import segments
    from espnet2_legonn.inference.espnet import Speech2Text
    from espnet2_legonn.model.inputs import adapt_audio

    model = _load(Speech2Text, args, desk)
    if args.format in TIMED and args.backend == "torch":
        model.times = True
    lines = Lines(args.format, args.nbest, files != args.files or len(files) > 1)
    longest = args.longest
    if longest is None:
        longest = segments.longest_part(model.chain) if args.backend == "torch" else segments.USUAL

    def read(path: str) -> Recording:
        recording = adapt_audio(path, model.fs, args.channel)
        if recording.rate != model.fs:
            desk.note(f"{path}: resampled from {recording.rate} Hz to the {model.fs} Hz of the model", "rate")
        if recording.channels > 1 and args.channel is None:
            desk.note(f"{path}: {recording.channels} channels, mixed into one; --channel chooses one", "channels")
        return recording

    def cut(recording: Recording) -> list[tuple[Any, Any]]:
        spans = segments.segments(recording.wave, model.fs, longest, args.vad)
        return [(span, recording.wave[round(span[0] * model.fs) : round(span[1] * model.fs)]) for span in spans]

    with desk.opened(args.output, files):
        for path, recording, found in _decode(model, files, read, cut, max(1, args.batch_size), desk):
            if found is not None:
                parts = [Part(start, end, answer) for (start, end), answer in found]
                desk.write(lines.speech(path, recording.seconds, parts, args.channel))
    return int(desk.failed > 0)


def translate(args: argparse.Namespace) -> int:
    """Translate texts in the order given; the exit status."""
    if args.texts and args.file:
        raise DataError("texts were given and --file, too: choose one")
    desk, items, at_once = Desk(), _texts(args), args.batch_size
    encoders = several(args.model[0])
    _require([*encoders, *args.model[1:]], args.backend)
    args.search = _search(args)
    from espnet2_legonn.inference.espnet import Text2Text
    from espnet2_legonn.model.inputs import encode_text, normalized

    model: Any = _voting(args, encoders, desk) if len(encoders) > 1 else _load(Text2Text, args, desk)
    vocabs = model.source_vocabs if len(encoders) > 1 else [model.source]
    lines = Lines(args.format, args.nbest)

    def read(item: tuple[str, str]) -> list[Any]:
        place, text = item
        texts = text.split("\t") if len(vocabs) > 1 else [text]
        if len(texts) != len(vocabs):
            raise DataError(f"{place}: {len(texts)} texts for {len(vocabs)} encoders; put a tab between them")
        if not all(normalized(t, v).strip() for t, v in zip(texts, vocabs)):
            return []
        ids = [encode_text(t, v, place) for t, v in zip(texts, vocabs)]
        return ids if len(ids) > 1 else ids[0]

    if not (args.texts or args.file) and sys.stdin.isatty():
        at_once = 1  # somebody waits for each answer
    with desk.opened(args.output, [str(args.file)] if args.file else []):
        for (_, text), _, found in _decode(model, items, read, lambda ids: [((), ids)], max(1, at_once), desk):
            desk.write(lines.text(text, found[0][1] if found else None))
    return int(desk.failed > 0)


def _require(specs: Sequence[str], backend: str) -> None:
    """A mistyped pack is said before seconds go into loading what would read it."""
    from espnet2_legonn.packs.fetch import resolve

    for spec in specs if backend == "torch" else ():
        resolve(spec.partition("#")[0])


def _load(cls: type[Any], args: argparse.Namespace, desk: Desk) -> Any:
    """The model; what its joints have to say is a note."""
    if args.backend == "onnx":
        return _exported(cls, args)
    return cls(_chain(args.model, args.trust, desk), device=args.device, **{"beam_size": 5, **args.search})


def _chain(specs: Sequence[str], trust: bool, desk: Desk) -> LegoNN:
    from espnet2_legonn.inference.compose import join, pick

    chain, notes = join([pick(spec, trust) for spec in specs])
    for note in notes:
        desk.note(note)
    return chain


def several(spec: str) -> list[str]:
    """``a#x,y,b#z`` to ``a#x,y`` and ``b#z``: what has a # begins another pack."""
    specs: list[str] = []
    for word in spec.split(","):
        if specs and "#" not in word:
            specs[-1] += f",{word}"
        else:
            specs.append(word)
    return specs


def _voting(args: argparse.Namespace, encoders: list[str], desk: Desk) -> Any:
    """Encoders that vote: the first feeds the decoder, which the rest of ``--model`` makes."""
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.inference.vote import Vote, VotingText2Text
    from espnet2_legonn.search.options import BeamOptions

    if args.backend == "onnx":
        raise ConfigError("backend onnx: an export has one encoder; take --backend torch")
    specs = [[encoders[0], *args.model[1:]], *([spec] for spec in encoders[1:])]
    chains = [_chain(parts, args.trust, desk).to(args.device).eval() for parts in specs]
    return VotingText2Text(Vote(chains[0], chains[1:], args.votes), BeamOptions(**args.search))


def _search(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the search: those given over those of ``--config``; ``args.nbest`` gets its number.

    Raises:
        ConfigError: options of the file that are none of the search.
    """
    import dataclasses

    from espnet2_legonn.data.text import plain_lines
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.files.configs import read_config
    from espnet2_legonn.files.schema import nearest
    from espnet2_legonn.search.options import BeamOptions

    known = [field.name for field in dataclasses.fields(BeamOptions)]
    chosen = read_config(args.config) if args.config else {}
    if not isinstance(chosen, dict):
        raise ConfigError(f"{args.config}: must be a mapping of options")
    if wrong := [name for name in chosen if name not in known]:
        raise ConfigError(f"{args.config}: {n!r} is no option of the search{nearest(n, known)}" for n in wrong)
    given = {name: value for name in known if (value := getattr(args, name, None)) is not None}
    options = {**chosen, **given}
    words = options.pop("hotwords", ())
    words = [words] if isinstance(words, str) else words
    words = [line for w in words for line in (plain_lines(w) if Path(w).is_file() else [w])]
    options["hotwords"] = tuple(filter(str.strip, words))
    args.nbest = options.get("nbest", 1)
    return options


def _exported(cls: type[Any], args: argparse.Namespace) -> Exported:
    from espnet2_legonn.errors import ConfigError
    from espnet2_legonn.export.backend import Exported
    from espnet2_legonn.search.options import BeamOptions

    faults = [] if args.device == "cpu" else [f"device: {args.device}: backend onnx runs on CPUs; leave it out"]
    if len(args.model) > 1:
        faults.append("backend onnx runs one export; plug parts when you export: legonn export A B -o DIR")
    if faults:
        raise ConfigError(faults)
    return Exported(args.model[0], BeamOptions(**args.search), cls.kind, cls.elsewhere)


def _find(patterns: Sequence[str], desk: Desk) -> list[str]:
    """Files of all patterns, each once; a pattern without files is an error that stops nothing."""
    files: dict[str, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = [str(p) for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
            remedy = f"it has no file ending in {' '.join(SUFFIXES)}"
        elif path.exists() or not glob.has_magic(pattern):
            inside, remedy = [pattern], ""  # a missing one is reported when it is read
        else:
            inside, remedy = sorted(glob.glob(pattern, recursive=True)), "no file is called like that"
        if not inside:
            desk.error([f"{pattern}: {remedy}"])
        files.update(dict.fromkeys(inside))
    return list(files)


def _texts(args: argparse.Namespace) -> Iterable[tuple[str, str]]:
    """Places, for messages, and texts; a list where the number is known."""
    from espnet2_legonn.data.text import plain_lines

    if args.texts:
        return [(f"text {i}", text) for i, text in enumerate(args.texts, 1)]
    if args.file:
        return [(f"{args.file}:{i}", line) for i, line in enumerate(plain_lines(args.file), 1)]
    return _standard_input()


def _standard_input() -> Iterator[tuple[str, str]]:
    from espnet2_legonn.files.lines import scan

    # The bytes, since what the locale makes of them (surrogates, line ends) is not what a line is here.
    stream = getattr(sys.stdin, "buffer", None) or map(str.encode, sys.stdin)
    for number, text, faults in scan(stream, "standard input", windows=True):
        if text is None or faults:
            raise DataError(faults)
        yield f"standard input:{number}", text


def _decode(
    model: Model,
    items: Iterable[Any],
    read: Callable[[Any], Any],
    cut: Callable[[Any], list[tuple[Any, Any]]],
    size: int,
    desk: Desk,
) -> Iterator[tuple[Any, Any, list[tuple[Any, Answer]] | None]]:
    """Each item in order, what was read of it, and the answers to its parts; None for what is empty or failed.

    Args:
        read: an item to what is known of it, None where that failed; cut: that to parts and the chain's input of each.
        size: parts decoded together.
    """
    from tqdm import tqdm

    total = len(items) if isinstance(items, Sequence) else None
    rest = iter(items)
    # disable=None: no bar where nobody looks
    with tqdm(total=total, unit="input", file=sys.stderr, disable=None, leave=False) as bar:
        while True:
            with desk.listening():
                window = _window(rest, read, cut, size, desk)
                # Nothing is decoded for what is empty.
                given = [(_place(item, part), x) for item, _, parts in window for part, x in parts or () if len(x)]
                answers = [a for i in range(0, len(given), size) for a in _answer(model, given[i : i + size], desk)]
            if not window:
                return
            found = iter(answers)
            for item, known, parts in window:
                each = [(part, next(found) if len(x) else None) for part, x in parts or ()]
                good = [(part, answer) for part, answer in each if answer is not None]
                yield item, known, None if parts is None or (each and not good) else good
            bar.update(len(window))


def _window(
    rest: Iterator[Any],
    read: Callable[[Any], Any],
    cut: Callable[[Any], list[tuple[Any, Any]]],
    size: int,
    desk: Desk,
) -> list[tuple[Any, Any, list[tuple[Any, Any]] | None]]:
    """The next items that together have ``size`` parts, so that no more of long recordings is held than needed."""
    window: list[tuple[Any, Any, list[tuple[Any, Any]] | None]] = []
    number = 0
    while number < size and (item := next(rest, None)) is not None:
        try:
            known = read(item)
            parts = cut(known)
        except _LOST as error:
            desk.error(_faults(_place(item), error))
            window.append((item, None, None))
            number += 1
            continue
        window.append((item, known, parts))
        number += max(1, len(parts))
    return window


def _answer(model: Model, inputs: list[tuple[str, Any]], desk: Desk) -> list[Answer | None]:
    """Answers of one batch; if it fails, of each input alone, so that only the bad ones are lost."""
    if not inputs:
        return []
    try:
        answers: list[Answer | None] = list(model.answers([x for _, x in inputs]))
    except _LOST as error:
        if len(inputs) > 1:
            return [answer for single in inputs for answer in _answer(model, [single], desk)]
        faults = _faults(inputs[0][0], error)
        desk.error(f"{inputs[0][0]}: {fault}" if isinstance(error, LegoNNError) else fault for fault in faults)
        return [None]
    for (place, _), answer in zip(inputs, answers):
        for message in answer.notes if answer else ():
            desk.note(f"{place}: {message}")
    return answers


def _place(item: Any, part: Any = None) -> str:
    """For messages: a file, or a line of texts; and of a recording in parts, where the part begins."""
    place = item if isinstance(item, str) else str(item[0])
    return f"{place} at {part[0]:.1f} s" if part and part[0] else place


def _faults(place: str, error: BaseException) -> list[str]:
    """What went wrong with one input; errors of libraries say neither where nor what to do."""
    if isinstance(error, LegoNNError):
        return error.faults
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return [f"{place}: {reason}; if memory was short, split the input or lower --beam_size"]
