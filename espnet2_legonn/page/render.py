"""Verdicts and answers as small pieces of HTML. Everything that comes from packs or people is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from espnet2_legonn.packs.check import Report, Verdict
from espnet2_legonn.page.model import ModuleText, PageAnswer

MARKS = {Verdict.FITS: ("+", "fits"), Verdict.DIFFERS: ("~", "differs"), Verdict.MISFIT: ("×", "misfit")}
# Screen pixels for an inch of a picture, so that its labels are as large as the text around it.
PIXELS = 96

# Colours are tints over whatever the theme has behind them, so that light and dark pages both work.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important;
  width: 100% !important; min-width: 0 !important; }
.gradio-container .html-container:has(> .prose > .lego) { padding: 0; }
.gradio-container .wrap.hide { display: none; }
.lego h1 { font-size: 1.7rem; margin: 0.4rem 0 0.2rem; }
.lego p { margin: 0.2rem 0; }
.lego .quiet, .lego.quiet { color: var(--body-text-color-subdued); }
.lego .panel { border-left: 5px solid var(--tint); background: color-mix(in srgb, var(--tint) 9%, transparent);
  border-radius: 8px; padding: 0.8rem 1rem; overflow-wrap: anywhere; }
.lego .fits { --tint: #1d8a4e; } .lego .differs { --tint: #b7791f; } .lego .misfit { --tint: #c53030; }
.lego .note { --tint: #4a6fa5; }
.lego .panel .words { font-weight: 600; font-size: 1.05rem; }
.lego .panel ul { list-style: none; margin: 0.4rem 0 0; padding: 0; }
.lego .panel li { display: flex; gap: 0.6rem; margin: 0.25rem 0; line-height: 1.4; }
.lego .mark { flex: 0 0 1.3rem; height: 1.3rem; line-height: 1.3rem; border-radius: 50%; text-align: center;
  font-weight: 700; color: #fff; background: var(--tint); }
.lego .final { font-size: 1.6rem; line-height: 1.35; font-weight: 600; min-height: 2.2rem; overflow-wrap: anywhere; }
.lego .scroll { overflow-x: auto; max-width: 100%; }
.lego table { width: 100%; border-collapse: collapse; }
.lego th { text-align: left; font-weight: 600; color: var(--body-text-color-subdued); font-size: 0.85rem; }
.lego th, .lego td { padding: 0.45rem 0.8rem 0.45rem 0; border-bottom: 1px solid var(--border-color-primary);
  vertical-align: top; }
.gradio-container .lego :is(table, tr, th, td) { border-left: 0 !important;
  border-right: 0 !important; border-top: 0 !important; }
.gradio-container :is([id^="encoder"], #middle, #decoder) input { text-overflow: ellipsis;
  padding-right: 2rem !important; }
.lego td.text { width: 75%; overflow-wrap: anywhere; }
.lego td.time { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; }
.lego th.time { text-align: right; padding-right: 0; }
.lego figure { margin: 0.6rem 0 1rem; }
.lego figcaption { font-weight: 600; margin-bottom: 0.3rem; }
.lego .scroll img { max-width: none; background: #fff; border-radius: 6px; }
"""


def head(title: str, sentence: str) -> str:
    """The top of the page."""
    return f'<div class="lego"><h1>{escape(title)}</h1><p class="quiet">{escape(sentence)}</p></div>'


def verdict(report: Report) -> str:
    """The verdict of ``check`` in words, with every reason, the weightiest first."""
    lines = [f'<p class="words">{escape(report.verdict.words.capitalize())}</p>']
    lines.append(f'<p class="quiet">{escape(" → ".join([report.reads, *report.parts, report.writes]))}</p>')
    for joint in report.joints:
        if len(report.joints) > 1:
            words = f"{joint.left} → {joint.right}: {joint.verdict.words}"
            lines.append(f'<p class="words {MARKS[joint.verdict][1]}">{escape(words)}</p>')
        lines.append("<ul>")
        for reason in sorted(joint.reasons, key=lambda r: -r.verdict):
            mark, name = MARKS[reason.verdict]
            lines.append(f'<li class="{name}"><span class="mark">{mark}</span>{escape(reason.message)}</li>')
        lines.append("</ul>")
    return _panel(MARKS[report.verdict][1], lines)


