"""Whom the page answers: requests that call it by a name of its own. No web framework."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]]


def is_ours(header: str, names: Iterable[str]) -> bool:
    """Whether a Host header is an address, localhost, this machine's name or one of ``names``.

    Another site can make its own name stand for this machine's address and have a visitor's browser read the page
    (DNS rebinding); then the name is that site's. An address cannot be made to stand for another.
    """
    host = header.strip().lower()
    host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(host)
        return True
    except ValueError:
        return host.rstrip(".") in {"localhost", socket.gethostname().lower(), *(n.lower() for n in names)}


class HostCheck:
    """An ASGI layer that refuses requests under other names.

    Args:
        names: besides those that ``is_ours`` knows.
    """

    def __init__(self, app: App, names: Iterable[str] = ()) -> None:
        self.app, self.names = app, tuple(names)

    async def __call__(self, scope: Scope, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Pass on, or answer 400."""
        if scope["type"] in ("http", "websocket"):
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_ours(hosts[0], self.names):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 1008})
                    return
                body = b"not a name of this page; legonn demo --name NAME lets it be one\n"
                head = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
                await send({"type": "http.response.start", "status": 400, "headers": head})
                await send({"type": "http.response.body", "body": body})
                return
        await self.app(scope, receive, send)
