"""Packs on the Hugging Face Hub, through its own client; tokens are that client's affair. No torch."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet2_legonn.errors import CheckpointError, ConfigError
from espnet2_legonn.files.archive import MAX_BYTES
from espnet2_legonn.packs.card import CARD, read_card
from espnet2_legonn.packs.files import README, pack_root, require_no_links, verify
from espnet2_legonn.packs.model_card import model_card
from espnet2_legonn.packs.transfer import DISK_FULL, EXTRA


@dataclass
class Upload:
    """What goes up, or went up.

    Args:
        files: bytes by name, README.md included.
        commit: the revision that holds them; none of a dry run.
    """

    repository: str
    files: dict[str, int]
    readme: str
    commit: str | None = None


def push(
    folder: Path, repository: str, revision: str | None = None, private: bool = False, dry_run: bool = False
) -> Upload:
    """A pack and its model card, as one commit; the repository is made if there is none.

    Args:
        revision: branch, which is made if there is none; else the main one.
        private: if the repository has to be made.
        dry_run: nothing leaves this machine.

    Raises:
        CheckpointError: the pack is damaged or made of links, or what the Hub says.
        ConfigError: names every required field of the card that is empty.
    """
    card = verify(folder)
    require_no_links(folder, [CARD, *card.files])
    readme = model_card(card, repository)
    contents: dict[str, Path | bytes] = {name: folder / name for name in sorted([CARD, *card.files])}
    contents[README] = readme.encode()
    sizes = {n: len(c) if isinstance(c, bytes) else c.stat().st_size for n, c in contents.items()}
    upload = Upload(repository, sizes, readme)
    if dry_run:
        return upload
    client = _client(repository)
    with _telling(client, repository):
        api = client.HfApi(library_name="espnet2_legonn")
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.create_commit(
            repository,
            operations=[client.CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=f"{card.name}: content {card.content_sha256[:16]}",
            revision=revision,
        )
    upload.commit = done.oid
    return upload


def snapshot(repository: str, revision: str | None = None) -> Path:
    """The folder of a pack in the Hub's own cache: files that the card names, or everything if there is no card.

    Raises:
        CheckpointError: what the Hub says, or no pack there.
        ConfigError: a card that is not usable.
    """
    where = f"{repository}@{revision}" if revision else repository
    client = _client(where)
    with _telling(client, where):
        folder = card_folder(repository, revision)
        if folder is None:
            return pack_root(Path(client.snapshot_download(repository, revision=revision)), Path(where))
        card = read_card(folder)
        if (size := sum(f.bytes for f in card.files.values())) > MAX_BYTES:
            raise CheckpointError(f"{where}: {size} bytes; a pack has at most {MAX_BYTES}")
        names = [glob.escape(name) for name in (CARD, README, *card.files)]
        # The commit that the card is of: a branch may move on meanwhile.
        return Path(client.snapshot_download(repository, revision=folder.name, allow_patterns=names))


def card_folder(repository: str, revision: str | None = None) -> Path | None:
    """The folder of a commit with its card and, maybe, nothing else; none if the repository has no card.

    Raises:
        CheckpointError: what the Hub says.
    """
    where = f"{repository}@{revision}" if revision else repository
    client = _client(where)
    with _telling(client, where):
        try:
            return Path(client.hf_hub_download(repository, CARD, revision=revision)).parent
        except client.errors.LocalEntryNotFoundError:  # not reachable
            raise
        except client.errors.EntryNotFoundError:
            return None


def _client(where: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(f"{where}: the Hugging Face Hub needs a package ({error}); {EXTRA}") from None
    return huggingface_hub


@contextlib.contextmanager
def _telling(client: Any, where: str) -> Iterator[None]:
    errors = client.errors
    # The bases are the errors of whichever HTTP library this version of the client is built on.
    transport = tuple(b for b in errors.HfHubHTTPError.__mro__ if issubclass(b, Exception) and b is not Exception)
    try:
        yield
    except (CheckpointError, ConfigError):
        raise
    except errors.GatedRepoError:
        fault = "asks for consent on its page, and for a token (HF_TOKEN or `hf auth login`)"
        raise CheckpointError(f"{where}: {fault}") from None
    except errors.RepositoryNotFoundError:
        fault = "no such repository on the Hub, or a private one and no token (HF_TOKEN or `hf auth login`)"
        raise CheckpointError(f"{where}: {fault}") from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{where}: the repository has no such revision") from None
    except errors.LocalEntryNotFoundError:
        raise CheckpointError(f"{where}: the Hub cannot be reached, and the pack is not in its cache") from None
    except (*transport, ValueError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise CheckpointError(f"{where}: no space left in the Hub's cache; free some or set HF_HOME") from None
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"{where}: {line}") from None
