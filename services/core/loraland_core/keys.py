"""Redis: key names, lifetimes and the records behind them. No I/O.

Redis coordinates and is never the only copy of anything. The braces put all keys of a base model
into one slot of a Redis Cluster. Only the operator writes ``adapters``, ``epoch`` and ``changes``.
"""

import json
from typing import TypeVar

from pydantic import Field, ValidationError

from loraland_core.errors import InvalidInput
from loraland_core.resources.common import Model

SCHEMA_VERSION = 1
HEARTBEAT_EVERY_S = 2.0
HEARTBEAT_TTL_S = 8
# Renewed while a download lasts; what a dead owner leaves keeps its neighbours waiting so long.
LEASE_TTL_S = 20
CHANGES_MAX_LENGTH = 10_000
MAX_REJECTED = 100
MAX_FAILING = 100
MAX_ERROR_LENGTH = 300


def adapters(base_model: str) -> str:
    """Hash: adapter id ``namespace/name`` → ``AdapterRecord``."""
    return f"ll:v1:{{{base_model}}}:adapters"


def epoch(base_model: str) -> str:
    """String: ``Epoch``, there after a complete publication. Without it the registry is unknown."""
    return f"ll:v1:{{{base_model}}}:epoch"


def changes(base_model: str) -> str:
    """Stream, capped: ``adapter`` and ``revision`` of each record written or removed."""
    return f"ll:v1:{{{base_model}}}:changes"


def beat(base_model: str, replica: str) -> str:
    """String with a TTL: ``Heartbeat``."""
    return f"ll:v1:{{{base_model}}}:beat:{replica}"


def residency(base_model: str, replica: str) -> str:
    """String with a TTL: ``Residency``; written when it changes, its TTL renewed by the beat."""
    return f"ll:v1:{{{base_model}}}:residency:{replica}"


def replicas(base_model: str) -> str:
    """Sorted set: replica → time of its last beat in seconds. The index; nothing is scanned."""
    return f"ll:v1:{{{base_model}}}:replicas"


def use(base_model: str) -> str:
    """Sorted set: adapter id → log2 of its uses, weighed by ``2 ** (time of use / half-life)``."""
    return f"ll:v1:{{{base_model}}}:use"


def lease(node: str, digest: str) -> str:
    """String with a TTL: who downloads an artifact to a node."""
    return f"ll:v1:lease:{node}:{digest}"


class _Record(Model):
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        return json.dumps(
            self.model_dump(by_alias=True, exclude_none=True), sort_keys=True, separators=(",", ":")
        )


class AdapterRecord(_Record):
    """What a replica needs to know of an adapter."""

    base_model: str
    digest: str
    uri: str
    size_bytes: int
    rank: int
    target_modules: list[str] = []
    pinned: bool = False
    priority: int = 0
    prefetch: bool = False
    # Tenants that may use it; ``*`` for everyone. Never empty.
    tenants: list[str] = Field(min_length=1)
    # Grows with every write of the registry of this base model.
    revision: int = 0

    def same_content(self, other: "AdapterRecord") -> bool:
        return self.model_copy(update={"revision": other.revision}) == other


class Epoch(_Record):
    revision: int
    num_adapters: int


class Rejection(Model):
    digest: str
    reason: str
    message: str = ""


class Heartbeat(_Record):
    """A replica's sign of life; small, written every ``HEARTBEAT_EVERY_S``."""

    replica: str
    address: str
    base_model: str
    resolved_revision: str = ""
    max_rank: int
    num_slots: int
    num_free_slots: int
    queue_depth: int
    # Every record up to this revision has been read, and applied or rejected.
    applied_revision: int = 0
    # By adapter id; at most ``MAX_REJECTED``.
    rejected: dict[str, Rejection] = {}
    draining: bool = False


class ResidentAdapter(Model):
    digest: str
    tier: str
    # Why it is no nearer, where the last attempt to bring it failed.
    error: str | None = None


class Residency(_Record):
    """Which adapters a replica holds nearer than S3, or fails to bring, by adapter id."""

    replica: str
    adapters: dict[str, ResidentAdapter] = {}


def parse_adapter_record(data: str | bytes) -> AdapterRecord:
    return _parse(AdapterRecord, data)


def parse_epoch(data: str | bytes) -> Epoch:
    return _parse(Epoch, data)


def parse_heartbeat(data: str | bytes) -> Heartbeat:
    return _parse(Heartbeat, data)


def parse_residency(data: str | bytes) -> Residency:
    return _parse(Residency, data)


R = TypeVar("R", bound=_Record)


def _parse(model: type[R], data: str | bytes) -> R:
    try:
        record = model.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput(error.errors()[0]["msg"], field=model.__name__) from error
    if record.schema_version > SCHEMA_VERSION:
        raise InvalidInput(
            f"schemaVersion {record.schema_version} is newer than {SCHEMA_VERSION}; upgrade",
            field=model.__name__,
        )
    return record
