"""Archives of corpora: fetched once, checked, unpacked; only when asked for."""

from __future__ import annotations

import functools
import http.server
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from espnet2_legonn.errors import CheckpointError, DataError
from espnet2_legonn.files.archive import sha256_of
from legonn_corpora import download, europarl_st, tedlium, wmt19_de_en
from legonn_corpora.download import Archive, fetch
from tests.corpora import fixtures_tedlium
from tests.says import Says


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it serves."""
    root = tmp_path_factory.mktemp("served")
    fixtures_tedlium.write(root, segments=2)
    with tarfile.open(root / "x.tar.gz", "w:gz") as tar:
        tar.add(root / "TEDLIUM_release2", "TEDLIUM_release2")
    (root / "damaged.tar.gz").write_bytes((root / "x.tar.gz").read_bytes()[:2000])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root
        server.shutdown()


def archive(url: str, name: str = "x.tar.gz", folder: str = "TEDLIUM_release2", digest: str | None = None) -> Archive:
    return Archive(f"{url}/{name}", 0.001, "free", folder, digest)


@pytest.mark.parametrize("new", [True, False])
def test_fetched_once(
    served: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    new: bool,
) -> None:
    """Also where Python has no filters of tar files."""
    if not new:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    url, root = served
    digest = sha256_of(root / "x.tar.gz")
    (tmp_path / "x.tar.gz.part").write_bytes((root / "x.tar.gz").read_bytes()[:100])  # of a run that was stopped
    found = fetch(archive(url, digest=digest), tmp_path)
    assert found == tmp_path / "TEDLIUM_release2" and (found / "train/stm/AnnDoe_2009.stm").is_file()
    assert f"sha256 {digest}" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["TEDLIUM_release2", "x.tar.gz"]
    assert fetch(archive("http://127.0.0.1:1"), tmp_path) == found  # it is there: no connection


def test_on_request_of_a_reader(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Says
) -> None:
    release = tedlium.RELEASES[2]
    local = tedlium.Release(2, release.part, {}, {}, archive(served[0]))
    monkeypatch.setitem(tedlium.RELEASES, 2, local)
    options = ["--corpus", str(tmp_path / "corpora"), "--out", str(tmp_path / "data")]
    assert tedlium.main(options) == 2  # not without being asked
    assert not (tmp_path / "corpora").exists()
    assert "train: 6 utterances" in says(tedlium.main, [*options, "--download"])


def test_a_file_that_is_read_as_it_is_and_a_tar_without_a_folder(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As WMT ships them; the reader then says what else is missing."""
    url, root = served
    (root / "europarl-v9.de-en.tsv.gz").write_bytes(b"x")
    with tarfile.open(root / "bare.tgz", "w:gz") as tar:
        tar.add(root / "europarl-v9.de-en.tsv.gz", "commoncrawl.de-en.de")
    sources = (
        Archive(f"{url}/europarl-v9.de-en.tsv.gz", 0.001, "free", ""),
        Archive(f"{url}/bare.tgz", 0.001, "free", "commoncrawl", bare=True),
    )
    monkeypatch.setattr(wmt19_de_en, "SOURCES", sources)
    assert wmt19_de_en.main([str(tmp_path / "wmt"), "--out", str(tmp_path / "data"), "--download"]) == 2
    assert (tmp_path / "wmt/europarl-v9.de-en.tsv.gz").read_bytes() == b"x"
    assert (tmp_path / "wmt/commoncrawl/commoncrawl.de-en.de").is_file()
    told = capsys.readouterr()
    assert f"download: {url}/bare.tgz (about 0.001 GB; free), unpacks to commoncrawl/" in told.out
    assert "wikititles-v1" in told.err


def test_what_can_be_wrong(served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = served
    with pytest.raises(CheckpointError, match="404"):
        fetch(archive(url, "nothing.tar.gz"), tmp_path / "a")
    with pytest.raises(DataError, match=r"cannot be unpacked .* remove it and try again"):
        fetch(archive(url, "damaged.tar.gz"), tmp_path / "b")
    with pytest.raises(DataError, match="sha256 should be 00; remove the file"):
        fetch(archive(url, digest="00"), tmp_path / "c")
    with pytest.raises(DataError, match="holds no v1.1/; is it the archive of this corpus?"):
        fetch(archive(url, folder="v1.1"), tmp_path / "d")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="0 GB are free, 0 GB needed; choose another place"):
        fetch(archive(url), tmp_path / "e")


def test_licences_are_told() -> None:
    for described in (europarl_st.ARCHIVE, tedlium.RELEASES[2].archive, tedlium.RELEASES[3].archive):
        assert "CC BY-NC" in str(described) and " GB; " in str(described)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_lands_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: bool) -> None:
    if not new:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "x").write_text("x")
    with tarfile.open(tmp_path / "odd.tar", "w") as tar:
        tar.add(tmp_path / "x", "../outside")
    with pytest.raises(tarfile.TarError):
        download._extract(tmp_path / "odd.tar", tmp_path / "inside")
    assert not (tmp_path / "outside").exists()
