"""Who calls, and what they may do: bearer tokens against a mounted file, on every request.

The file holds hashes, never tokens, and is read again when it changes. Health and reflection are
open to everyone: they tell nothing of adapters.
"""

import contextvars
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Digest, Model
from pydantic import Field, ValidationError

from loraland_inference import statuses
from loraland_inference.failures import PermissionDenied, Unauthenticated

log = logging.getLogger("loraland.auth")

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_TOKEN_BYTES = 4096
_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.")
_ROLE_BY_SERVICE = {
    "loraland.inference.v1.Inference": "inference",
    "loraland.inference.v1.Admin": "admin",
}


@dataclass(frozen=True)
class Caller:
    tenant: str
    roles: frozenset[str]
    # Of the engine's time, against that of others.
    weight: float = 1.0

    def may_use(self, tenants: list[str]) -> bool:
        return self.tenant in tenants or "*" in tenants


_current: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")


def caller() -> Caller:
    """Return who makes the current request; the interceptor has set it."""
    return _current.get()


class _Token(Model):
    sha256: Digest
    tenant: str = Field(min_length=1, max_length=63)
    roles: list[str] = ["inference"]
    weight: float = Field(default=1.0, ge=0.01, le=100)


class _TokensFile(Model):
    schema_version: int
    tokens: list[_Token] = Field(max_length=10_000)


class Tokens:
    """The tokens file, read again when its time, size or place changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._callers: list[tuple[bytes, Caller]] = []

    def authenticate(self, token: str) -> Caller:
        """Return the token's owner; raise ``Unauthenticated``."""
        self.refresh()
        sha256 = hashlib.sha256(token.encode()).hexdigest().encode()
        found = None
        # All are compared, so that the time taken tells nothing of which one came close.
        for known, owner in self._callers:
            if hmac.compare_digest(known, sha256):
                found = owner
        if found is None:
            raise Unauthenticated("the token is not known here; ask for a new one")
        return found

    def refresh(self) -> None:
        """Read the file if it changed. A broken one leaves the tokens before it in force."""
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version == self._version:
                return
            self._callers = _read(self._path)
        except (OSError, InvalidInput) as error:
            log.warning("tokens: %s cannot be read: %s", self._path, error)
            return
        self._version = version
        log.info("tokens: %d read", len(self._callers))


def _read(path: Path) -> list[tuple[bytes, Caller]]:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        document = _TokensFile.model_validate(json.loads(data[:MAX_FILE_BYTES]))
    except (ValueError, ValidationError) as error:
        # Not the error's own text: it may quote what stands in the file.
        raise InvalidInput("not a tokens file", field=str(path)) from error
    if document.schema_version > SCHEMA_VERSION:
        raise InvalidInput(f"schemaVersion {document.schema_version} is newer", field=str(path))
    return [
        (t.sha256.encode(), Caller(t.tenant, frozenset(t.roles), t.weight)) for t in document.tokens
    ]


class Interceptor(grpc.aio.ServerInterceptor):
    """Lets a request pass with its caller set, or answers it itself."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = str(handler_call_details.method)
        if method.startswith(_OPEN):
            return await continuation(handler_call_details)
        try:
            owner = self._tokens.authenticate(_bearer(handler_call_details.invocation_metadata))
            role = _ROLE_BY_SERVICE.get(method.split("/")[1], "")
            if role not in owner.roles:
                raise PermissionDenied(f"this call wants the role {role!r}")
        except (Unauthenticated, PermissionDenied) as error:
            return statuses.refusing_handler(error)
        _current.set(owner)
        return await continuation(handler_call_details)


def _bearer(metadata: Any) -> str:
    values = [value for key, value in metadata or () if key == "authorization"]
    if not values:
        raise Unauthenticated("send the metadata `authorization: Bearer <token>`")
    scheme, _, token = str(values[0]).partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated("`authorization` is not of the form `Bearer <token>`")
    return token.strip()
