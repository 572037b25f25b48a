"""Options of a recipe script, from the variables at its head; what parse_options.sh asks.

python -m espnet2_legonn.recipes.options help SCRIPT         prints them; values that differ from the head come on stdin
python -m espnet2_legonn.recipes.options resolve SCRIPT NAME VALUE    prints the variable to set, or nothing
python -m espnet2_legonn.recipes.options table SCRIPT         asr.sh, mt.sh and st.sh, option by option, in Markdown
"""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.errors import ConfigError, command
from espnet2_legonn.files.schema import nearest
from espnet2_legonn.recipes.espnet_options import ABSENT, ALIASES, ESPNET, NOTES, Absent

_VARIABLE = re.compile(r"""^([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|[^\s#]*)[ \t]*(?:#\s*(.*))?$""")
_GROUP = re.compile(r"^# (\w.*)$")
_MORE = re.compile(r"^\s+# ?(.*)$")
_NO_OPTIONS = ("help_message", "SECONDS")
FIXED = {"oov": ("<unk>",), "blank": ("<blank>",), "sos_eos": ("<sos/eos>",), "feats_type": ("raw", "extracted")}
_WHY_FIXED = "every vocabulary has the same special tokens, so that modules fit"
_FEATURES = "modules read sound, or the feats.scp that another recipe left in dump/extracted"


@dataclass(frozen=True)
class Option:
    """A variable at the head of a script.

    Args:
        group: comment line above its block.
        default: as the shell has it.
        meaning: comment behind it.
    """

    name: str
    group: str
    default: str
    meaning: str


def read_options(script: Path) -> dict[str, Option]:
    """Options of a script, in order: variables that stand before the line which sources parse_options.sh.

    Raises:
        ConfigError: the script cannot be read.
    """
    try:
        lines = script.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{script}: cannot be read ({error})") from None
    found: dict[str, Option] = {}
    group, last = "", ""
    for line in lines:
        if re.match(r"\s*(\.|source)\s.*parse_options\.sh", line):
            break
        if match := _VARIABLE.match(line):
            name, value, comment = match.groups()
            last = name if name not in _NO_OPTIONS else ""
            if last:
                found[name] = Option(name, group, value.strip('"'), (comment or "").strip())
        elif (match := _MORE.match(line)) and last:
            old = found[last]
            found[last] = Option(last, old.group, old.default, f"{old.meaning} {match[1].strip()}".strip())
        else:
            last = ""
            if match := _GROUP.match(line):
                group = match[1]
    return found


def resolve(script: Path, name: str, value: str) -> str:
    """The variable that an option of a script sets; nothing where its value asks for what is done anyway.

    Raises:
        ConfigError: no such option; says why, and the nearest one.
    """
    known = read_options(script)
    if name in known:
        return name
    if ALIASES.get(name) in known:
        return ALIASES[name]
    absent = ABSENT.get(name) if "legonn_config" in known else None
    if absent is None:
        names = [*known, *(alias for alias, target in ALIASES.items() if target in known)]
        raise ConfigError(f"unknown option --{name}{nearest(name, names)}")
    if value in absent.harmless:
        return ""
    others = " or ".join(f"--{other}" for other in absent.instead)
    raise ConfigError(f"--{name}: not an option here: {absent.reason}; nearest: {others}")


def help_text(script: Path, values: Mapping[str, str] | None = None) -> str:
    """All options of a script by group, with meaning and value, then the names that ESPnet has for them."""
    options = read_options(script)
    lines, group = [], ""
    for option in options.values():
        if option.group != group:
            group = option.group
            lines += ["", f"{group}:"]
        value = (values or {}).get(option.name, option.default)
        said = f"{option.meaning} ({value})" if value else option.meaning or "(empty)"
        head = f"  --{option.name} "
        body = textwrap.wrap(said, 118 - 30) or [""]
        lines += [head] if len(head) > 30 else []
        first = "" if len(head) > 30 else head
        lines += [f"{first if i == 0 else '':<30}{part}" for i, part in enumerate(body)]
    others: dict[str, list[str]] = {}
    for alias, target in ALIASES.items():
        if target in options:
            others.setdefault(target, []).append(f"--{alias}")
    if others:
        lines += ["", "Other names of these:"]
        lines += [f"  --{target:<26}{' '.join(names)}" for target, names in others.items()]
    return "\n".join(lines).strip("\n")


