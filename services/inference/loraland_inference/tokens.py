"""The tokens file: who may call, by token or by certificate, and how much each tenant may take.

A mounted Secret. It holds hashes, never tokens, and is read again when it changes.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Digest, Model
from pydantic import Field, ValidationError, model_validator

from loraland_inference.failures import Unauthenticated
from loraland_inference.limits import Limits

log = logging.getLogger("loraland.auth")

SCHEMA_VERSION = 1
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 10_000
Tenant = Field(min_length=1, max_length=63)


@dataclass(frozen=True)
class Caller:
    """A tenant's right to call."""

    tenant: str
    roles: frozenset[str]
    # Of the engine's time, against that of others.
    weight: float = 1.0
    limits: Limits = field(default_factory=Limits)

    def may_use(self, tenants: list[str]) -> bool:
        return self.tenant in tenants or "*" in tenants


class _Limits(Model):
    """As in the file: what is absent is the default's, what is null is unlimited."""

    max_concurrent_requests: int | None = Field(default=None, ge=1)
    requests_per_second: float | None = Field(default=None, gt=0)
    tokens_per_second: float | None = Field(default=None, gt=0)
    burst_seconds: float = Field(default=10.0, ge=1, le=3600)

    def over(self, defaults: "_Limits") -> Limits:
        own = {name: getattr(self, name) for name in self.model_fields_set}
        merged = defaults.model_copy(update=own)
        return Limits(
            max_requests=merged.max_concurrent_requests,
            requests_per_s=merged.requests_per_second,
            tokens_per_s=merged.tokens_per_second,
            burst_s=merged.burst_seconds,
        )


class _Entry(Model):
    tenant: str = Tenant
    roles: list[str] = ["inference"]
    weight: float = Field(default=1.0, ge=0.01, le=100)


class _Token(_Entry):
    sha256: Digest


class _Certificate(_Entry):
    """Exactly one of the two names that a certificate can have."""

    uri: str | None = Field(default=None, min_length=1, max_length=2048)
    common_name: str | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.uri is None) == (self.common_name is None):
            raise ValueError("give one of uri, commonName")
        return self


class _TokensFile(Model):
    schema_version: int
    tokens: list[_Token] = Field(default=[], max_length=MAX_ENTRIES)
    certificates: list[_Certificate] = Field(default=[], max_length=MAX_ENTRIES)
    default_limits: _Limits = _Limits()
    limits: dict[str, _Limits] = Field(default={}, max_length=MAX_ENTRIES)


@dataclass(frozen=True)
class _Callers:
    """What one reading of the file says."""

    by_sha256: dict[str, Caller] = field(default_factory=dict)
    by_uri: dict[str, Caller] = field(default_factory=dict)
    by_common_name: dict[str, Caller] = field(default_factory=dict)

    @property
    def num_callers(self) -> int:
        return len(self.by_sha256) + len(self.by_uri) + len(self.by_common_name)

    @property
    def tenants(self) -> frozenset[str]:
        found = (*self.by_sha256.values(), *self.by_uri.values(), *self.by_common_name.values())
        return frozenset(caller.tenant for caller in found)


class Tokens:
    """The callers of the file, read again when its time, size or place changes.

    ``on_read`` hears whether each reading of a changed file went well, and the tenants in force.
    """

    def __init__(
        self, path: Path, on_read: Callable[[bool, frozenset[str]], None] = lambda *_: None
    ) -> None:
        self._path = path
        self._on_read = on_read
        # Unlike any version, and unlike a file that is not there.
        self._version: tuple[int, ...] | None = ()
        self._callers = _Callers()

    def authenticate(self, token: str) -> Caller:
        """Return the token's owner; raise ``Unauthenticated``."""
        self.refresh()
        # A look-up's time may tell how a hash begins, which tells nothing of the token.
        sha256 = hashlib.sha256(token.encode()).hexdigest()
        found = self._callers.by_sha256.get(sha256)
        if found is None:
            raise Unauthenticated("the token is not known here; ask for a new one")
        return found

    def recognize(self, uris: Sequence[str], common_names: Sequence[str]) -> Caller:
        """Return whom a certificate's names speak for; a URI counts before a common name."""
        self.refresh()
        callers = self._callers
        found = [callers.by_uri[u] for u in uris if u in callers.by_uri]
        found += [callers.by_common_name[n] for n in common_names if n in callers.by_common_name]
        if not found:
            raise Unauthenticated(
                "none of the certificate's names is known here; ask for it to be added, or send a"
                " token"
            )
        return found[0]

    def refresh(self) -> None:
        """Read the file if it changed. A broken one leaves what it said before in force."""
        version = file_version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            callers = _read(self._path)
        except (OSError, InvalidInput) as error:
            log.warning(
                "tokens: %s cannot be read, what it said before stays: %s", self._path, error
            )
            self._on_read(False, self._callers.tenants)
            if isinstance(error, OSError) and version:
                # It is there: the next call may have more luck.
                self._version = ()
            return
        self._callers = callers
        log.info("tokens: %d callers of %d tenants", callers.num_callers, len(callers.tenants))
        self._on_read(True, callers.tenants)


def file_version(path: Path) -> tuple[int, ...] | None:
    """Return what changes when Kubernetes swaps the link to a Secret's files; None: not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> _Callers:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"has more than {MAX_FILE_BYTES} bytes", field=str(path))
    try:
        document = _TokensFile.model_validate(json.loads(data))
    except ValidationError as error:
        # Where, not what: the text of the error may quote what stands in the file.
        places = {".".join(str(p) for p in e["loc"]) or "the document" for e in error.errors()}
        places_text = ", ".join(sorted(places)[:5])
        raise InvalidInput(f"not a tokens file: see {places_text}", field=str(path)) from None
    except ValueError:
        raise InvalidInput("not a tokens file: it is no JSON", field=str(path)) from None
    if document.schema_version > SCHEMA_VERSION:
        raise InvalidInput(f"schemaVersion {document.schema_version} is newer", field=str(path))
    return _index(document)


def _index(document: _TokensFile) -> _Callers:
    def caller(entry: _Entry) -> Caller:
        own = document.limits.get(entry.tenant, _Limits())
        limits = own.over(document.default_limits)
        return Caller(entry.tenant, frozenset(entry.roles), entry.weight, limits)

    certificates = document.certificates
    return _Callers(
        by_sha256={t.sha256: caller(t) for t in document.tokens},
        by_uri={c.uri: caller(c) for c in certificates if c.uri is not None},
        by_common_name={
            c.common_name: caller(c) for c in certificates if c.common_name is not None
        },
    )
