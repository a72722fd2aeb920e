"""A small Hugging Face Hub for tests: data sets and models of the test's own, over HTTP.

It answers what the Hub's clients ask for when they read: repository information, listings, files.
What a real one refuses is refused in its words: an unknown repository (401 to strangers, 404 to
others), a revision or a file that is not there, a gated repository, and 429 where a test orders it.
Point a process at it with ``HF_ENDPOINT``; for this process there is ``point_here``.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hub_listing
import pytest
from hub_listing import Files

TOKEN = "hf_reader"
STRANGERS_TOKEN = "hf_stranger"
# Below /api: the kind, the repository's id, and what is asked of it.
_API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
    r"(?:/(?P<act>revision|tree|paths-info)/(?P<revision>[^/]+)(?P<path>/.*)?)?$"
)
_MAY_READ = re.compile(r"^/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)/auth-check$")
_FILE = re.compile(
    r"^/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$"
)


@dataclass(frozen=True)
class Repository:
    """One repository: the files of each branch or tag."""

    revisions: Mapping[str, Files]
    # Only ``TOKEN`` may read its files; that it exists, and what they are called, is public.
    gated: bool = False
    # Only ``TOKEN`` may read it, and nobody else is told that it exists.
    private: bool = False

    def find(self, revision: str) -> tuple[str, Files] | None:
        """Return commit and files of a branch, a tag or a commit."""
        for name, files in self.revisions.items():
            commit = hub_listing.commit_of(files)
            if revision in (name, commit):
                return commit, files
        return None


@dataclass
class Fault:
    """Answers with ``status`` the next ``times`` requests whose path contains ``part``."""

    status: int
    times: int = 1
    part: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    status: int
    authorization: str


class Hub:
    """What the server holds, what it shall do wrong, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self._repositories: dict[tuple[str, str], Repository] = {}

    def add_dataset(self, id_: str, files: Files | Repository) -> None:
        self._add("datasets", id_, files)

    def add_model(self, id_: str, files: Files | Repository) -> None:
        self._add("models", id_, files)

    def _add(self, kind: str, id_: str, files: Files | Repository) -> None:
        whole = files if isinstance(files, Repository) else Repository({"main": files})
        self._repositories[kind, id_] = whole

    def find(self, kind: str, id_: str) -> Repository | None:
        return self._repositories.get((kind, id_))

    def take_fault(self, path: str) -> Fault | None:
        """Return what goes wrong with this request, and count it."""
        for fault in self.faults:
            if fault.times > 0 and fault.part in path:
                fault.times -= 1
                return fault
        return None


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, as a repository holds them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    hub: Hub

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length).decode() if length else ""
        path = urlsplit(self.path).path
        fault = self.hub.take_fault(path)
        if fault is not None:
            self._answer(fault.status, b"{}", **fault.headers)
            return
        if match := _MAY_READ.match(path):
            if self._find(match["kind"], match["id"], needs_files=True):
                self._answer(200, b"")
        elif match := _API.match(path):
            self._api(match)
        elif match := _FILE.match(path):
            self._file(match)
        else:
            self._answer(404, b"{}")

    def _find(self, kind: str, id_: str, *, needs_files: bool) -> Repository | None:
        """Return the repository, or refuse as the Hub does."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        repository = self.hub.find(kind, id_)
        if token and token not in (TOKEN, STRANGERS_TOKEN):
            message = "Invalid credentials in Authorization header"
            self._answer(
                401, json.dumps({"error": message}).encode(), **{"X-Error-Message": message}
            )
        elif repository is None or (repository.private and token != TOKEN):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif needs_files and repository.gated and token != TOKEN:
            self._refuse(403 if token else 401, "GatedRepo", "Access to this is restricted.")
        else:
            return repository
        return None

    def _open(
        self, kind: str, match: re.Match[str], *, needs_files: bool
    ) -> tuple[str, Files] | None:
        """Return commit and files, or refuse as the Hub does."""
        repository = self._find(kind, match["id"], needs_files=needs_files)
        if repository is None:
            return None
        revision = unquote(match["revision"] or "main")
        found = repository.find(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _api(self, match: re.Match[str]) -> None:
        kind = match["kind"]
        found = self._open(kind, match, needs_files=False)
        if found is None:
            return
        commit, files = found
        below = unquote(match["path"] or "").strip("/")
        if match["act"] == "tree" and below and below not in hub_listing.folders(files):
            self._refuse(404, "EntryNotFound", f"{below} does not exist")
        elif match["act"] == "tree":
            self._answer_json(hub_listing.tree(files, below, self.path))
        elif match["act"] == "paths-info":
            wanted = parse_qs(self._body).get("paths", [])
            self._answer_json(
                [entry for path in wanted for entry in hub_listing.look_up(files, path)]
            )
        else:
            self._answer_json(
                {
                    "id": match["id"],
                    "sha": commit,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                    "siblings": [
                        {
                            "rfilename": path,
                            "size": len(content),
                            "blobId": hub_listing.oid(content),
                        }
                        for path, content in files.items()
                    ],
                }
            )

    def _file(self, match: re.Match[str]) -> None:
        found = self._open("datasets" if match["kind"] else "models", match, needs_files=True)
        if found is None:
            return
        commit, files = found
        content = files.get(unquote(match["path"]))
        if content is None:
            self._refuse(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
            return
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hub_listing.oid(content)}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        range_ = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range") or "")
        if range_ is None:
            self._answer(200, content, **headers)
            return
        start = int(range_[1])
        stop = min(int(range_[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
        self._answer(206, content[start : stop + 1], **headers)

    def _refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(status, body, **headers, **{"X-Error-Code": code, "X-Error-Message": message})

    def _answer_json(self, document: Any) -> None:
        self._answer(200, json.dumps(document).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.hub.requests.append(
            Request(self.command, self.path, status, self.headers.get("Authorization") or "")
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the inherited name
        """Say nothing: the hub keeps the requests."""


@contextmanager
def running() -> Iterator[Hub]:
    """Serve an empty hub on a free port of loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_here(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let this process's clients ask the hub, as ``HF_ENDPOINT`` does that of a new process.

    They read the variable once, when they are imported, and keep what they downloaded.
    """
    import datasets  # noqa: PLC0415 (slow to import, and only where it is needed)
    from huggingface_hub import constants  # noqa: PLC0415

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    urls = f"{hub.url}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", urls)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(cache / "modules"))
