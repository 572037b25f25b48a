"""As much of the Hugging Face Hub as its own client asks for to make, fill and read a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_test"
Files = dict[str, bytes]


class Hub:
    """Repositories by name; each has branches, and each branch the commit it is at.

    Files whose name ends in .safetensors go through the large-file route, as on the real Hub.
    """

    def __init__(self) -> None:
        self.commits: dict[str, Files] = {}
        self.repos: dict[str, dict[str, str]] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.gated: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                hub.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = handle_any

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, repo: str, branch: str, files: Files) -> str:
        """Add files to a branch; the new commit."""
        branches = self.repos.setdefault(repo, {})
        merged = self.commits.get(branches.get(branch, ""), {}) | files
        oid = hashlib.sha1(repr(sorted(merged.items())).encode()).hexdigest()
        self.commits[oid], branches[branch] = merged, oid
        return oid

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(handler.path).path)
        self.asked.append(f"{handler.command} {path}")
        writing = handler.command in ("POST", "PUT") and path != "/api/validate-yaml"
        if writing and not path.startswith("/large/") and handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(handler, 401, {"error": "Invalid credentials"})
            return
        for method, pattern, act in (
            ("POST", r"/api/validate-yaml", lambda: {"warnings": [], "errors": []}),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/models/(\w+/\w+)/branch/(\w+)", self._branch),
            ("POST", r"/api/models/(\w+/\w+)/preupload/(\w+)", self._modes),
            ("POST", r"/(\w+/\w+)\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/large/(\w+)", self._store),
            ("POST", r"/api/models/(\w+/\w+)/commit/(\w+)", self._commit),
            ("GET", r"/api/models/(\w+/\w+)/revision/(\w+)", self._revision),
            ("GET", r"/api/models/(\w+/\w+)/tree/(\w+)", self._tree),
        ):
            if handler.command == method and (found := re.fullmatch(pattern, path)):
                status, answer = 200, act(*found.groups(), *([body] if writing else []))
                if isinstance(answer, tuple):
                    status, answer = answer
                self.send(handler, status, answer)
                return
        if found := re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", path):
            self._resolve(handler, *found.groups())
        else:
            self.send(handler, 404, {"error": f"{handler.command} {path}"})

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        if isinstance(content, dict) and "code" in content:
            headers["X_Error_Code"] = content["code"]
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    def _create(self, body: bytes) -> Any:
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if repo in self.repos:
            return 409, {"url": f"{self.url}/{repo}", "error": "exists"}
        self.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return {"url": f"{self.url}/{repo}", "name": repo, "id": repo}

    def _branch(self, repo: str, branch: str, body: bytes) -> Any:
        if branch in self.repos[repo]:
            return 409, {"error": "exists"}
        self.repos[repo][branch] = self.repos[repo]["main"]
        return {}

    def _modes(self, repo: str, branch: str, body: bytes) -> Any:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        return {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]}

    def _batch(self, repo: str, body: bytes) -> Any:
        objects = json.loads(body)["objects"]
        for entry in objects:
            entry["actions"] = {"upload": {"href": f"{self.url}/large/{entry['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def _store(self, oid: str, body: bytes) -> Any:
        assert hashlib.sha256(body).hexdigest() == oid
        self.large[oid] = body
        return {}

    def _commit(self, repo: str, branch: str, body: bytes) -> Any:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
        oid = self.commit(repo, branch, files)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{repo}/commit/{oid}", "hookOutput": ""}

    def _found(self, repo: str, revision: str) -> str | dict[str, str]:
        if repo not in self.repos:
            return {"error": "Repository not found", "code": "RepoNotFound"}
        oid = self.repos[repo].get(revision, revision)
        return oid if oid in self.commits else {"error": "Invalid rev id", "code": "RevisionNotFound"}

    def _revision(self, repo: str, revision: str) -> Any:
        oid = self._found(repo, revision)
        return {"id": repo, "sha": oid, "siblings": []} if isinstance(oid, str) else (404, oid)

    def _tree(self, repo: str, revision: str) -> Any:
        oid = self._found(repo, revision)
        if not isinstance(oid, str):
            return 404, oid
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.commits[oid].items()
        ]

    def _resolve(self, handler: BaseHTTPRequestHandler, repo: str, revision: str, name: str) -> None:
        oid = self._found(repo, revision)
        if repo in self.gated:
            self.send(handler, 403, {"error": "Ask for access", "code": "GatedRepo"})
        elif not isinstance(oid, str):
            self.send(handler, 404, oid)
        elif name not in self.commits[oid]:
            self.send(handler, 404, {"error": "Entry not found", "code": "EntryNotFound"}, X_Repo_Commit=oid)
        else:
            data = self.commits[oid][name]
            self.send(handler, 200, data, X_Repo_Commit=oid, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
