"""The page itself: gradio's layout and events around ``shelf`` and ``model``. Nothing leaves this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from espnet2_legonn.errors import DataError, LegoNNError
from espnet2_legonn.model.parts.tokens import MAX_CHARACTERS
from espnet2_legonn.packs.check import Verdict
from espnet2_legonn.page import model, render
from espnet2_legonn.page.hosts import HostCheck
from espnet2_legonn.page.shelf import DECODER, ENCODER, MIDDLE, Choice, Shelf, public
from espnet2_legonn.page.worker import SECONDS, Worker
from espnet2_legonn.search.options import DEFAULT_CTC_WEIGHT

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
try:
    import gradio as gr
    from starlette.middleware import Middleware
except ModuleNotFoundError as error:
    raise LegoNNError(f"the page needs gradio ({error.name} is missing): pip install 'espnet2_legonn[page]'") from None

TITLE = "LegoNN"
SENTENCE = "Choose parts of models that were trained apart. See whether they fit, and what each one says."
NONE = ("none", "")
# Encoders that may vote beside the first.
VOTERS = 2
WEIGHT = "how much the encoder's own opinion counts: 0 the decoder alone, 1 the encoder alone"
VOTE = "votes with the first: on the same text in another language, or spoken"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]


def build(shelf: Shelf, seconds: float = SECONDS) -> gr.Blocks:
    """The page for these packs; a run may take this long."""
    encoder, decoder = shelf.first_fit()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(render.head(TITLE, SENTENCE))
        if shelf.faults:
            gr.HTML(render.faults(public(shelf.faults), "Not on this page:"))
        with gr.Row():
            parts = [
                _dropdown("Encoder part", "hears or reads", shelf.of(ENCODER), encoder, "encoder"),
                _dropdown("Middle part", "may be left out", shelf.of(MIDDLE), "", "middle"),
                _dropdown("Decoder part", "writes", shelf.of(DECODER), decoder, "decoder"),
            ]
        judged = _judged(shelf, encoder, "", decoder)
        verdict = gr.HTML(judged.verdict, elem_id="verdict")
        with gr.Row():
            with gr.Column():
                with gr.Column():
                    first = Source(judged.first, "", f"{DEFAULT_CTC_WEIGHT:g}, or what was tuned", WEIGHT)
                voters = [_voter(judged.voters, place) for place in range(VOTERS)]
                button = gr.Button("Run", variant="primary", interactive=judged.runs, elem_id="run")
            with gr.Column():
                answer = [gr.HTML(elem_id="final"), gr.HTML(elem_id="notes")]
        answer += [gr.HTML(elem_id="modules"), gr.HTML(elem_id="maps")]
        _connect(shelf, Worker(seconds), parts, verdict, first, voters, button, answer)
    return page


def _dropdown(label: str, info: str, choices: list[Choice], value: str, name: str) -> gr.Dropdown:
    optional = name not in (ENCODER, DECODER)
    return gr.Dropdown(
        _pairs(choices, optional), value=value, label=label, info=info, elem_id=name,
        visible=bool(choices) or not optional, min_width=260,
    )  # fmt: skip


def _pairs(choices: list[Choice], optional: bool) -> list[tuple[str, str]]:
    return [NONE] * optional + [(c.label, c.spec) for c in choices]


def asks(first: Choice | None) -> str:
    """``tokens``, ``speech``, or ``file`` for what other parts read."""
    if first is None:
        return "tokens"
    return first.reads if first.reads in ("tokens", "speech") else "file"


class Source:
    """The boxes of one encoder: its input, examples of it, and its weight.

    Args:
        choice: the encoder; without one nothing is shown.
        suffix: of the names of its boxes.
        default, info: of the weight.
    """

    def __init__(self, choice: Choice | None, suffix: str, default: str, info: str) -> None:
        shown = self._shown(choice)
        self.text = gr.Textbox(
            label="Your text", placeholder="Type a sentence", max_length=MAX_CHARACTERS,
            elem_id=f"text{suffix}", **shown[0],
        )  # fmt: skip
        self.sound = gr.Audio(
            label="Your recording", sources=["microphone", "upload"], type="filepath",
            elem_id=f"sound{suffix}", **shown[1],
        )  # fmt: skip
        self.file = gr.File(label="Your file", type="filepath", elem_id=f"file{suffix}", **shown[2])
        self.examples = gr.Dataset(
            label="Examples", components=["textbox"], type="index", elem_id=f"examples{suffix}", **shown[3]
        )
        # Not gr.Number: an empty one becomes 0 in the browser, and empty means the default here.
        self.weight = gr.Textbox(
            label="Weight of CTC", placeholder=default, info=info, elem_id=f"weight{suffix}", **shown[4]
        )
        self.given = [self.text, self.sound, self.file, self.weight]
        self.boxes = [self.text, self.sound, self.file, self.examples, self.weight]

    @staticmethod
    def _shown(choice: Choice | None) -> list[dict[str, Any]]:
        # Which box takes the input: those of text and sound, and one of files for whatever else a part reads.
        boxes = [{"visible": choice is not None and asks(choice) == kind} for kind in ("tokens", "speech", "file")]
        samples = [[e.text] for e in choice.examples] if choice else []
        return [*boxes, {"samples": samples, "visible": bool(samples)}, {"visible": choice is not None}]

    def show(self, choice: Choice | None) -> list[Any]:
        """What changes of ``boxes`` for another encoder."""
        return [type(box)(**values) for box, values in zip(self.boxes, self._shown(choice))]


def _voter(choices: list[Choice], place: int) -> tuple[gr.Dropdown, Source]:
    """Where an encoder beside the first is chosen, and its boxes; after the first of them only behind another one."""
    label, suffix = f"{('Second', 'Third')[place]} encoder", f"_{place + 2}"
    with gr.Column():  # else its form is one with that of the encoder before
        part = _dropdown(label, VOTE, [] if place else choices, "", f"encoder{suffix}")
        return part, Source(None, suffix, "that of the first encoder", "how much this encoder's opinion counts")


class _Judged:
    """What a choice of parts changes on the page."""

    def __init__(self, verdict: str, runs: bool, first: Choice | None, voters: list[Choice]) -> None:
        self.verdict, self.runs, self.first, self.voters = verdict, runs, first, voters


def _judged(shelf: Shelf, *specs: str) -> _Judged:
    first = None
    try:
        first = shelf.find(specs)[0]
        report = shelf.judge(specs)
        voters = shelf.voters(specs[0], specs[-1])
        return _Judged(render.verdict(report), report.verdict < Verdict.MISFIT, first, voters)
    except LegoNNError as error:
        return _Judged(render.faults(public(error.faults), "These parts cannot be read"), False, first, [])


def weight_of(typed: str | None, numbers: str = "number from 0 to 1") -> float | None:
    """What stands in the box for the weight of CTC; None if it is empty.

    Raises:
        DataError: it is no number.
    """
    if not (typed or "").strip():
        return None
    try:
        return float(str(typed).replace(",", "."))
    except ValueError:
        raise DataError(f"weight of CTC: {typed!r} is no {numbers}") from None


def _given(choice: Choice, typed: str | None, recorded: str | None, sent: str | None) -> str | None:
    return {"tokens": typed, "speech": recorded, "file": sent}[asks(choice)]


def _connect(
    shelf: Shelf, worker: Worker, parts: list[Any], verdict: Any, first: Source,
    voters: list[tuple[gr.Dropdown, Source]], button: Any, answer: list[Any],
) -> None:  # fmt: skip
    """Events: a choice is judged at once and clears the old answer; the button runs it."""
    others = [part for part, _ in voters]

    def judge(encoder: str, middle: str, decoder: str, *chosen: str) -> list[Any]:
        judged = _judged(shelf, encoder, middle, decoder)
        told: list[Any] = [judged.verdict, *first.show(judged.first)]
        left, before = judged.voters, True
        for spec, (_, source) in zip(chosen, voters):
            fitting = left if before else []
            choice = next((c for c in fitting if c.spec == spec), None)
            value = choice.spec if choice else ""
            told.append(gr.Dropdown(_pairs(fitting, True), value=value, visible=bool(fitting)))
            told += source.show(choice)
            left, before = [c for c in left if c != choice], choice is not None
        return [*told, gr.Button(interactive=judged.runs), *[""] * len(answer)]

    def fill(index: int, encoder: str) -> list[Any]:
        # What a browser sends may be anything.
        choice = shelf.find([encoder])[0]
        if not 0 <= index < len(choice.examples):
            return [gr.skip(), gr.skip()]
        given = model.example_input(choice, choice.examples[index])
        return [given, gr.skip()] if isinstance(given, str) else [gr.skip(), given]

    def run(
        encoder: str, middle: str, decoder: str, typed: str, recorded: str | None, sent: str | None,
        ctc_weight: str | None, *more: Any,
    ) -> list[str]:  # fmt: skip
        try:
            choices = shelf.find([encoder, middle, decoder])
            given, beside = _given(choices[0], typed, recorded, sent), []
            for spec, *boxes, weight in zip(*[iter(more)] * 5):
                for choice in shelf.find([spec]):
                    beside.append(model.Voter(choice, _given(choice, *boxes), weight_of(weight, "number")))
            found = worker.run(choices, given, weight_of(ctc_weight), beside)
        except LegoNNError as error:
            return ["", render.faults(public(error.faults)), "", ""]
        said = [render.final(found.text) + render.words(found) + render.sources(found), render.notes(found.notes)]
        return [*said, render.modules(found), render.heat_maps(found.said)]

    changed = [verdict, *first.boxes, *(box for part, source in voters for box in (part, *source.boxes)), button]
    # A choice that is made while another is judged is not lost.
    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    gr.on([p.input for p in [*parts, *others]], judge, [*parts, *others], [*changed, *answer], **quiet)
    for part, source in [(parts[0], first), *voters]:
        source.examples.click(fill, [source.examples, part], [source.text, source.sound], show_progress="hidden")
    # One at a time: each run uses all processors already.
    options = {"show_progress_on": answer[0], "concurrency_limit": 1}
    given = [*parts, *first.given, *(box for part, source in voters for box in (part, *source.given))]
    submits = [source.text.submit for source in (first, *(source for _, source in voters))]
    gr.on([button.click, *submits], run, given, answer, **options)


def serve(
    shelf: Shelf,
    host: str = "127.0.0.1",
    port: int = 7860,
    wait: bool = True,
    names: Sequence[str] = (),
    seconds: float = SECONDS,
) -> str:
    """Show the page until interrupted (or, without ``wait``, until the process ends); its address.

    Args:
        names: what this machine is called by browsers, besides its addresses and its own name.
        seconds: of one run.

    Raises:
        LegoNNError: the port is taken, or the host is not this machine's.
    """
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", radius_size="md", font=FONTS)
    theme = theme.set(body_text_color_subdued="*neutral_500")  # on white its own grey has less than the contrast of 4.5
    page = build(shelf, seconds)
    checked = {"middleware": [Middleware(HostCheck, names=(host, *names))]}
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, inbrowser=False,
            ssr_mode=False, footer_links=[], run_history=False, enable_monitoring=False, max_file_size="50mb",
            theme=theme, css=render.CSS, app_kwargs=checked,
        )  # fmt: skip
    except OSError as error:
        raise LegoNNError(f"{host}:{port} cannot be used ({error}); choose another with --port or --host") from None
    if wait:
        print(f"the page is at {url} (Ctrl-C ends it)", flush=True)
        page.block_thread()
    return url
