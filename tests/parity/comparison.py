"""Compares what happened in a replayed step with the recording. No I/O."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import recordings
from embedded import Exchange
from recordings import Difference
from replay import Outcome

Json = dict[str, Any]

# What is answered otherwise on purpose: steps (none named: all), where, and why.
LEFT_OUT: tuple[tuple[tuple[int, ...], str, str], ...] = (
    (
        (1, 70),
        r"version|^stdout|^stderr|compiler|gitCommit|goVersion",
        "the server names its own version and build, not those of a Go program",
    ),
    (
        (2,),
        r"^stdout",
        "resources of other programs on the recorded server, and dynamic resource allocation",
    ),
    (
        (61,),
        r"^stream",
        "streaming lists work here; the recorded server had them switched off",
    ),
    (
        (),
        r"projected\.sources",
        "the recorded server adds a source for a certificate of its vendor to every pod's token",
    ),
    (
        (0,),
        r"^GET /api/v1/namespaces.items",
        "the recorded server had one namespace more",
    ),
    (
        (99,),
        r"message|stderr|causes",
        "the refusal ends with a difference of Go structs; here it is one of JSON",
    ),
)


def reason(step: int, difference: Difference) -> str | None:
    """Say why a difference is meant; None if it is a fault."""
    for steps, pattern, why in LEFT_OUT:
        if (not steps or step in steps) and re.search(pattern, difference.where):
            return why
    return None


def _is_document(path: str) -> bool:
    """Discovery and schemas are fetched whenever a client's cache says so."""
    return urlsplit(path).path in {"/api", "/apis"} or path.startswith("/openapi")


def _is_stream(path: str) -> bool:
    return "watch=" in path


def _key(method: str, path: str) -> tuple[str, str]:
    """Name a request by what it asks for, in whatever order its selector's terms come."""
    parts = urlsplit(path)
    query = [
        (name, ",".join(sorted(re.sub(r"uid=[\w-]+", "uid=", value).split(","))))
        for name, value in parse_qsl(parts.query)
        if name not in {"timeoutSeconds", "resourceVersion"}
    ]
    return method, f"{parts.path}?{sorted(query)}"


def compare(step: Json, outcome: Outcome, exchanges: list[Exchange]) -> list[Difference]:
    found = _compare_output(step, outcome)
    if step["command"].startswith("curl") and _is_stream(step["command"]):
        return found + _compare_lines(step["stdout"] or "", outcome.stdout)
    real = [entry for entry in step["exchanges"] if not _is_document(entry["request"]["path"])]
    ours = [entry for entry in exchanges if not _is_document(entry.path)]
    if step["command"].startswith("curl"):
        real, ours = step["exchanges"], exchanges
    for entry in real:
        request, response = entry["request"], entry["response"]
        if _is_stream(request["path"]):
            continue
        key = _key(request["method"], request["path"])
        match = next((one for one in ours if _key(one.method, one.path) == key), None)
        if match is None:
            if not _follows_stream(request["path"]):
                found.append(Difference(f"request {' '.join(key)}", "sent", "not sent"))
            continue
        ours.remove(match)
        found += compare_exchange(
            f"{request['method']} {urlsplit(request['path']).path}", response, match
        )
    return found


def _follows_stream(path: str) -> bool:
    """A list that a client asked for only because its streaming list was refused."""
    return "resourceVersion=0" in path


def compare_exchange(where: str, real: Json, ours: Exchange) -> list[Difference]:
    if real["status"] == 304 or ours.status == 304:
        return []
    found = []
    if real["status"] != ours.status:
        found.append(Difference(f"{where} status", real["status"], ours.status))
    body = real.get("body")
    if not isinstance(body, dict) or "$bytes" in body or "$truncated" in body:
        return found
    if body.get("kind") == "Status" and ours.body is not None:
        return found + _compare_status(where, body, ours.body)
    if ours.body is None:
        return [*found, Difference(where, "a body", ours.content_type)]
    return found + recordings.differences(
        recordings.normal(body), recordings.normal(ours.body), where
    )


def _compare_status(where: str, real: Json, ours: Json) -> list[Difference]:
    found = []
    for key in ("status", "reason", "code", "details"):
        one, other = recordings.normal(real.get(key)), recordings.normal(ours.get(key))
        found += recordings.differences(one, other, f"{where} {key}")
    one, other = str(real.get("message", "")), str(ours.get("message", ""))
    if not recordings.same_message(one, other):
        found.append(Difference(f"{where} message", recordings.plain(one), recordings.plain(other)))
    return found


def _compare_output(step: Json, outcome: Outcome) -> list[Difference]:
    found = []
    if step["exitCode"] != outcome.exit_code:
        found.append(Difference("exit code", step["exitCode"], outcome.exit_code))
    if step["command"].startswith("kubectl"):
        real, ours = step["stdout"] or "", outcome.stdout
        if len(real) >= 1500:
            real = real[:1400]
            ours = ours[: len(real) * 2]
            one, other = recordings.plain(real), recordings.plain(ours)
            if one[:900] != other[:900]:
                found.append(Difference("stdout", one[:900], other[:900]))
        elif not recordings.same_message(real, ours):
            found.append(Difference("stdout", recordings.plain(real), recordings.plain(ours)))
        if not recordings.same_message(step["stderr"] or "", outcome.stderr):
            real = recordings.plain(step["stderr"] or "")
            found.append(Difference("stderr", real, recordings.plain(outcome.stderr)))
    return found


def _compare_lines(real: str, ours: str) -> list[Difference]:
    """Compare two watch streams event by event."""
    one = [recordings.normal(json.loads(line)) for line in real.splitlines() if line.strip()]
    other = [recordings.normal(json.loads(line)) for line in ours.splitlines() if line.strip()]
    return recordings.differences(one, other, "stream")
