#!/usr/bin/env python3
"""Write the reference pages of the documentation: every YAML key, every option, every public name.

Usage: .venv/bin/python tools/reference_docs.py FOLDER      (`make docs` does the same while it builds the site)

The pages come from the dataclasses that read the files, the comments of conf/reference.yaml, the head of legonn.sh
and the parsers of the commands. Nothing of them is kept in the repository, so they cannot grow old.
tools/docs/notes.yaml has a meaning for each field whose class says none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "espnet2_legonn"
CONFIG = ROOT / "conf" / "reference.yaml"
LEGONN_SH = ROOT / "egs2" / "TEMPLATE" / "legonn1" / "legonn.sh"
NOTES = Path(__file__).parent / "docs" / "notes.yaml"

# Page: title, module of the package, what it is, and the class that the file's outermost mapping is read into.
SCHEMAS = {
    "chain": ("Keys of a chain", "model.description", "`vocabs` and `modules` of a training config."),
    "search": ("Options of the search", "search.options", "`conf/decode.yaml`, `generate` and commands take these."),
    "plan": ("Keys of a plan", "recipes.plan", "A plan, such as the demo's `conf/plan.yaml`, lists experiments."),
    "card": ("Keys of a pack's card", "packs.card", "`card.yaml` of a pack. `conf/card.yaml` fills in `about`."),
}
ALSO = {
    "chain": (
        "model.parts.speech.SpeechConfig", "model.parts.features.FeaturesConfig", "model.parts.frames.MaskPolicy",
        "model.parts.tokens.TokensConfig",
        "model.parts.wemb.WEmbConfig", "model.parts.beam_conv.BeamConvConfig", "model.parts.states.StatesConfig",
        "model.parts.pretrained.PretrainedConfig", "model.parts.espnet_frontend.EspnetFrontendConfig",
        "model.espnet_body.EspnetBodyConfig",
        "model.transformer.BodyConfig", "model.parts.ctc.OutputConfig", "model.parts.ctc.IntermediateConfig",
        "model.parts.states.StatesOutputConfig",
        "model.parts.states.AuxiliaryCTCConfig", "model.freeze.InitConfig",
    ),
    "card": ("model.interface.SearchChoice",),
}  # fmt: skip
COMMANDS = (
    "bin.legonn_train", "bin.legonn_inference", "bin.legonn_average", "bin.legonn_score", "bin.legonn_plan",
    "bin.legonn_stage", "data.cli",
)  # fmt: skip
ROOMS = ("inference", "search", "model", "model/parts", "packs", "errors.py", "data/vocabulary.py")


class Undocumented(Exception):
    """A key without a meaning; the message names it and the file that takes one."""


def classes(page: str) -> list[type]:
    """Dataclasses of a page, in the order of their file."""
    module = importlib.import_module(f"espnet2_legonn.{SCHEMAS[page][1]}")
    own = [c for c in vars(module).values() if dataclasses.is_dataclass(c) and isinstance(c, type)]
    own = [c for c in own if c.__module__ == module.__name__]
    for name in ALSO.get(page, ()):
        home, _, last = name.rpartition(".")
        own.append(getattr(importlib.import_module(f"espnet2_legonn.{home}"), last))
    return own


def key_of(field: dataclasses.Field[Any]) -> str:
    """The name of a field in YAML."""
    return str(field.metadata.get("key", field.name))


# -- where meanings come from -----------------------------------------------------------------------------------------


def arguments(cls: type) -> dict[str, str]:
    """What the section Args of a docstring says, by name."""
    found: dict[str, str] = {}
    names: list[str] = []
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(cls) or "", re.M)
    for line in section[1].splitlines() if section else ():
        if match := re.match(r"^ {4}(\w+(?:, \w+)*): (.*)$", line):
            names = match[1].split(", ")
            found.update(dict.fromkeys(names, match[2]))
        elif line.strip():
            for name in names:
                found[name] += " " + line.strip()
    return found


def comments() -> dict[tuple[str, str], str]:
    """Comments of conf/reference.yaml by (class of the schema, key): those behind a key."""
    text = CONFIG.read_text(encoding="utf-8")
    lines = text.splitlines()
    found: dict[tuple[str, str], str] = {}
    for cls, key, line in _places(yaml.compose(text), "ChainConfig"):
        own = re.search(r"\s#\s*(.*)$", lines[line])
        if own and re.match(rf"^[\s-]*{key}:", lines[line]):
            found.setdefault((cls, key), own[1])
    return found


def _places(node: yaml.Node, cls: str) -> Iterator[tuple[str, str, int]]:
    """(class, key, line) of every key below a mapping that is read into this class."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        yield cls, key.value, key.start_mark.line
        inner = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if cls == "ChainConfig" and key.value == "vocabs" and isinstance(value, yaml.MappingNode):
            inner = [v for _, v in value.value]
        for item in inner:
            yield from _places(item, _class_below(cls, key.value, item))


