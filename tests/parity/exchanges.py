"""Replays recorded exchanges one by one: what kopf and Helm asked for, and what they were told."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import comparison
import recordings
from embedded import TOKEN, Exchange, Running

Json = dict[str, Any]


class Versions:
    """Knows which of our versions and uids stand for the recorded ones."""

    def __init__(self) -> None:
        self._ours: dict[str, str] = {}

    def learn(self, real: Any, ours: Any) -> None:
        if isinstance(real, dict) and isinstance(ours, dict):
            for key in ("resourceVersion", "uid"):
                if isinstance(real.get(key), str) and isinstance(ours.get(key), str):
                    self._ours[real[key]] = ours[key]
            for key in real.keys() & ours.keys():
                self.learn(real[key], ours[key])
        elif isinstance(real, list) and isinstance(ours, list):
            for one, other in zip(real, ours, strict=False):
                self.learn(one, other)

    def translated(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.translated(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.translated(entry) for entry in value]
        return self._ours.get(value, value) if isinstance(value, str) else value


def _is_replayable(exchange: Json) -> bool:
    """Streams, documents that depend on a client's cache and binary bodies are left out."""
    request, response = exchange["request"], exchange["response"]
    path, body = request["path"], request.get("body")
    if "watch=" in path or path.startswith("/openapi") or response["status"] == 304:
        return False
    if urlsplit(path).path in {"/version", "/api", "/apis"}:
        return False
    if "/secrets" in path or "resourceVersion=0" in path:
        return False  # Helm's secrets are binary; a client's second list overlaps other requests
    return not (isinstance(body, dict) and "$bytes" in body)


def _send(server: Running, request: Json, body: Any) -> Exchange:
    agent = "kopf" if request.get("accept") == "*/*" else "kubectl"
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": f"{agent}/1"}
    if request.get("accept"):
        headers["Accept"] = request["accept"].replace("application/vnd.kubernetes.protobuf,", "")
    if request.get("contentType"):
        headers["Content-Type"] = request["contentType"]
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(  # noqa: S310 - the server is ours
        server.url + request["path"], data=data, headers=headers, method=request["method"]
    )
    context = ssl.create_default_context(cafile=str(server.authority))
    try:
        with urllib.request.urlopen(message, context=context, timeout=10) as reply:  # noqa: S310
            status, text, kind = reply.status, reply.read(), reply.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            status, text, kind = error.code, error.read(), error.headers["Content-Type"]
    parsed = json.loads(text) if "json" in (kind or "") else None
    return Exchange(request["method"], request["path"], status, kind or "", parsed)


def replay(steps: list[Json], server: Running) -> dict[str, list[recordings.Difference]]:
    """Send every replayable request in order; returns what was answered otherwise."""
    versions = Versions()
    found: dict[str, list[recordings.Difference]] = {}
    for step in steps:
        for number, exchange in enumerate(step["exchanges"]):
            if not _is_replayable(exchange):
                continue
            request, real = exchange["request"], exchange["response"]
            ours = _send(server, request, versions.translated(request.get("body")))
            versions.learn(real.get("body"), ours.body)
            name = f"{request['method']} {urlsplit(request['path']).path}"
            faults = comparison.compare_exchange(name, real, ours)
            found[f"{step['step']}.{number} {name}"] = faults
    return found