def faults(messages: Iterable[str], title: str = "") -> str:
    """What went wrong, a line for each."""
    lines = [f'<p class="words">{escape(title)}</p>'] if title else []
    return _panel("misfit", lines + [f"<p>{escape(message)}</p>" for message in messages])


def notes(messages: Iterable[str]) -> str:
    """What a person should know about the answer; nothing if there is nothing to say."""
    lines = [f"<p>{escape(message)}</p>" for message in messages]
    return _panel("note", lines) if lines else ""


def _panel(name: str, lines: Iterable[str]) -> str:
    return f'<div class="lego"><div class="panel {name}" role="status" aria-live="polite">{"".join(lines)}</div></div>'


def final(text: str) -> str:
    """The last module's text, large."""
    shown = escape(text) if text else '<span class="quiet">(no word was found)</span>'
    return f'<div class="lego"><div class="final">{shown}</div></div>'


def words(answer: PageAnswer) -> str:
    """When each word was said, and how sure the interface is of it; nothing where no times are known."""
    if not answer.words:
        return ""
    shown = " ".join(
        f'<span title="{w.start:.2f} to {w.end:.2f} s, {w.confidence:.0%}">{escape(w.text)} '
        f'<span class="quiet">{w.start:.1f} s, {w.confidence:.0%}</span></span>'
        for w in answer.words
    )
    about = "" if answer.exact else '<p class="quiet">Times are estimates: a length controller lies between.</p>'
    return f'<div class="lego"><p>{shown}</p>{about}</div>'


def _table(heads: tuple[str, str, str], rows: Iterable[tuple[str, str, str]], name: str = "") -> str:
    """Rows of a name, a text and a number, in a box that scrolls sideways; ``name`` is the id of the table."""
    shown = "".join(
        f'<tr><td>{escape(who)}</td><td class="text">{escape(text) or "–"}</td><td class="time">{number}</td></tr>'
        for who, text, number in rows
    )
    first, second, third = heads
    head = f'<tr><th>{first}</th><th>{second}</th><th class="time">{third}</th></tr>'
    mark = f' id="{name}"' if name else ""
    return f'<div class="scroll"><table{mark}>{head}{shown}</table></div>'


def modules(answer: PageAnswer) -> str:
    """Each module's own text and time, what the other steps took, and what each scorer says of the final text."""
    rows = ((said.module, said.text, _duration(said.seconds)) for said in answer.said)
    table = _table(("module", "says by itself", "time"), rows)
    steps = " · ".join(f"{escape(name)} {_duration(seconds)}" for name, seconds in answer.steps.items())
    notes = f'<p class="quiet">{steps}</p>'
    if answer.parts:
        parts = " · ".join(f"{escape(name)} {value:.2f}" for name, value in answer.parts.items())
        notes += f'<p class="quiet">log-probability of the text: {parts} (weight of CTC {answer.ctc_weight:g})</p>'
    return f'<div class="lego">{table}{notes}</div>'


def sources(answer: PageAnswer) -> str:
    """What each encoder leads to alone, beside the text of the vote; nothing where one decides."""
    if not answer.sources:
        return ""
    rows = ((source.name, source.text, f"{source.weight:g}") for source in answer.sources)
    table = _table(("encoder", "alone with the decoder", "weight of CTC"), rows, "sources")
    return f'<div class="lego">{table}</div>'


def heat_maps(said: Sequence[ModuleText]) -> str:
    """A picture of each interface; long ones scroll sideways."""
    figures = []
    for module in said:
        if module.picture is None:
            continue
        what = f"What {module.module} hands to {module.reader}" if module.reader else f"What {module.module} says"
        data = base64.b64encode(module.picture.png).decode()
        width, height = (round(PIXELS * side) for side in module.picture.inches)
        figures.append(
            f"<figure><figcaption>{escape(what)}</figcaption>"
            f'<div class="scroll" tabindex="0">'
            f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
            f'alt="{escape(module.picture.words)}"></div></figure>'
        )
    return f'<div class="lego">{"".join(figures)}</div>'


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