def _class_below(cls: str, key: str, node: yaml.Node) -> str:
    """The class that reads what stands behind a key."""
    from espnet2_legonn.model.parts import INPUTS

    if key == "input" and isinstance(node, yaml.MappingNode):
        kind = next((v.value for k, v in node.value if k.value == "type"), "")
        return INPUTS[kind].Config.__name__ if kind in INPUTS else ""
    below = {
        ("ChainConfig", "vocabs"): "VocabConfig",
        ("ChainConfig", "modules"): "ModuleConfig",
        ("ModuleConfig", "body"): "BodyConfig",
        ("ModuleConfig", "length_control"): "LengthControlConfig",
        ("ModuleConfig", "output"): "OutputConfig",
        ("SpeechConfig", "specaug"): "MaskPolicy",
        ("FeaturesConfig", "specaug"): "MaskPolicy",
    }
    return below.get((cls, key), "")


def notes() -> dict[str, dict[str, str]]:
    """Meanings that tools/docs/notes.yaml adds, by class and key."""
    return yaml.safe_load(NOTES.read_text(encoding="utf-8")) or {}


def meanings(cls: type) -> dict[str, str]:
    """What each key of a class means; no entry for a key that nobody explained."""
    written, said, added = comments(), arguments(cls), notes().get(cls.__name__, {})
    found: dict[str, str] = {}
    if "same_as" in added:
        found |= next(meanings(c) for page in SCHEMAS for c in classes(page) if c.__name__ == added["same_as"])
    for field in dataclasses.fields(cls):
        key = key_of(field)
        text = written.get((cls.__name__, key)) or said.get(field.name) or added.get(key)
        if text:
            found[key] = text
    return found


# -- pages ------------------------------------------------------------------------------------------------------------


def schema_page(page: str) -> str:
    """Tables of the keys of every class of a schema.

    Raises:
        Undocumented: keys without a meaning, all of them.
    """
    title, module, about = SCHEMAS[page]
    parts = [f"# {title}", "", f"{about} The schema is `{_file(module)}`. An unknown key is an error.", ""]
    missing = []
    for cls in classes(page):
        known = meanings(cls)
        fields = dataclasses.fields(cls)
        missing += [f"{cls.__name__}.{key_of(f)}" for f in fields if key_of(f) not in known]
        lead = (inspect.getdoc(cls) or "").split("\n\nArgs:")[0].split("\n\nRaises:")[0]
        parts += [f"## {cls.__name__}", "", lead, "", "| Key | Type | Default | Meaning |", "|---|---|---|---|"]
        parts += [_row(field, known.get(key_of(field), "")) for field in fields]
        parts += [""]
    if missing:
        where = f"in the class or in tools/docs/{NOTES.name}"
        raise Undocumented(f"no meaning for {', '.join(missing)}: explain them {where}")
    return "\n".join(parts)


def _row(field: dataclasses.Field[Any], meaning: str) -> str:
    kind = str(field.type).replace(" | ", " or ").replace("None", "null")
    return f"| `{key_of(field)}` | {_cell(kind)} | {_default(field)} | {_cell(meaning)} |"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    from espnet2_legonn.files.schema import to_plain

    text = yaml.safe_dump(to_plain(value), default_flow_style=True, width=1000).replace("...", "").strip()
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("``", "`")


def _file(module: str) -> str:
    return f"espnet2_legonn/{module.replace('.', '/')}.py"


def config_page() -> str:
    """conf/reference.yaml whole."""
    text = CONFIG.read_text(encoding="utf-8").replace("espnet2_legonn/model/description.py", "model/description.py")
    lead = "`conf/reference.yaml`, a valid training config in which every key has a comment."
    return f"---\nhide: [toc]\n---\n# A training config with every key\n\n{lead}\n\n```yaml\n{text}```\n"


