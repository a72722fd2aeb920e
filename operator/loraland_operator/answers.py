"""What the API server's answers mean: errors that say what to do. Pure."""

import json

from loraland_core import names
from loraland_core.errors import InvalidInput, LoraLandError, NotFound, Unavailable


class Stale(Unavailable):
    """The object changed between our look and our write: look again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=0.1)


class FieldConflict(InvalidInput):
    """A server-side apply met fields that somebody else owns."""


class Expired(Unavailable):
    """A list's next page is of a state that the API server no longer has: begin it anew."""


class Forbidden(Unavailable):
    """Rights or a quota do not allow it; both are changed without us."""


class AlreadyExists(LoraLandError):
    """An object of this name is there already."""


_FOR_NOW: dict[int, tuple[type[Unavailable], float]] = {403: (Forbidden, 20.0), 410: (Expired, 0.1)}


def translate(http_status: int, data: bytes, retry_after: str | None) -> LoraLandError:
    """Return the error of ours that says what to do about the API server's answer."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {}
    message = str(answer.get("message") or data[:500].decode(errors="replace"))
    reason = answer.get("reason")
    if http_status == 404:
        return NotFound(message)
    if http_status == 409:
        causes = (answer.get("details") or {}).get("causes") or []
        if any(c.get("reason") == "FieldManagerConflict" for c in causes):
            return FieldConflict(message, reason=names.Reason.NAME_TAKEN)
        return AlreadyExists(message) if reason == "AlreadyExists" else Stale(message)
    if http_status in (400, 415, 422):
        return InvalidInput(message, reason=names.Reason.INVALID_SPEC)
    if http_status in _FOR_NOW:
        error, retry_after_s = _FOR_NOW[http_status]
        return error(message, retry_after_s=retry_after_s)
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else 5.0
    return Unavailable(f"Kubernetes API answered {http_status}: {message}", retry_after_s=seconds)
