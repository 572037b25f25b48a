"""One utterance through a chain, as a page of HTML that needs no other file."""

from __future__ import annotations

import base64
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch

from espnet2_legonn.inference.legonn import LegoNN
from espnet2_legonn.inference.plot import Picture, heat_map, picture
from espnet2_legonn.model.attention import MultiHeadAttention
from espnet2_legonn.model.inputs import normalized
from espnet2_legonn.model.interface import Marginals
from espnet2_legonn.model.timeline import source_attentions
from espnet2_legonn.search.answers import Answer
from espnet2_legonn.search.options import BeamOptions

PIXELS = 96  # for an inch of a picture: its labels are as large as the text around it
SMALL = 640  # pixels: a picture up to this width shrinks on a phone and stays readable, a wider one is scrolled
CSS = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8885; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { background: #fff; border-radius: 6px; } img.small { max-width: 100%; height: auto; }
.quiet { opacity: .7; } .wrong { border-left: 4px solid #b7791f; padding-left: .8rem; }
p, td { overflow-wrap: anywhere; }
"""


@dataclass
class Inspection:
    """All that the page shows.

    Args:
        given: the input in words; reference: the text it should have, if known.
        pictures: of each interface, by module; attention: of each length controller, by module.
        notes: what a person should know, for instance joints that carry more than in training.
    """

    given: str
    answer: Answer
    pictures: dict[str, Picture]
    attention: dict[str, Picture]
    notes: list[str]
    reference: str | None = None


@contextlib.contextmanager
def watched(module: MultiHeadAttention) -> Iterator[list[torch.Tensor]]:
    """Attention weights (B, Q, S) of each call, mean over heads; the fused kernel does not keep them."""
    seen: list[torch.Tensor] = []

    def watch(attention: Any, args: tuple[Any, ...]) -> None:
        seen.append(attention.weights(*args[:3]).mean(1))

    handle = module.register_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        handle.remove()


def controllers(chain: LegoNN) -> dict[str, MultiHeadAttention]:
    """The last cross-attention of each length controller, by module."""
    found = {name: source_attentions(module) for name, module in zip(chain.names, chain)}
    return {name: attentions[-1] for name, attentions in found.items() if attentions}


def inspect(
    chain: LegoNN, given: Any, options: BeamOptions | None = None, reference: str | None = None, words: str = ""
) -> Inspection:
    """Send one input through a chain and look at everything on the way.

    Args:
        given: a text, a file, samples: what the first part reads; words: what it is called on the page.

    Raises:
        DataError: what is wrong with the input.
    """
    with contextlib.ExitStack() as stack:
        seen = {name: stack.enter_context(watched(module)) for name, module in controllers(chain).items()}
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        answer = chain.answer([given], options or BeamOptions(nbest=5), judge_all=True)[0]
    told = (str(w.message).removeprefix("input 0: ") for w in caught if issubclass(w.category, UserWarning))
    notes = [*answer.notes, *told]
    pictures = {n: picture(path.marginals, f"{n}: {path.text}") for n, path in answer.interfaces.items()}
    attention = {}
    for name, weights in seen.items():
        if weights:
            attention[name] = _attention(chain, name, weights[0][0].cpu().numpy(), answer, given)
    return Inspection(words or str(given), answer, pictures, attention, notes, reference)


def _attention(chain: LegoNN, name: str, weights: np.ndarray, answer: Answer, given: Any) -> Picture:
    """Slots as rows with their best tokens, what the module reads as columns."""
    path = answer.interfaces.get(name)
    rows = [""] * len(weights) if path is None else _tokens(path.marginals)
    columns = _steps(chain, chain.names.index(name), answer, given)
    if len(columns) != weights.shape[1]:  # sounds, hidden states, a body that reads fewer steps
        columns = [""] * weights.shape[1]
    names = ("slots", "steps of its input")
    return heat_map(weights[: len(rows)], rows, columns, names, f"length controller of {name}: slots over input steps")


def _steps(chain: LegoNN, place: int, answer: Answer, given: Any) -> list[str]:
    """What stands at each step that a module reads: tokens of the text and its end, or of the slots before it."""
    vocab = chain.first.ports[0].vocab
    if place == 0:
        if vocab is None or not isinstance(given, str):
            return []
        return [vocab.tokens[i] for i in (*vocab.encode(normalized(given, vocab)), vocab.sos_eos_id)]
    path = answer.interfaces.get(chain.names[place - 1])
    if path is None:
        return []
    if list(chain)[place].input.collapse_slots:
        return [path.marginals.interface.vocab.tokens[i] for i in path.ids]
    return _tokens(path.marginals)


def _tokens(marginals: Marginals) -> list[str]:
    vocab = marginals.interface.vocab
    best = marginals.log_probs[0].argmax(-1).tolist()
    return ["·" if i == vocab.blank_id else vocab.tokens[i] for i in best]


def render(found: Inspection, title: str) -> str:
    """The page."""
    answer = found.answer
    lines = [f"<h1>{escape(title)}</h1>", f"<p>{escape(found.given)}</p>"]
    if found.reference is not None:
        lines.append(f'<p><span class="quiet">reference:</span> {escape(found.reference)}</p>')
    lines += [f'<p class="wrong">{escape(note)}</p>' for note in found.notes]
    said = [[escape(name), escape(path.text) or "–", f"{path.score:.2f}"] for name, path in answer.interfaces.items()]
    lines += ["<h2>What each module says by itself</h2>", _table(["module", "text", "log-probability"], said)]
    options = answer.options
    lines += [
        "<h2>Answers</h2>",
        f'<p class="quiet">beam {options.beam_size}, weight of CTC {options.ctc_weight or 0:g}, '
        f"length penalty {options.length_penalty if options.length_penalty is not None else 1:g}</p>",
        _nbest(answer),
    ]
    for name, path in answer.interfaces.items():
        lines += [f"<h2>Interface of {escape(name)}</h2>", _image(found.pictures[name])]
        interface = path.marginals.interface
        slots = int(path.marginals.lengths[0])
        known = f", {interface.slots_per_token:.2f} slots a token in training" if interface.slots_per_token else ""
        lines.append(f'<p class="quiet">{slots} slots, {len(path.ids)} tokens said{known}</p>')
    for name, drawn in found.attention.items():
        lines += [f"<h2>Length controller of {escape(name)}</h2>", _image(drawn)]
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{escape(title)}</title><style>{CSS}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(lines) + "\n</body></html>\n"


def _nbest(answer: Answer) -> str:
    scorers = list(answer.best.parts)
    rows = [
        [str(i), escape(text) or "–", f"{h.score:.3f}", *(f"{h.parts[s]:.2f}" for s in scorers)]
        for i, (h, text) in enumerate(zip(answer.nbest, answer.texts), 1)
    ]
    return _table(["", "text", "score", *map(escape, scorers)], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``header`` and cells are HTML; all but the first two columns are numbers."""
    kinds = ["" if i < 2 else ' class="n"' for i in range(len(header))]
    head = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(kinds, header))
    body = "".join("<tr>" + "".join(f"<td{k}>{c}</td>" for k, c in zip(kinds, row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _image(found: Picture) -> str:
    data = base64.b64encode(found.png).decode()
    width, height = (round(PIXELS * side) for side in found.inches)
    kind = ' class="small"' if width <= SMALL else ""
    size = f'width="{width}" height="{height}"{kind}'
    image = f'<img src="data:image/png;base64,{data}" {size} alt="{escape(found.words)}">'
    return f'<div class="scroll" tabindex="0">{image}</div>'