def training_page() -> str:
    """Options of ESPnet that have no place here, with what to do instead; then the full help of training."""
    from espnet2_legonn.training.options import USELESS

    rows = [f"| `{name}` | `{none}` | {_cell(cure)} |" for name, (none, cure) in USELESS.items()]
    head = [
        "# Options of training", "",
        "A training config takes ESPnet's options. The keys that matter for LegoNN are explained in",
        "[the config with every key](config.md). These options of ESPnet are refused, unless they ask for nothing:", "",
        "| Option | Accepted value | What to do instead |", "|---|---|---|", *rows, "",
        "## All options", "", "What `python -m espnet2_legonn.bin.legonn_train --help` prints.", "",
    ]  # fmt: skip
    return "\n".join([*head, _fence(help_of("bin.legonn_train"))])


def recipe_page() -> str:
    """Options of run.sh by group."""
    from espnet2_legonn.recipes.options import read_options

    parts = ["# Options of run.sh", "", "Every recipe hands its options to `legonn.sh`. `./run.sh --help` prints them."]
    group = ""
    for option in read_options(LEGONN_SH).values():
        if option.group != group:
            group = option.group
            parts += ["", f"## {group}", "", "| Option | Default | Meaning |", "|---|---|---|"]
        default = f"`{option.default}`" if option.default else ""
        parts.append(f"| `--{option.name}` | {_cell(default)} | {_cell(option.meaning)} |")
    return "\n".join(parts) + "\n"


def commands_page() -> str:
    """`--help` of every command."""
    from espnet2_legonn.bin.legonn import COMMANDS as LEGONN

    parts = ["# Commands\n", "What each command prints with `--help`.\n", "## legonn\n", _fence(help_of("bin.legonn"))]
    for name in LEGONN:
        parts += [f"## legonn {name}\n", _fence(help_of("bin.legonn", name))]
    for module in COMMANDS:
        if module != "bin.legonn_train":
            parts += [f"## python -m espnet2_legonn.{module}\n", _fence(help_of(module))]
    return "\n".join(parts)


def help_of(module: str, *words: str) -> str:
    """What a command prints with `--help`, 100 columns wide."""
    said, lost = io.StringIO(), io.StringIO()
    main = importlib.import_module(f"espnet2_legonn.{module}").main
    before = sys.argv, os.environ.get("COLUMNS")
    sys.argv, os.environ["COLUMNS"] = [module.rpartition(".")[2] + ".py"], "88"
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(lost), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        sys.argv = before[0]
        os.environ.pop("COLUMNS") if before[1] is None else os.environ.update(COLUMNS=before[1])
    if "usage" not in said.getvalue():
        raise Undocumented(f"{module} {' '.join(words)} --help prints no usage")
    return said.getvalue().replace(str(ROOT), "<repository>")


def _fence(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


# -- names ------------------------------------------------------------------------------------------------------------


def modules(room: str) -> list[str]:
    """Dotted names of the public files of a room."""
    place = PACKAGE / room
    files = [place] if place.is_file() else sorted(p for p in place.glob("*.py") if not p.name.startswith("_"))
    return [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]


def api_pages() -> dict[str, str]:
    """Pages of names for mkdocstrings: the names of the package, then a page for each room."""
    import espnet2_legonn

    homes = espnet2_legonn._HOMES
    rows = [f"| [`{n}`][espnet2_legonn.{homes[n]}.{n}] | `espnet2_legonn.{homes[n]}` |" for n in sorted(homes)]
    head = "# Names of the package\n\n`from espnet2_legonn import ...` gives these. Each is loaded at its first use.\n"
    pages = {"api/index.md": "\n".join([head, "| Name | Where it lives |", "|---|---|", *rows, ""])}
    for room in ROOMS:
        name = room.removesuffix(".py").replace("/", "_")
        dotted = room.removesuffix(".py").replace("/", ".")
        pages[f"api/{name}.md"] = "\n".join([f"# {dotted}", "", *(f"::: {m}\n" for m in modules(room))])
    return pages


def pages() -> dict[str, str]:
    """Every generated page, by its path in the site."""
    found = {f"reference/{page}.md": schema_page(page) for page in SCHEMAS}
    found["reference/config.md"] = config_page()
    found["reference/training.md"] = training_page()
    found["reference/recipe.md"] = recipe_page()
    found["reference/commands.md"] = commands_page()
    return found | api_pages()


def main(words: list[str]) -> int:
    """Write all pages below a folder; the exit status."""
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        made = pages()
    except Undocumented as fault:
        print(f"tools/reference_docs.py: {fault}", file=sys.stderr)
        return 1
    for name, text in made.items():
        path = Path(words[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(made)} pages in {words[0]}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
