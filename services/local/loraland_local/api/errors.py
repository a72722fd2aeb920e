"""Failures as the API words them: a `Status` with code, reason, message and details. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .kinds import ResourceType

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cause:
    """One thing that is wrong with one field."""

    reason: str
    message: str
    field: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    def json(self) -> Json:
        return {"reason": self.reason, "message": self.message, "field": self.field}


def invalid_value(field: str, value: str, why: str) -> Cause:
    """Return a cause; ``value`` is already written as it should appear."""
    return Cause("FieldValueInvalid", f"Invalid value: {value}: {why}", field)


def required_value(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", "Required value" + (f": {why}" if why else ""), field)


def forbidden_value(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def unsupported_value(field: str, value: str, supported: Sequence[str]) -> Cause:
    names = ", ".join(f'"{item}"' for item in supported)
    text = f"Unsupported value: {value}: supported values: {names}"
    return Cause("FieldValueNotSupported", text, field)


class ApiError(Exception):
    """A failure that is answered as a `Status` object."""

    def __init__(
        self, code: int, reason: str, message: str, *, details: Json | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Json:
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def qualified(resource: ResourceType) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def resource_details(resource: ResourceType, name: str) -> Json:
    details: Json = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details


def not_found(resource: ResourceType, name: str) -> ApiError:
    message = f'{qualified(resource)} "{name}" not found'
    return ApiError(404, "NotFound", message, details=resource_details(resource, name))


def already_exists(resource: ResourceType, name: str) -> ApiError:
    message = f'{qualified(resource)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=resource_details(resource, name))


def conflict(resource: ResourceType, name: str, why: str = "") -> ApiError:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=resource_details(resource, name))


def forbidden(resource: ResourceType, name: str, why: str) -> ApiError:
    subject = f'{qualified(resource)} "{name}"' if name else qualified(resource)
    message = f"{subject} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, details=resource_details(resource, name))


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Return 422 with all causes at once, in the order found; the message says each one once."""
    lines = list(dict.fromkeys(map(str, causes)))
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    qualified_kind = f"{kind}.{group}" if group else kind
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details |= {"kind": kind, "causes": [cause.json() for cause in causes]}
    return ApiError(
        422, "Invalid", f'{qualified_kind} "{name}" is invalid: {text}', details=details
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def internal(message: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", details={})
