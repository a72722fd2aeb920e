"""What the API says when it refuses. Pure, no I/O."""

import contextlib
import json
from typing import Any


class ApiError(Exception):
    """The API refused a request, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message or reason or f"HTTP status {status}")
        self.status = status
        self.reason = reason

    @property
    def is_not_found(self) -> bool:
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        return self.status == 409 and self.reason == "Conflict"

    @property
    def is_already_there(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def is_gone(self) -> bool:
        return self.status == 410


def parse(http_status: int, text: str) -> ApiError:
    """Read a ``Status`` object, or whatever else came with an HTTP status."""
    body: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        decoded = json.loads(text)
        body = decoded if isinstance(decoded, dict) else {}
    status = int(body.get("code") or http_status)
    return ApiError(status, str(body.get("reason", "")), str(body.get("message") or text[:500]))
