"""Writes who asked for what, a JSON line a request, as a real API server's audit log does."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from aiohttp.typedefs import Handler

_API_VERSION = "audit.k8s.io/v1"


def middleware(path: Path) -> Any:
    """Return the middleware that appends to the file; of a request's body nothing is written."""
    file = path.open("a", buffering=1)

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun = dt.datetime.now(dt.UTC)
        code = 0
        try:
            response = await handler(request)
            code = response.status
            return response
        finally:
            _write(file, request, begun, code)

    return record


def _write(file: IO[str], request: web.Request, begun: dt.datetime, code: int) -> None:
    event = {
        "kind": "Event",
        "apiVersion": _API_VERSION,
        "stage": "ResponseComplete",
        "verb": request.method.lower(),
        "requestURI": request.path_qs,
        "userAgent": request.headers.get("User-Agent", ""),
        "responseStatus": {"code": code},
        "requestReceivedTimestamp": begun.isoformat(timespec="microseconds"),
    }
    file.write(json.dumps(event) + "\n")