def shell_values(text: Iterable[str]) -> dict[str, str]:
    """Variables that the shell's ``set`` printed, one a line; a value over several lines is left out."""
    found = {}
    for line in text:
        name, equals, value = line.rstrip("\n").partition("=")
        if equals and name.isidentifier():
            try:
                found[name] = "".join(shlex.split(value))
            except ValueError:
                continue
    return found


def classify(name: str, known: Iterable[str]) -> str:
    """``known``, ``alias`` or ``refused``: what becomes of an option of ESPnet's.

    Raises:
        ConfigError: nobody thought of it.
    """
    if name in set(known):
        return "known"
    if name in ALIASES:
        return "alias"
    if name in ABSENT:
        return "refused"
    raise ConfigError(f"--{name}: an option of ESPnet's that espnet_options.py does not have")


def table(script: Path) -> str:
    """Every option of asr.sh, mt.sh and st.sh in Markdown: whose it is, what it is here, what differs or why not."""
    known = read_options(script)
    names = list(dict.fromkeys(name for names in ESPNET.values() for name in names))
    kinds = {name: classify(name, known) for name in names}
    same = [f"|`{name}`|{_of(name)}|{_cell(NOTES.get(name, ''))}|" for name in names if kinds[name] == "known"]
    other = [
        f"|`{name}`|{_of(name)}|`{ALIASES[name]}`|{_cell(NOTES.get(ALIASES[name], ''))}|"
        for name in names
        if kinds[name] == "alias"
    ]
    groups: dict[Absent, list[str]] = {}
    for name in names:
        if kinds[name] == "refused":
            groups.setdefault(ABSENT[name], []).append(name)
    absent = []
    for why, members in groups.items():
        options = " ".join(f"`{name}`" for name in members)
        nearest_ones = " ".join(f"`{name}`" for name in why.instead)
        accepted = " ".join(f"`{value}`" if value else "(empty)" for value in why.harmless)
        absent.append(f"|{options}|{_cell(why.reason)}|{nearest_ones}|{accepted}|")
    own = [f"|`{o.name}`|{_cell(o.meaning)}|" for o in known.values() if o.name not in kinds]
    parts = [
        (f"There, under the same name: {len(same)}", "|option|of|what differs|\n|---|---|---|", same),
        (f"There, under another name too: {len(other)}", "|option|of|here|what differs|\n|---|---|---|---|", other),
        (
            f"Not there: {sum(map(len, groups.values()))}",
            "|option|why|nearest|accepted with|\n|---|---|---|---|",
            absent,
        ),
        (f"Here alone: {len(own)}", "|option|what it is|\n|---|---|", own),
    ]
    return "\n".join(f"### {title}\n\n{head}\n" + "\n".join(rows) + "\n" for title, head, rows in parts)


def _of(name: str) -> str:
    """Scripts that have an option."""
    return " ".join(title.removesuffix(".sh") for title, names in ESPNET.items() if name in names)


def _cell(text: str) -> str:
    return re.sub(r"\s*\|\s*", ", ", text).replace("<", "\\<")


def fixed_faults(values: Mapping[str, str]) -> list[str]:
    """What options that have few possible values were given instead."""
    why = {"feats_type": _FEATURES}
    return [
        f"--{name} {values[name]}: must be {' or '.join(wanted)} ({why.get(name, _WHY_FIXED)})"
        for name, wanted in FIXED.items()
        if values.get(name, wanted[0]) not in wanted
    ]


@command
def main(cmd: Sequence[str] | None = None) -> int:
    """Run one of the commands above; 1 with the reason on stdout, for parse_options.sh, where an option is none."""
    words = list(sys.argv[1:] if cmd is None else cmd)
    try:
        if words[:1] == ["help"] and len(words) == 2:
            print(help_text(Path(words[1]), None if sys.stdin.isatty() else shell_values(sys.stdin)))
        elif words[:1] == ["resolve"] and len(words) == 4:
            print(resolve(Path(words[1]), words[2], words[3]))
        elif words[:1] == ["table"] and len(words) == 2:
            print(table(Path(words[1])), end="")
        elif words[:1] == ["fixed"]:
            faults = fixed_faults(dict(zip(words[1::2], words[2::2])))
            if faults:
                raise ConfigError(faults)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ConfigError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
