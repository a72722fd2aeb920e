"""How an answer is written: JSON, a table, metadata only, a Status. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from . import errors, tables
from .kinds import ResourceType
from .storage import encode

Json = dict[str, Any]

TABLE, PARTIAL, WHOLE = "Table", "PartialObjectMetadata", ""


def wanted_form(accept: str) -> str:
    """Return what form of an object a client prefers."""
    for part in accept.split(","):
        parameters = dict(item.strip().split("=", 1) for item in part.split(";")[1:] if "=" in item)
        form = parameters.get("as", "")
        if form == TABLE:
            return TABLE
        if form.startswith(PARTIAL):
            return PARTIAL
        if part.strip().startswith(("application/json", "*/*")) and not form:
            return WHOLE
    return WHOLE


def json_reply(
    body: Any, *, status: int = 200, warnings: Iterable[str] = (), content_type: str = ""
) -> web.Response:
    data = body if isinstance(body, bytes) else encode(body) + b"\n"
    reply = web.Response(body=data, status=status)
    reply.headers["Content-Type"] = content_type or "application/json"
    for warning in warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        reply.headers.add("Warning", f'299 - "{escaped}"')
    return reply


def error_reply(error: errors.ApiError) -> web.Response:
    reply = json_reply(error.status(), status=error.code)
    if error.code == 504:
        reply.headers["Retry-After"] = "1"
    return reply


def not_found_text() -> web.Response:
    reply = web.Response(body=b"404 page not found\n", status=404)
    reply.headers["Content-Type"] = "text/plain; charset=utf-8"
    return reply


def cached(body: bytes, if_none_match: str, content_type: str) -> web.Response:
    """Answer 304 to a client that has this very document."""
    tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
    if tag in if_none_match:
        return web.Response(status=304, headers={"ETag": tag})
    headers = {"ETag": tag, "Vary": "Accept", "Content-Type": content_type}
    return web.Response(body=body, headers=headers)


def objects_reply(
    objects: list[Json], resource: ResourceType, form: str, metadata: Json, include: str
) -> Json:
    """Return a list in a form other than the objects themselves."""
    if form == TABLE:
        return tables.table(objects, tables.layout(resource), metadata, include)
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "items": [tables.partial(obj) for obj in objects],
    }


def object_in_form(obj: Json, resource: ResourceType, form: str, include: str) -> Json:
    if form == TABLE:
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return tables.table([obj], tables.layout(resource), metadata, include)
    return tables.partial(obj) if form == PARTIAL else obj


def watch_renderer(resource: ResourceType, form: str, include: str) -> Callable[[Json], Any]:
    """Return how a watch writes each object; only the first table names its columns."""
    if form == PARTIAL:
        return tables.partial
    if form != TABLE:
        return lambda obj: obj
    layout = tables.layout(resource)
    first = [True]

    def render(obj: Json) -> Json:
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        table = tables.table([obj], layout, metadata, include)
        if not first[0]:
            table["columnDefinitions"] = None
        first[0] = False
        return table

    return render
