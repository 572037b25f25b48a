"""``legonn list``, ``info``, ``pull`` and ``push``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from espnet2_legonn.errors import CheckpointError, ConfigError, harmless
from espnet2_legonn.files.scratch import scratch
from espnet2_legonn.packs import hub
from espnet2_legonn.packs.card import CARD, Card, read_card
from espnet2_legonn.packs.fetch import hub_tag, inventories, kind, look_up, resolve
from espnet2_legonn.packs.files import README, card_of, opened, replacing, require_no_links, verify
from espnet2_legonn.packs.inventory import Entry, Hit, Inventory, plain
from espnet2_legonn.packs.model_card import port_words
from espnet2_legonn.packs.transfer import DISK_FULL

EPILOGS = {
    "list": """words of --reads and --writes: vocabulary name or its SHA-256 (six digits or more), kind (speech, tokens,
marginals, states, text), unit (bpe, phn, char, word), language; all must hold. exit status: 1 if nothing is found
example: legonn list --inventory packs --reads "marginals bpe_en" --writes text""",
    "info": """example: legonn info packs/asr.zip
example: legonn info asr --inventory s3://bucket/packs""",
    "pull": """example: legonn pull asr --inventory https://example.org/packs -o asr
example: legonn pull org/name@v1 -o asr""",
    "push": """the token for the Hub is huggingface_hub's: HF_TOKEN, or `hf auth login`
example: legonn push exp/asr/pack --inventory packs
example: legonn push exp/asr/pack --hub org/name --dry_run""",
}
REFERENCE = "folder, zip, URL, name in an inventory, or org/name[@revision] of the Hugging Face Hub"
PLACE = "folder or URL with an inventory.json; default: LEGONN_INVENTORY and the packs that ship with legonn"


def add(name: str, parser: argparse.ArgumentParser) -> None:
    """Options."""
    if name == "list":
        parser.add_argument("--inventory", metavar="PLACE", help=PLACE)
        parser.add_argument("--reads", metavar="WORDS", help="modules that read this, for instance 'marginals bpe_en'")
        parser.add_argument("--writes", metavar="WORDS", help="modules that write this, for instance text")
    elif name == "push":
        parser.add_argument("pack", metavar="PACK", help=f"what to publish: {REFERENCE}")
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("--inventory", metavar="PLACE", help="folder or URL (s3://...); made if there is none")
        target.add_argument("--hub", metavar="ORG/NAME[@BRANCH]", help="repository of the Hugging Face Hub")
        parser.add_argument("--private", action="store_true", help="if the repository has to be made")
        parser.add_argument("--replace", action="store_true", help="another pack of this name gives way")
        parser.add_argument("--dry_run", "--dry-run", action="store_true", help="show what would go up; send nothing")
    else:
        parser.add_argument("pack", metavar="PACK", help=REFERENCE)
        parser.add_argument("--inventory", metavar="PLACE", help=PLACE)
    if name == "pull":
        parser.add_argument("-o", "--out", metavar="DIR", type=Path, help="a copy; default: the cache only")
        parser.add_argument("--trust", action="store_true", help="also an archive without a card, of espnet2.bin.pack")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.epilog = EPILOGS[name]
    parser.set_defaults(run={"list": run_list, "info": run_info, "pull": run_pull, "push": run_push}[name])


def run_list(args: argparse.Namespace) -> int:
    """Packs, or modules by their ports."""
    places = [args.inventory] if args.inventory else inventories()
    if not places:
        raise ConfigError("no inventory: give --inventory PLACE or set LEGONN_INVENTORY")
    found = [(i.place, hit) for i in map(Inventory.open, places) for hit in i.find(args.reads, args.writes)]
    if args.json:
        rows = [{"inventory": place, "spec": hit.spec, "pack": plain(hit.entry)} for place, hit in found]
        print(_json(rows))
    elif found:
        head = ("PACK", "READS", "WRITES", "SIZE", "LICENCE", "METRIC", "INVENTORY")
        print(_table(head, [(*_row(hit), place) for place, hit in found]))
    else:
        print(f"nothing found in {', '.join(places)}", file=sys.stderr)
    return int(not found)


def run_info(args: argparse.Namespace) -> int:
    """The card; of a pack in an inventory or on the Hub, nothing else is downloaded."""
    found = _card(args.pack, args.inventory)
    print(_json(plain(found)) if args.json else _describe(found))
    return 0


def run_pull(args: argparse.Namespace) -> int:
    """Get a pack; the last line is where it lies."""
    path = resolve(args.pack, args.inventory)
    with opened(path, ()) as folder:
        own = path.is_dir() and kind(args.pack, args.inventory) == "path"
        if own and args.out is not None:  # a copy would make files of a stranger's links
            require_no_links(path, [p.relative_to(path).as_posix() for p in path.rglob("*")])
        if not (own or args.trust or (folder / CARD).is_file()):
            remedy = "so nothing says what it should hold; if you trust who made it, --trust"
            raise CheckpointError(f"{args.pack}: no {CARD}, {remedy}")
    if args.out is not None:
        with opened(path) as folder:
            _copy(folder, args.out)
        path = args.out
    print(json.dumps({"path": str(path)}) if args.json else path)
    return 0


