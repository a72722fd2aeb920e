"""Reads the registry of one base model from Redis and follows its changes. Never writes to it.

Whatever happens to Redis, what has been read stays; see ``registry``. Redis may come back empty (no
epoch: unknown), with an older state than ours (a snapshot, a replica that lagged: not believed until
the operator has published again), or without some changes (a gap: everything is read again).
"""

import asyncio
import logging
import random
from typing import Any

from loraland_core import keys, redis_connection
from loraland_core.errors import InvalidInput
from loraland_core.keys import AdapterRecord, Rejection

from loraland_inference.adapters import records
from loraland_inference.adapters.link import Link
from loraland_inference.adapters.registry import Registry

log = logging.getLogger("loraland.registry")

# How long Redis holds a request for changes; below the client's timeout.
POLL_S = 1.0
# Every gap that we know of is noticed; what else may go wrong is mended after this.
REREAD_EVERY_S = 300.0
SCAN_COUNT = 500
# Whoever is behind so many changes reads everything. Far less than the stream keeps, so that none
# can have been cut off unseen.
MAX_CHANGES = 1000
assert MAX_CHANGES < keys.CHANGES_MAX_LENGTH

_START = b"0-0"


class RegistryReader:
    """Keeps a ``Registry`` up to date until cancelled. ``client`` gives bytes."""

    def __init__(
        self, client: Any, base_model: str, registry: Registry, *, link: Link | None = None
    ) -> None:
        self._redis = client
        self._epoch_key = keys.epoch(base_model)
        self._hash_key = keys.adapters(base_model)
        self._stream_key = keys.changes(base_model)
        self._registry = registry
        self._link = link or Link("what is known is served on")
        self._epoch = b""
        self._last_id = _START
        # An epoch whose state was older than what we knew.
        self._outdated: bytes | None = None
        # What each record was parsed from: an unchanged one is not parsed again.
        self._parsed: dict[str, tuple[bytes, records.Entry]] = {}

    async def run(self) -> None:
        while True:
            redis_connection.raise_if_cancelled()
            try:
                await self._follow()
                self._link.worked()
            except (*redis_connection.FAILURES, InvalidInput) as error:
                await asyncio.sleep(self._link.failed(error))

    async def _follow(self) -> None:
        """Read everything, then the changes, until it is time to read everything again."""
        epoch = await self._redis.get(self._epoch_key)
        self._link.worked()
        if epoch is None:
            if self._registry.is_known:
                log.warning("the registry's epoch is gone; nothing is unloaded because of it")
            self._registry.forget_completeness()
            await asyncio.sleep(POLL_S)
            return
        if not await self._read_all(epoch):
            await asyncio.sleep(POLL_S)
            return
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REREAD_EVERY_S * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        while loop.time() < until_s and await self._is_same_registry():
            redis_connection.raise_if_cancelled()
            if not await self._read_changes():
                return
            self._link.worked()

    async def _is_same_registry(self) -> bool:
        """Whether the publication is the one that we have read, and its changes are not behind us."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(self._epoch_key)
            pipe.xrevrange(self._stream_key, count=1)
            epoch, newest = await pipe.execute()
        if epoch != self._epoch:
            return False
        return _order(newest[0][0] if newest else _START) >= _order(self._last_id)

    async def _read_all(self, epoch: bytes) -> bool:
        """Read every record; False where the reading is not to be believed."""
        parsed_epoch = keys.parse_epoch(epoch)
        # The stream's end first: a change during the reading is read again, never missed.
        newest = await self._redis.xrevrange(self._stream_key, count=1)
        parsed: dict[str, tuple[bytes, records.Entry]] = {}
        async for key, value in self._redis.hscan_iter(self._hash_key, count=SCAN_COUNT):
            parsed[key.decode()] = (value, self._parse(key.decode(), value))
        if await self._redis.get(self._epoch_key) != epoch:
            # Emptied or published anew meanwhile: half of what was read may be missing.
            return False
        found = {adapter_id: record for adapter_id, (_, (record, _)) in parsed.items()}
        revision = max(
            parsed_epoch.revision,
            int(newest[0][1].get(b"revision", 0)) if newest else 0,
            *(record.revision for record in found.values()),
        )
        if self._is_outdated(epoch, revision):
            return False
        self._epoch, self._outdated, self._parsed = epoch, None, parsed
        self._last_id = newest[0][0] if newest else _START
        refused = {i: rejection for i, (_, (_, rejection)) in parsed.items() if rejection}
        self._registry.replace(found, revision, refused)
        return True

    def _is_outdated(self, epoch: bytes, revision: int) -> bool:
        """Whether Redis has gone back behind what we know, and nobody has published since."""
        if revision >= self._registry.read_revision or self._outdated not in {None, epoch}:
            return False
        if self._outdated is None:
            log.warning(
                "redis has an older registry (revision %d) than was read before (%d); what is known"
                " is served on until the operator publishes again",
                *(revision, self._registry.read_revision),
            )
        self._outdated = epoch
        self._registry.forget_completeness()
        return True

    async def _read_changes(self) -> bool:
        """Take what is new, waiting for it a while; False where too much is new to follow."""
        reply = await self._redis.xread(
            {self._stream_key: self._last_id}, count=MAX_CHANGES, block=int(POLL_S * 1000)
        )
        entries: list[tuple[bytes, dict[bytes, bytes]]] = reply[0][1] if reply else []
        if not entries:
            return True
        if len(entries) == MAX_CHANGES:
            return False
        # The newest change of an adapter tells all: the hash has no older state.
        revisions = {
            fields[b"adapter"].decode(): int(fields.get(b"revision", 0)) for _, fields in entries
        }
        values = await self._redis.hmget(self._hash_key, list(revisions))
        for (adapter_id, revision), value in zip(revisions.items(), values, strict=True):
            record, rejection = self._take(adapter_id, value)
            self._registry.apply(adapter_id, record, revision, rejection)
        self._last_id = entries[-1][0]
        return True

    def _take(
        self, adapter_id: str, value: bytes | None
    ) -> tuple[AdapterRecord | None, Rejection | None]:
        if value is None:
            self._parsed.pop(adapter_id, None)
            return None, None
        entry = self._parse(adapter_id, value)
        self._parsed[adapter_id] = (value, entry)
        return entry

    def _parse(self, adapter_id: str, value: bytes) -> records.Entry:
        before = self._parsed.get(adapter_id)
        return before[1] if before and before[0] == value else records.parse(adapter_id, value)


def _order(entry_id: bytes) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition(b"-")
    return int(time_ms), int(number)
