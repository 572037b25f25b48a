"""Getting a corpus, on request only: resumed, checked, unpacked. Nothing here agrees to a licence for anybody."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from espnet2_legonn.errors import DataError
from espnet2_legonn.zoo.files import sha256_of
from espnet2_legonn.zoo.transfer import download


@dataclass(frozen=True)
class Archive:
    """A tar file that makes a corpus.

    Args:
        url: where it is.
        gigabytes: about its size; more than twice of that is refused, and the disk must hold three times.
        licence: what using it means.
        folder: what it unpacks to.
        sha256: digest, where one is published.
    """

    url: str
    gigabytes: float
    licence: str
    folder: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.url} (about {self.gigabytes:g} GB; {self.licence}), unpacks to {self.folder}/"


def fetch(archive: Archive, into: Path) -> Path:
    """Download and unpack below `into`; what is there already is left alone.

    Returns:
        the corpus's folder.

    Raises:
        DataError: too little disk space, a wrong digest, or a damaged archive.
        CheckpointError: what the server says.
    """
    target = into / archive.folder
    if target.is_dir():
        return target
    into.mkdir(parents=True, exist_ok=True)
    size = round(archive.gigabytes * 1e9)
    if (free := shutil.disk_usage(into).free) < 3 * size:
        raise DataError(f"{into}: {free / 1e9:.0f} GB are free, {3 * size / 1e9:.0f} GB needed; choose another place")
    name = archive.url.rsplit("/", 1)[-1]
    whole, part = into / name, into / f"{name}.part"
    if not whole.is_file():
        download(archive.url, part, name, 2 * size)
        part.rename(whole)
    digest = sha256_of(whole)
    print(f"{whole}: {whole.stat().st_size} bytes, sha256 {digest}")
    if archive.sha256 not in (None, digest):
        raise DataError(f"{whole}: sha256 should be {archive.sha256}; remove the file and try again")
    unpacked = into / f".{archive.folder}.unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        with tarfile.open(whole) as tar:
            tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{whole}: cannot be unpacked ({error}); remove it and try again") from error
    if not (unpacked / archive.folder).is_dir():
        raise DataError(f"{whole}: holds no {archive.folder}/; is it the archive of this corpus?")
    (unpacked / archive.folder).rename(target)
    shutil.rmtree(unpacked)
    return target
