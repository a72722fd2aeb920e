"""The Redis door: the operator's registry of adapters, and the replicas' heartbeats.

The operator is the only writer of records, epoch and change stream. Redis is never the only copy of
anything: the epoch says that a complete publication stands there, and without the very epoch that we
wrote everything is written again.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from loraland_core import keys, redis_connection
from loraland_core.errors import InvalidInput, Unavailable
from loraland_core.keys import AdapterRecord, Heartbeat, Residency
from loraland_core.redis_settings import RedisSettings

from loraland_operator.plan.fleet import Fleet

# Redis does nothing else during a transaction; thousands of records are written in several.
WRITE_CHUNK = 500
# A replica that missed its beats for so long is taken off the index.
FORGET_REPLICA_S = 600.0


# Returns the records that should stand there, by adapter id, and the ids of all adapters. A record
# that has a revision keeps it; one of a known adapter that is not wanted is left to its own plan.
Collect = Callable[[], Awaitable[tuple[Mapping[str, AdapterRecord], set[str]]]]


@dataclass
class _Shelf:
    """What we know to stand in the registry of one base model."""

    epoch: str = ""
    # Of the newest entry of the change stream. Whoever lost a write of ours has another one.
    entry_id: str = ""
    last_revision: int = 0
    records: dict[str, AdapterRecord] = field(default_factory=dict)


class Registry:
    """Registries by base model. All methods raise ``Unavailable`` where Redis does not answer."""

    def __init__(self, client: Any, *, clock: Callable[[], float] = time.time) -> None:
        # Asked before each write; whoever may not write any more does not return from it.
        self.before_write: Callable[[], None] = lambda: None
        self._client = client
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}
        # Revisions must reach the stream in their order, or a replica would claim too much.
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def close(self) -> None:
        await self._client.aclose()

    def find_record(self, base_model: str, adapter_id: str) -> AdapterRecord | None:
        """Return the record as we last wrote or read it; the registry must be published."""
        shelf = self._shelves.get(base_model)
        if shelf is None:
            raise Unavailable(f"the registry of {base_model} is not published yet", retry_after_s=1)
        return shelf.records.get(adapter_id)

    async def read_is_intact(self, base_model: str) -> bool:
        """Return whether the publication in Redis is the one that we wrote, to the last change.

        It is not after a loss, and not after a failover or a restart that lost what came last.
        """
        # Between our own write and our noting it, the two would differ as well.
        async with self._locks[base_model], _translated():
            shelf = self._shelves.get(base_model)
            epoch = await self._client.get(keys.epoch(base_model))
            entry_id, _ = await self._read_newest_change(base_model)
        return shelf is not None and (epoch, entry_id) == (shelf.epoch, shelf.entry_id)

    async def put(self, adapter_id: str, record: AdapterRecord) -> AdapterRecord:
        """Write one record under the next revision and return it."""
        base_model = record.base_model
        async with self._locks[base_model], _translated():
            shelf = self._shelf(base_model)
            revision = self._next_revision(shelf)
            written = record.model_copy(update={"revision": revision})
            shelf.entry_id = await self._write(base_model, {adapter_id: written}, (), revision)
            shelf.records[adapter_id] = written
        return written

    async def remove(self, base_model: str, adapter_id: str) -> None:
        """Remove one record; one that is not there is fine."""
        async with self._locks[base_model], _translated():
            shelf = self._shelf(base_model)
            revision = self._next_revision(shelf)
            shelf.entry_id = await self._write(base_model, {}, (adapter_id,), revision)
            shelf.records.pop(adapter_id, None)

    async def publish(self, base_model: str, collect: Collect) -> None:
        """Make the registry complete: write what differs, remove strangers, then set the epoch.

        No other write comes between ``collect`` and ours.
        """
        async with self._locks[base_model], _translated():
            wanted, known_ids = await collect()
            self._shelves[base_model] = await self._publish(base_model, wanted, known_ids)

    async def _publish(
        self, base_model: str, wanted: Mapping[str, AdapterRecord], known_ids: set[str]
    ) -> _Shelf:
        present = await self._read_records(base_model)
        kept = self._shelves.get(base_model, _Shelf())
        shelf = _Shelf()
        shelf.entry_id, newest_revision = await self._read_newest_change(base_model)
        shelf.last_revision = max(
            newest_revision,
            kept.last_revision,
            *(r.revision for r in (*present.values(), *wanted.values())),
        )
        changed: dict[str, AdapterRecord] = {}
        for id_, record in wanted.items():
            before = present.get(id_)
            if before is None or not record.same_content(before):
                revision = 0 if before is not None else record.revision
                revision = revision or self._next_revision(shelf)
                changed[id_] = record.model_copy(update={"revision": revision})
        strangers = tuple(id_ for id_ in present if id_ not in known_ids)
        revision = self._next_revision(shelf)
        if changed or strangers:
            shelf.entry_id = await self._write(base_model, changed, strangers, revision)
        shelf.records = {i: r for i, r in present.items() if i not in strangers} | changed
        epoch = keys.Epoch(revision=revision, num_adapters=len(shelf.records))
        shelf.epoch = epoch.to_json()
        self.before_write()
        await self._client.set(keys.epoch(base_model), shelf.epoch)
        return shelf

    async def read_fleet(self, base_model: str) -> Fleet:
        """Return the live replicas of a base model."""
        index = keys.replicas(base_model)
        async with _translated():
            long_ago = self._clock() - FORGET_REPLICA_S
            replicas = await self._client.zrangebyscore(index, long_ago, "+inf")
            if not replicas:
                return Fleet()
            beats = await self._client.mget([keys.beat(base_model, r) for r in replicas])
            residencies = await self._client.mget([keys.residency(base_model, r) for r in replicas])
        return Fleet(
            beats=tuple(b for b in map(_parse_heartbeat, beats) if b is not None),
            residencies=tuple(
                found
                for beat, found in zip(beats, map(_parse_residency, residencies), strict=True)
                if beat and found is not None
            ),
        )

    async def _write(
        self,
        base_model: str,
        changed: Mapping[str, AdapterRecord],
        removed: tuple[str, ...],
        revision: int,
    ) -> str:
        """Write records, each with its entry of the change stream; return the last entry's id."""
        hash_, stream = keys.adapters(base_model), keys.changes(base_model)
        writes = [*changed.items(), *((id_, None) for id_ in removed)]
        entry_id = ""
        for start in range(0, len(writes), WRITE_CHUNK):
            self.before_write()
            async with self._client.pipeline(transaction=True) as pipeline:
                for id_, record in writes[start : start + WRITE_CHUNK]:
                    if record is None:
                        pipeline.hdel(hash_, id_)
                        _announce(pipeline, stream, id_, revision, "delete")
                    else:
                        pipeline.hset(hash_, id_, record.to_json())
                        _announce(pipeline, stream, id_, record.revision, "put")
                entry_id = (await pipeline.execute())[-1]
        return entry_id

    async def _read_records(self, base_model: str) -> dict[str, AdapterRecord]:
        found: dict[str, AdapterRecord] = {}
        for id_, data in (await self._client.hgetall(keys.adapters(base_model))).items():
            try:
                found[id_] = keys.parse_adapter_record(data)
            except InvalidInput:
                # Not ours or not readable: as good as absent, and written again.
                found[id_] = AdapterRecord.model_construct(
                    base_model=base_model, digest="", uri="", size_bytes=0, rank=0, tenants=["-"]
                )
        return found

    async def _read_newest_change(self, base_model: str) -> tuple[str, int]:
        """Return id and revision of the change stream's last entry; nothing and 0 without one."""
        newest = await self._client.xrevrange(keys.changes(base_model), count=1)
        for entry_id, entry in newest:
            return entry_id, int(entry.get("revision", 0))
        return "", 0

    def _shelf(self, base_model: str) -> _Shelf:
        shelf = self._shelves.get(base_model)
        if shelf is None:
            raise Unavailable(f"the registry of {base_model} is not published yet", retry_after_s=1)
        return shelf

    def _next_revision(self, shelf: _Shelf) -> int:
        """Return a number that only grows, also when Redis was lost and the counter with it."""
        shelf.last_revision = max(shelf.last_revision + 1, int(self._clock() * 1000))
        return shelf.last_revision


def connect(settings: RedisSettings) -> Registry:
    """Return a registry on a client that gives up on a silent Redis within seconds.

    Sweep and queue try again by themselves; a client that did so as well, at each of its steps to a
    connection, would hold them for a minute.
    """
    client = redis_connection.connect(
        settings, client_name="loraland-operator", decode_responses=True
    )
    return Registry(client)


def _announce(pipeline: Any, stream: str, adapter_id: str, revision: int, op: str) -> None:
    pipeline.xadd(
        stream,
        {"adapter": adapter_id, "revision": str(revision), "op": op},
        maxlen=keys.CHANGES_MAX_LENGTH,
        approximate=True,
    )


def _parse_heartbeat(data: str | None) -> Heartbeat | None:
    try:
        return keys.parse_heartbeat(data) if data else None
    except InvalidInput:
        return None


def _parse_residency(data: str | None) -> Residency | None:
    try:
        return keys.parse_residency(data) if data else None
    except InvalidInput:
        return None


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
        redis_connection.raise_if_cancelled()
    except redis_connection.FAILURES as error:
        detail = redis_connection.describe(error)
        raise Unavailable(f"the registry (Redis) does not answer: {detail}") from error
