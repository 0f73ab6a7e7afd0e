"""The HTTP side: the parts of the hub's API that huggingface_hub calls to download and to upload.

Downloads: model info, tree, `resolve` with the hub's relative redirect for small files and the redirect to
another address for large ones, ETag, X-Repo-Commit, Range. Uploads: create, validate-yaml, preupload, the
LFS batch with its PUT and verify, and the ndjson commit. Every request is recorded with its bytes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from .store import Repo, git_blob_id, is_lfs, sha256


@dataclass(frozen=True)
class Request:
    """One answered request: `sent` counts the bytes of the response body, `received` of the request's."""

    method: str
    path: str
    status: int
    sent: int
    received: int
    range: str | None


@dataclass
class FakeHub:
    """A running server; use it as a context manager.

    `token` is the only one that may write and that opens gated and private repositories. `cut[path]` makes
    the next download of a file of that path break off after so many bytes of it.
    """

    token: str = "hf_fake"
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.connections: list[socket.socket] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the hub off the network; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        for connection in self.connections:  # the client keeps them alive and would still be served
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add(self, repo_id: str, **options: Any) -> Repo:
        self.repos[repo_id] = repo = Repo(repo_id, **options)
        return repo

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def sent_bytes(self, suffix: str = "") -> int:
        """Bytes of all response bodies of file downloads whose path ends with `suffix`."""
        return sum(r.sent for r in self.requests if r.path.startswith("/blob/") and r.path.endswith(suffix))

    def downloaded(self) -> list[str]:
        """Paths of the files whose contents were asked for, in sorted order, without repeats."""
        got = {
            r.path.split("/", 3)[3]
            for r in self.requests
            if r.path.startswith("/blob/") and r.method == "GET"
        }
        return sorted(got)


class _HubError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


def _not_found(what: str) -> _HubError:
    return _HubError(404, f"{what}NotFound", f"{what} not found")


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    routes: tuple[tuple[str, str, Callable[..., None]], ...] = ()

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the requests are recorded instead."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server looks for

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                try:
                    return action(self, **match.groupdict())
                except _HubError as error:
                    headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
                    return self._json({"error": error.message}, error.status, headers)
        return self._json({"error": f"the fake hub has no {self.command} {path}"}, 404)

    # -- replies

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            content = b""
        if cut is not None:
            content = content[:cut]
            self.close_connection = True
        self.hub.record(
            Request(
                self.command,
                unquote(urlsplit(self.path).path),
                status,
                len(content),
                len(self.body),
                self.headers.get("Range"),
            )
        )
        self.wfile.write(content)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    # -- who may do what

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _writable(self) -> None:
        if not self._authorized():
            raise _HubError(401, "", "Invalid username or password.")

    def _repo(self, repo: str) -> Repo:
        found = self.hub.repos.get(repo)
        if found is None or (found.private and not self._authorized()):
            # The hub answers 401, not 404, to those who are not logged in: it does not say what exists.
            raise _HubError(404 if self._authorized() else 401, "RepoNotFound", "Repository not found")
        return found

    def _commit(self, repo: str, revision: str) -> tuple[Repo, str]:
        found = self._repo(repo)
        sha = found.resolve(revision)
        if sha is None:
            raise _not_found("Revision")
        return found, sha

    # -- downloads

    def info(self, repo: str, revision: str | None = None) -> None:
        found, sha = self._commit(repo, revision or "main")
        self._json(
            {
                "_id": "0",
                "id": repo,
                "modelId": repo,
                "sha": sha,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in found.commits[sha]],
            }
        )

    def tree(self, repo: str, revision: str) -> None:
        found, sha = self._commit(repo, revision)
        entries = []
        for path, content in found.commits[sha].items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_blob_id(content)}
            if is_lfs(path, len(content)):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        found, sha = self._commit(repo, revision)
        commit = {"X-Repo-Commit": sha}
        if file not in found.commits[sha]:
            raise _not_found("Entry")
        if found.gated and not self._authorized():
            raise _HubError(401, "GatedRepo", f"Access to model {repo} is restricted.")
        content = found.commits[sha][file]
        if is_lfs(file, len(content)):
            oid = sha256(content)
            self.hub.blobs[oid] = content
            headers = {
                **commit,
                "Location": f"{self.hub.url}/blob/{oid}/{file}",
                "X-Linked-Size": str(len(content)),
                "X-Linked-ETag": f'"{oid}"',
            }
            return self._send(302, b"", headers)
        oid = git_blob_id(content)
        self.hub.blobs[oid] = content
        headers = {**commit, "Location": f"/blob/{oid}/{file}", "ETag": f'"{oid}"'}
        headers["X-Linked-Size"] = str(len(content))
        return self._send(307, b"", headers)

    def blob(self, oid: str, file: str) -> None:
        content = self.hub.blobs[oid]
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        sha = next(
            (s for r in self.hub.repos.values() for s, t in r.commits.items() if t.get(file) == content), ""
        )
        headers["X-Repo-Commit"] = sha
        status = 200
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content, status = content[start:], 206
        cut = self.hub.cut.pop(file, None) if self.command == "GET" else None
        self._send(status, content, headers, cut)

    # -- uploads

    def create(self) -> None:
        self._writable()
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        if repo in self.hub.repos:
            return self._json({"url": f"{self.hub.url}/{repo}"}, 409)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.add(repo, private=private).commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.url}/{repo}", "id": "0"})

    def validate_yaml(self) -> None:
        text = json.loads(self.body)["content"]
        if not text.startswith("---\n"):
            return self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata"}]})
        return self._json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self._writable()
        found, sha = self._commit(repo, revision)
        self._json(
            {
                "files": [
                    {
                        "path": f["path"],
                        "uploadMode": "lfs" if is_lfs(f["path"], f["size"]) else "regular",
                        "shouldIgnore": False,
                        "oid": git_blob_id(found.commits[sha][f["path"]])
                        if f["path"] in found.commits[sha]
                        else None,
                    }
                    for f in json.loads(self.body)["files"]
                ]
            }
        )

    def lfs_batch(self, repo: str) -> None:
        self._writable()
        self._repo(repo)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.blobs:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs-upload/{wanted['oid']}"},
                    "verify": {"href": f"{self.hub.url}/lfs-verify"},
                }
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise _HubError(400, "", "content does not match its oid")
        self.hub.blobs[oid] = self.body
        self._send(200, b"", {"ETag": f'"{oid}"'})

    def lfs_verify(self) -> None:
        wanted = json.loads(self.body)
        found = len(self.hub.blobs.get(wanted["oid"], b"")) == wanted["size"]
        self._json({}, 200 if found else 404)

    def commit(self, repo: str, revision: str) -> None:
        self._writable()
        found, sha = self._commit(repo, revision)
        files = dict(found.commits[sha])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, sha):
                raise _HubError(412, "", "A commit has happened since.")
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        new = found.commit(files, revision)
        self._json(
            {
                "success": True,
                "commitOid": new,
                "commitUrl": f"{self.hub.url}/{repo}/commit/{new}",
                "hookOutput": "",
            }
        )


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
    ("GET", rf"/api/models/{_REPO}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", rf"/api/models/{_REPO}/tree/{_REVISION}/?", _Handler.tree),
    ("GET|HEAD", rf"/{_REPO}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve),
    ("GET|HEAD", r"/blob/(?P<oid>[0-9a-f]+)/(?P<file>.+)", _Handler.blob),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs-upload/(?P<oid>[0-9a-f]+)", _Handler.lfs_upload),
    ("POST", r"/lfs-verify", _Handler.lfs_verify),
    ("POST", rf"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
)
