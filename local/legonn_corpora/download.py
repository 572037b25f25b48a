"""Getting a corpus, on request only: resumed, checked, unpacked. Nothing here agrees to a licence for anybody."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.errors import DataError
from espnet2_legonn.files.archive import digest_of, sha256_of
from espnet2_legonn.packs.transfer import download


@dataclass(frozen=True)
class Archive:
    """A file that makes a corpus, or a part of one.

    Args:
        url: where it is.
        gigabytes: about its size. More than twice of that is refused, and the disk must hold three times.
        licence: what using it means.
        folder: what a tar file unpacks to. Empty for a file that is read as it is.
        bare: the tar file has no folder of its own, so one of that name is made.
        sha256, md5: digests, where they are published.
    """

    url: str
    gigabytes: float
    licence: str
    folder: str
    sha256: str | None = None
    bare: bool = False
    md5: str | None = None

    @property
    def name(self) -> str:
        """Of the file itself."""
        return self.url.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        unpacked = f", unpacks to {self.folder}/" if self.folder else ""
        return f"{self.url} (about {self.gigabytes:g} GB; {self.licence}){unpacked}"


def fetch(archive: Archive, into: Path) -> Path:
    """Download and unpack below `into`. What is there already is left alone.

    Returns:
        the folder that was unpacked, or the file.

    Raises:
        DataError: too little disk space, a wrong digest, or a damaged archive.
        CheckpointError: what the server says.
    """
    target = into / (archive.folder or archive.name)
    if target.exists():
        return target
    into.mkdir(parents=True, exist_ok=True)
    size = round(archive.gigabytes * 1e9)
    if (free := shutil.disk_usage(into).free) < 3 * size:
        raise DataError(f"{into}: {free / 1e9:.0f} GB are free, {3 * size / 1e9:.0f} GB needed; choose another place")
    whole, part = into / archive.name, into / f"{archive.name}.part"
    if not whole.is_file():
        download(archive.url, part, archive.name, 2 * size)
        part.rename(whole)
    digest = sha256_of(whole)
    print(f"{whole}: {whole.stat().st_size} bytes, sha256 {digest}")
    if archive.sha256 not in (None, digest):
        raise DataError(f"{whole}: sha256 should be {archive.sha256}; remove the file and try again")
    # md5 tells a damaged download, not a forged one. Nobody published more of these files.
    if archive.md5 is not None and digest_of(whole, lambda: hashlib.md5(usedforsecurity=False)) != archive.md5:
        raise DataError(f"{whole}: md5 should be {archive.md5}; remove the file and try again")
    return _unpack(whole, archive, target) if archive.folder else whole


def _extract(whole: Path, folder: Path) -> None:
    """Unpack a tar file; nothing lands outside of the folder."""
    with tarfile.open(whole) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
            return
        # Python before 3.10.12 and 3.11.4: members with links or other kinds are none of a corpus.
        for member in tar:
            inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
            if not (inside and (member.isfile() or member.isdir())):
                raise tarfile.TarError(f"{member.name} is no plain file inside the folder")
            tar.extract(member, folder, set_attrs=False)


def _unpack(whole: Path, archive: Archive, target: Path) -> Path:
    unpacked = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        _extract(whole, unpacked)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{whole}: cannot be unpacked ({error}); remove it and try again") from error
    inside = unpacked if archive.bare else unpacked / target.name
    if not inside.is_dir():
        raise DataError(f"{whole}: holds no {target.name}/; is it the archive of this corpus?")
    inside.rename(target)
    shutil.rmtree(unpacked, ignore_errors=True)
    return target
