"""Reads the registry of one base model from Redis and follows its changes. Never writes to it.

Whatever happens to Redis, what has been read stays; see ``registry``.
"""

import asyncio
import logging
import random
from typing import Any

import redis.asyncio
import redis.exceptions
from loraland_core import keys
from loraland_core.errors import InvalidInput
from loraland_core.keys import AdapterRecord

from loraland_inference.adapters.registry import Registry

log = logging.getLogger("loraland.registry")

POLL_S = 1.0
# A change that was lost (a trimmed stream, a failover) is seen after this long at the latest.
REREAD_EVERY_S = 30.0
MAX_BACKOFF_S = 15.0
SCAN_COUNT = 500


class RegistryReader:
    """Keeps a ``Registry`` up to date until cancelled."""

    def __init__(self, client: redis.asyncio.Redis, base_model: str, registry: Registry) -> None:
        # Untyped: redis-py declares the replies of every client and protocol at once.
        self._redis: Any = client
        self._base_model = base_model
        self._registry = registry
        self._epoch: bytes | None = None
        self._last_id = b"0-0"

    async def run(self) -> None:
        backoff_s = 0.5
        while True:
            try:
                await self._follow()
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("redis does not answer, what is known is served on: %s", error)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311 (jitter)
                backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)
            else:
                backoff_s = 0.5

    async def _follow(self) -> None:
        """Read everything, then the changes, until it is time to read everything again."""
        self._epoch = await self._redis.get(keys.epoch(self._base_model))
        if self._epoch is None:
            if self._registry.is_known:
                log.warning("the registry's epoch is gone; nothing is unloaded because of it")
            self._registry.forget_completeness()
            await asyncio.sleep(POLL_S)
            return
        await self._read_all()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REREAD_EVERY_S
        while loop.time() < until_s and await self._is_same_epoch():
            await self._read_changes()

    async def _is_same_epoch(self) -> bool:
        return bool(await self._redis.get(keys.epoch(self._base_model)) == self._epoch)

    async def _read_all(self) -> None:
        # The stream's end first: a change during the reading is read again, never missed.
        newest = await self._redis.xrevrange(keys.changes(self._base_model), count=1)
        self._last_id = newest[0][0] if newest else b"0-0"
        records: dict[str, AdapterRecord] = {}
        async for key, value in self._redis.hscan_iter(
            keys.adapters(self._base_model), count=SCAN_COUNT
        ):
            record = _parse(key.decode(), value)
            if record is not None:
                records[key.decode()] = record
        revision = keys.parse_epoch(self._epoch or b"").revision
        if newest:
            revision = max(revision, int(newest[0][1].get(b"revision", 0)))
        self._registry.replace(records, revision)

    async def _read_changes(self) -> None:
        stream = keys.changes(self._base_model)
        reply = await self._redis.xread({stream: self._last_id}, block=int(POLL_S * 1000))
        entries: list[tuple[bytes, dict[bytes, bytes]]] = reply[0][1] if reply else []
        if not entries:
            return
        ids = [fields[b"adapter"].decode() for _, fields in entries]
        values = await self._redis.hmget(keys.adapters(self._base_model), ids)
        for (entry_id, fields), adapter_id, value in zip(entries, ids, values, strict=True):
            record = _parse(adapter_id, value) if value is not None else None
            if value is None or record is not None:
                self._registry.apply(adapter_id, record, int(fields.get(b"revision", 0)))
            self._last_id = entry_id


def _parse(adapter_id: str, value: bytes) -> AdapterRecord | None:
    try:
        return keys.parse_adapter_record(value)
    except InvalidInput as error:
        log.warning("the record of %s cannot be read: %s", adapter_id, error)
        return None
