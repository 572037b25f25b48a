"""Packs without torch, and a web server that misbehaves on demand."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from espnet2_legonn.data.vocabulary import Vocabulary
from espnet2_legonn.packs import transfer
from espnet2_legonn.packs.card import CARD, About, Card, ModuleCard, PortCard, VocabCard, content_digest, dump
from espnet2_legonn.packs.files import list_files

ABOUT = {
    "description": "A toy.",
    "license": "CC-BY-4.0",
    "language": ["de", "en"],
    "training_data": ["toys 1.0 (CC0)"],
}


def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for downloads; no other place is known, and nobody waits between tries."""
    for name in ("LEGONN_INVENTORY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEGONN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEGONN_PACKS", str(tmp_path / "no packs"))
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    return tmp_path / "cache"


def make_pack(folder: Path, about: dict[str, Any] | None = None, size: int = 300_000, seed: int = 0) -> Path:
    """speech -> bpe_de marginals -> text, as files that no chain can be built of."""
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(random.Random(seed).randbytes(size))
    (folder / "config.yaml").write_text("modules: []\n", encoding="utf-8")
    vocab = Vocabulary(("<blank>", "<unk>", "a", "b", "<sos/eos>"), "word", "de")
    (folder / "bpe_de.tokens.txt").write_text("\n".join(vocab.tokens) + "\n", encoding="utf-8")
    files = list_files(folder)
    card = Card(
        name=folder.name,
        modules=[
            ModuleCard("encoder", PortCard("speech", fs=16000), PortCard("marginals", "bpe_de"), 1200, "transformer"),
            ModuleCard("decoder", PortCard("marginals", "bpe_de"), PortCard("text", "bpe_de"), 3400, "transformer"),
        ],
        vocabs={"bpe_de": VocabCard(vocab.sha256, len(vocab), "word", "bpe_de.tokens.txt", language="de")},
        files=files,
        content_sha256=content_digest(files),
        about=About(**(ABOUT if about is None else about)),
    )
    (folder / CARD).write_text(dump(card), encoding="utf-8")
    return folder


class Web:
    """Serves ``files``; each request goes through ``faults`` (path, start) first, if there are any.

    Args:
        ranges: whether the server knows the Range header.
    """

    def __init__(self, ranges: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = ranges
        self.says_length = True
        self.asked: list[tuple[str, str | None]] = []
        # The next answer: a status, or how many bytes to send before the line is cut.
        self.faults: list[int] = []
        self.before: Callable[[], None] = lambda: None
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.asked.append((handler.path, asked))
        self.before()
        fault = self.faults.pop(0) if self.faults else None
        body = self.files.get(handler.path.partition("?")[0])
        if body is None or fault in (403, 500, 503):
            handler.send_error(fault or 404)
            return
        start = int(re.findall(r"\d+", asked)[0]) if asked and self.ranges else 0
        if start and start >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(body[start:] if fault is None else body[start : start + fault])


@contextlib.contextmanager
def serving(web: Any) -> Iterator[Any]:
    """Requests are answered for as long as this lasts."""
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.server.shutdown()
        web.server.server_close()
        thread.join()


def mounts_work() -> bool:
    """Whether this user may mount things for one process."""
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    except OSError:
        return False
