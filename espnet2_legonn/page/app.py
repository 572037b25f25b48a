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
NO_MIDDLE = ("none", "")
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
        first = _judged(shelf, encoder, "", decoder)
        verdict = gr.HTML(first.verdict, elem_id="verdict")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(
                    label="Your text", placeholder="Type a sentence", visible=first.asks == "tokens",
                    max_length=MAX_CHARACTERS, elem_id="text",
                )  # fmt: skip
                sound = gr.Audio(
                    label="Your recording", sources=["microphone", "upload"], type="filepath",
                    visible=first.asks == "speech", elem_id="sound",
                )  # fmt: skip
                file = gr.File(label="Your file", type="filepath", visible=first.asks == "file", elem_id="file")
                examples = gr.Dataset(
                    label="Examples", components=["textbox"], samples=first.examples, type="index",
                    visible=bool(first.examples), elem_id="examples",
                )  # fmt: skip
                # Not gr.Number: an empty one becomes 0 in the browser, and empty means the default here.
                weight = gr.Textbox(
                    label="Weight of CTC", placeholder=f"{DEFAULT_CTC_WEIGHT:g}, or what was tuned", elem_id="weight",
                    info="how much the encoder's own opinion counts: 0 the decoder alone, 1 the encoder alone",
                )  # fmt: skip
                button = gr.Button("Run", variant="primary", interactive=first.runs, elem_id="run")
            with gr.Column():
                answer = [gr.HTML(elem_id="final"), gr.HTML(elem_id="notes")]
        answer += [gr.HTML(elem_id="modules"), gr.HTML(elem_id="maps")]
        _connect(shelf, Worker(seconds), parts, [verdict, text, sound, file, examples, button], weight, answer)
    return page


def _dropdown(label: str, info: str, choices: list[Choice], value: str, name: str) -> gr.Dropdown:
    pairs = [(c.label, c.spec) for c in choices]
    optional = name == MIDDLE
    return gr.Dropdown(
        [NO_MIDDLE, *pairs] if optional else pairs, value=value, label=label, info=info, elem_id=name,
        visible=bool(pairs) or not optional, min_width=260,
    )  # fmt: skip


class _Judged:
    """What a choice of parts changes on the page."""

    def __init__(self, verdict: str, runs: bool, first: Choice | None) -> None:
        self.verdict, self.runs = verdict, runs
        # Which box takes the input: those of text and sound, and one of files for whatever else a part reads.
        self.asks = asks(first)
        self.examples = [[e.text] for e in first.examples] if first else []


def asks(first: Choice | None) -> str:
    """``tokens``, ``speech``, or ``file`` for what other parts read."""
    if first is None:
        return "tokens"
    return first.reads if first.reads in ("tokens", "speech") else "file"


def _judged(shelf: Shelf, *specs: str) -> _Judged:
    first = None
    try:
        first = shelf.find(specs)[0]
        report = shelf.judge(specs)
        return _Judged(render.verdict(report), report.verdict < Verdict.MISFIT, first)
    except LegoNNError as error:
        return _Judged(render.faults(public(error.faults), "These parts cannot be read"), False, first)


def weight_of(typed: str | None) -> float | None:
    """What stands in the box for the weight of CTC; None if it is empty.

    Raises:
        DataError: it is no number.
    """
    if not (typed or "").strip():
        return None
    try:
        return float(str(typed).replace(",", "."))
    except ValueError:
        raise DataError(f"weight of CTC: {typed!r} is no number from 0 to 1") from None


def _connect(
    shelf: Shelf, worker: Worker, parts: list[Any], shown: list[Any], weight: Any, answer: list[Any]
) -> None:
    """Events: a choice is judged at once and clears the old answer; the button runs it."""
    _, text, sound, file, examples, button = shown

    def judge(*specs: str) -> list[Any]:
        judged = _judged(shelf, *specs)
        return [
            judged.verdict,
            gr.Textbox(visible=judged.asks == "tokens"),
            gr.Audio(visible=judged.asks == "speech"),
            gr.File(visible=judged.asks == "file"),
            gr.Dataset(samples=judged.examples, visible=bool(judged.examples)),
            gr.Button(interactive=judged.runs),
            *[""] * len(answer),
        ]

    def fill(index: int, encoder: str) -> list[Any]:
        # What a browser sends may be anything.
        choice = shelf.find([encoder])[0]
        if not 0 <= index < len(choice.examples):
            return [gr.skip(), gr.skip()]
        given = model.example_input(choice, choice.examples[index])
        return [given, gr.skip()] if isinstance(given, str) else [gr.skip(), given]

    def run(
        encoder: str, middle: str, decoder: str, typed: str, recorded: str | None, sent: str | None,
        ctc_weight: str | None,
    ) -> list[str]:  # fmt: skip
        try:
            choices = shelf.find([encoder, middle, decoder])
            given = {"tokens": typed, "speech": recorded, "file": sent}[asks(choices[0])]
            found = worker.run(choices, given, weight_of(ctc_weight))
        except LegoNNError as error:
            return ["", render.faults(public(error.faults)), "", ""]
        said = [render.final(found.text) + render.words(found), render.notes(found.notes)]
        return [*said, render.modules(found), render.heat_maps(found.said)]

    gr.on([part.input for part in parts], judge, parts, [*shown, *answer], show_progress="hidden")
    examples.click(fill, [examples, parts[0]], [text, sound], show_progress="hidden")
    # One at a time: each run uses all processors already.
    options = {"show_progress_on": answer[0], "concurrency_limit": 1}
    gr.on([button.click, text.submit], run, [*parts, text, sound, file, weight], answer, **options)


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
