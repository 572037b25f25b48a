"""README.md of a hub repository, from a card. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import yaml

from espnet2_legonn.errors import ConfigError
from espnet2_legonn.packs.card import CARD, Card, CardScore, PortCard

# Names of licences that the Hub knows; it lists others as "other" with a name of their own.
_LICENSES = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0|(a|l)?gpl-(2|3)\.0|bsd-[23]-clause(-clear)?|odc-by|pddl"
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$&])")
# Where a line begins: lists, headings, rules.
_LEADING = re.compile(r"^(?=[-+#=]|\d+[.)](?:\s|$))(\d*)(.)")


def require_complete(card: Card) -> None:
    """A pack that is shared says what it is, where it comes from and what one may do with it.

    Raises:
        ConfigError: names every field that is empty.
    """
    if card.missing:
        raise ConfigError(f"{card.name}: {CARD}: about.{f} is empty; fill it before sharing" for f in card.missing)


def model_card(card: Card, repository: str) -> str:
    """The README.md.

    Args:
        repository: ``org/name``, as users will write it.

    Raises:
        ConfigError: names every required field that is empty.
    """
    require_complete(card)
    about = card.about
    sections = [
        f"# {escape(card.name)}",
        "\n\n".join(escape(" ".join(part.split())) for part in re.split(r"\n\s*\n", about.description or "")),
        "## How to use",
        _usage(card, repository),
        "## Interface",
        "Modules fit where a written vocabulary has the SHA-256 of the one that is read.",
        _modules(card),
        _vocabularies(card),
        *(("## Metrics", _metrics(card.metrics)) if card.metrics else ()),
        "## Training data",
        "\n".join(f"- {escape(line)}" for line in about.training_data or ()),
        "## Environments",
        _environment(card),
        "## Provenance",
        _provenance(card),
        "## Licence",
        escape(about.license or ""),
    ]
    if about.citation:
        sections += ["## Citation", _fenced(about.citation.strip(), "bibtex")]
    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def port_words(port: PortCard) -> str:
    """One side of a module in a few words: kind, vocabulary, slots."""
    words = [port.kind, *filter(None, [port.part])]
    if port.vocab:
        words.append(port.vocab)
    if port.fs:
        words.append(f"{port.fs / 1000:g} kHz")
    if port.size:
        words.append(f"width {port.size}")
    if port.collapse:
        words.append("collapsed")
    elif port.slots_per_token:
        words.append(f"{port.slots_per_token:.2f} slots/token")
    return " ".join(words)


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _LEADING.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _header(card: Card) -> dict[str, object]:
    # A line of dashes would end the header.
    license_name, *languages = (
        " ".join(word.split()) for word in (card.about.license or "", *(card.about.language or ()))
    )
    license_id = license_name.lower().replace(" ", "-")
    known = bool(_LICENSES.fullmatch(license_id))
    kinds = {m.reads.kind for m in card.modules} | {m.writes.kind for m in card.modules}
    header: dict[str, object] = {"language": languages}
    header["license"] = license_id if known else "other"
    if not known:
        header["license_name"] = license_name
    header["library_name"] = "espnet2_legonn"
    header["tags"] = ["espnet", "legonn", *(f"legonn-{kind}" for kind in sorted(kinds))]
    if task := _task(card):
        header["pipeline_tag"] = task
    if card.metrics:
        header["metrics"] = sorted({m.metric.lower() for m in card.metrics})
    return header


def _task(card: Card) -> str | None:
    """The Hub's word for what the chain does from end to end; none for a part that another must complete."""
    first, last = card.modules[0].reads, card.modules[-1].writes
    if last.vocab is None or first.kind not in ("speech", "tokens"):
        return None
    if first.kind == "speech":
        return "automatic-speech-recognition"
    languages = [card.vocabs[p.vocab].language for p in (first, last) if p.vocab]
    return "translation" if languages[0] != languages[-1] else None


def _usage(card: Card, repository: str) -> str:
    first, last = card.modules[0], card.modules[-1]
    code = ["from espnet2_legonn import LegoNN", "", f'chain = LegoNN.from_pretrained("{repository}")']
    shell = ["pip install 'espnet2_legonn[zoo]'", f"legonn info {repository}"]
    if first.reads.kind in ("marginals", "states"):
        code += ['encoder = LegoNN.from_pretrained("ANOTHER_PACK")', f"plugged = encoder + chain  # {first.reads.kind}"]
        shell += [f"legonn check ANOTHER_PACK {repository}", f"legonn compose ANOTHER_PACK {repository} -o plugged"]
    elif first.reads.kind == "speech":
        code.append('print(chain("speech.wav"))')
        shell.append(f"legonn transcribe speech.wav --model {repository}")
    elif first.reads.part:
        code.append('print(chain("FILE"))  # LEGONN_PLUGINS names the Python module of its input part')
    else:
        code.append('print(chain("a sentence"))')
        shell.append(f'legonn translate "a sentence" --model {repository}')
    if last.writes.kind in ("marginals", "states"):
        shell.append(f"legonn check {repository}#{last.name} ANOTHER_PACK")
    if first.reads.kind in ("speech", "tokens"):
        options = f"--skip_train true --stop_stage 13 --download_model {repository}"
        shell.append(f"./run.sh {options}  # in a recipe: its test sets, scored")
    return _fenced("\n".join(code), "python") + "\n\n" + _fenced("\n".join(shell), "sh")


def _modules(card: Card) -> str:
    rows = [
        (m.name, port_words(m.reads), port_words(m.writes), m.body, f"{m.parameters:,}", m.parent or "")
        for m in card.modules
    ]
    return _table(("module", "reads", "writes", "body", "parameters", "taken from"), rows)


def _vocabularies(card: Card) -> str:
    rows = [
        (name, str(v.size), v.unit, v.language or "", v.normalization or "", str(v.blank_id), v.sha256)
        for name, v in card.vocabs.items()
    ]
    return _table(("vocabulary", "tokens", "unit", "language", "normalisation", "blank id", "SHA-256"), rows)


def _metrics(metrics: Sequence[CardScore]) -> str:
    rows = []
    for m in metrics:
        interval = f" [{', '.join(f'{x:g}' for x in m.interval)}]" if m.interval else ""
        sentences = "" if m.sentences is None else str(m.sentences)
        where = m.module or m.composition or "whole chain"
        rows.append((m.dataset, where, m.metric, f"{m.value:g}{interval}", sentences, m.signature or ""))
    return _table(("data", "of", "metric", "value", "sentences", "signature"), rows)


def _environment(card: Card) -> str:
    """Versions, in the words and the order of ESPnet's RESULTS.md."""
    known = card.provenance
    rows = {
        "python version": known.python,
        "espnet version": known.espnet,
        "espnet2_legonn version": known.package,
        "pytorch version": known.torch,
        "Git hash": known.commit,
    }
    return "\n".join(f"- {name}: {escape(value)}" for name, value in rows.items() if value) or "not known"


def _provenance(card: Card) -> str:
    known = card.provenance
    rows = [("content SHA-256", card.content_sha256)]
    for name in ("seed", "updates", "config_sha256"):
        if (value := getattr(known, name)) is not None:
            rows.append((name, str(value)))
    if card.about.domain:
        rows.append(("domain", card.about.domain))
    for parent in known.parents:
        rows.append(("parent", f"{parent.name} ({', '.join(parent.modules)}; content SHA-256 {parent.sha256})"))
    return _table(("", ""), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