def run_push(args: argparse.Namespace) -> int:
    """Publish, or show what would be."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opened(resolve(args.pack)))
        if kind(args.pack) == "hub":  # the Hub's cache is made of links
            copy = stack.enter_context(scratch(Path(tempfile.gettempdir()), "pack")) / "pack"
            _copy(folder, copy)
            folder = copy
        if args.hub:
            repository, revision = hub_tag(args.hub)
            upload = hub.push(folder, repository, revision, args.private, args.dry_run)
            if args.json:
                print(json.dumps(plain(upload), indent=1))
                return 0
            print(_table(("FILE", "BYTES"), [(n, f"{b:,}") for n, b in upload.files.items()]))
            print(f"total: {sum(upload.files.values()):,} bytes")
            if args.dry_run:
                print(f"\n{README}:\n\n{upload.readme}\nnothing was sent (--dry_run)")
            else:
                print(f"published: {args.hub}, commit {upload.commit}")
            return 0
        inventory = Inventory.open(args.inventory, new=True)
        if not inventory.shared:
            note = "this store has no conditional writes, so only one may publish at a time"
            print(f"note: {inventory.place}: {note}", file=sys.stderr)
        entry = inventory.publish(folder, args.replace, args.dry_run)
    if args.json:
        print(_json(plain(entry)))
    else:
        print(_table(("FILE", "BYTES"), [(entry.archive, f"{entry.bytes:,}")]))
        print("nothing was sent (--dry_run)" if args.dry_run else f"published: {entry.name} in {inventory.place}")
    return 0


def _card(reference: str, place: str | None) -> Card | Entry:
    found = kind(reference, place)
    if found == "name":
        return look_up(reference, [place] if place else inventories())[1]
    if found == "hub":
        folder = hub.card_folder(*hub_tag(reference))
        if folder is None:
            raise CheckpointError(f"{reference}: no {CARD}, so this is no pack")
        return read_card(folder)
    return card_of(resolve(reference, place))


def _copy(source: Path, target: Path) -> None:
    try:
        with replacing(target) as temporary:
            # The Hub's cache is made of links: what they lead to is copied.
            if (source / CARD).is_file():
                card = verify(source)
                for name in [CARD, *card.files, *([README] if (source / README).is_file() else [])]:
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source / name, temporary / name)
            else:
                shutil.copytree(source, temporary, dirs_exist_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise CheckpointError(f"{target}: no space left; nothing is kept") from None
        raise


def _row(hit: Hit) -> tuple[str, ...]:
    ports = []
    for port in (hit.modules[0].reads, hit.modules[-1].writes):
        digest = f" {hit.entry.vocabs[port.vocab].sha256[:8]}" if port.vocab else ""
        ports.append(port_words(port) + digest)
    metric = next((f"{m.metric} {m.value:g} ({m.dataset})" for m in hit.entry.metrics), "")
    return hit.spec, *ports, _size(hit.entry.bytes), hit.entry.about.license or "", metric


def _describe(card: Card | Entry) -> str:
    about = card.about
    told = [
        ("licence", about.license),
        ("language", ", ".join(about.language or ())),
        ("domain", about.domain),
        ("trained on", "; ".join(about.training_data or ())),
        ("content", card.content_sha256),
    ]
    if isinstance(card, Entry):
        told.append(("zip", f"{card.archive}, {_size(card.bytes)}"))
    else:
        told.append(("files", f"{len(card.files)}, {_size(sum(f.bytes for f in card.files.values()))}"))
        told += [("parent", f"{p.name}: {', '.join(p.modules)}") for p in card.provenance.parents]
    blocks = [card.name + (f": {' '.join(about.description.split())}" if about.description else "")]
    blocks.append("\n".join(f"{key:<11}{value}" for key, value in told if value))
    modules = [
        (m.name, port_words(m.reads), port_words(m.writes), m.body, f"{m.parameters:,}", m.parent or "")
        for m in card.modules
    ]
    blocks.append(_table(("MODULE", "READS", "WRITES", "BODY", "PARAMETERS", "TAKEN FROM"), modules))
    vocabs = [(n, str(v.size), v.unit, v.language or "", v.sha256) for n, v in card.vocabs.items()]
    if vocabs:
        blocks.append(_table(("VOCABULARY", "TOKENS", "UNIT", "LANGUAGE", "SHA-256"), vocabs))
    if card.metrics:
        rows = [(m.dataset, m.module or m.composition or "whole", m.metric, f"{m.value:g}") for m in card.metrics]
        blocks.append(_table(("DATA", "OF", "METRIC", "VALUE"), rows))
    return "\n\n".join("\n".join(map(_printable, block.split("\n"))) for block in blocks)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [tuple(head), *(tuple(_printable(str(cell)) for cell in row) for row in rows)]
    used = [i for i in range(len(head)) if any(line[i] for line in lines[1:])]
    widths = {i: max(len(line[i]) for line in lines) for i in used}
    return "\n".join("  ".join(line[i].ljust(widths[i]) for i in used).rstrip() for line in lines)


def _printable(text: str) -> str:
    """A card may come from anybody: no control characters reach the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _json(data: Any) -> str:
    """JSON escapes some control characters, not all."""
    return harmless(json.dumps(data, indent=1, ensure_ascii=False))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
