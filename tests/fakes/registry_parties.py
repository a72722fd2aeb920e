"""The two sides of a registry, both real, in one process: the operator's and a replica's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from loraland_core import keys, redis_connection, redis_settings
from loraland_core.errors import Unavailable
from loraland_core.keys import AdapterRecord
from loraland_core.redis_settings import RedisSettings
from loraland_inference.adapters.link import Link
from loraland_inference.adapters.presence import Presence
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.registry_reader import RegistryReader
from loraland_operator import registry as operator_registry

BASE = "tiny"
LIMIT_S = 90.0


def settings(url: str, **environ: str) -> RedisSettings:
    named = {f"LORALAND_REDIS_{name}": value for name, value in environ.items()}
    # The shortest timeout there is, so that tests of silence are short.
    return redis_settings.read({"LORALAND_REDIS_URL": url, "LORALAND_REDIS_TIMEOUT_S": "2"} | named)


def build_record(digest: str = "a" * 64, **changes: Any) -> AdapterRecord:
    named = {"base_model": BASE, "digest": digest, "uri": "s3://b/a/", "size_bytes": 1, "rank": 4}
    return AdapterRecord(**{**named, "tenants": ["default"]} | changes)


class Operator:
    """Wants some records to stand there, and sees to it as the real one does."""

    def __init__(self, where: RedisSettings) -> None:
        self.registry = operator_registry.connect(where)
        self.wanted: dict[str, AdapterRecord] = {}

    async def sweep(self) -> None:
        """Publish everything where it does not stand as it was written."""
        if not await self.registry.read_is_intact(BASE):
            await self.registry.publish(BASE, self._collect)

    async def put(self, adapter_id: str, record: AdapterRecord) -> AdapterRecord:
        """Write one record, however long Redis takes to be there again."""
        self.wanted[adapter_id] = record
        while True:
            with suppress(Unavailable):
                await self.sweep()
                self.wanted[adapter_id] = await self.registry.put(adapter_id, record)
                return self.wanted[adapter_id]
            await asyncio.sleep(0.2)

    async def replicas(self) -> list[str]:
        fleet = await self.registry.read_fleet(BASE)
        return [beat.replica for beat in fleet.beats]

    async def _collect(self) -> tuple[dict[str, AdapterRecord], set[str]]:
        return self.wanted, set(self.wanted)


class Replica:
    """Reads the registry and beats, as a server does; finds every artifact good."""

    def __init__(self, where: RedisSettings, name: str = "r0") -> None:
        self.registry = Registry()
        self.links = {"registry": Link("served on"), "presence": Link("not seen")}
        self.name = name
        self._clients = [
            redis_connection.connect(where, client_name="test", login=login)
            for login in (where.registry_login, where.login)
        ]
        self.reader = RegistryReader(
            self._clients[0], BASE, self.registry, link=self.links["registry"]
        )
        self.presence = Presence(
            self._clients[1],
            heartbeat=self._heartbeat,
            residency=lambda: keys.Residency(replica=name),
            link=self.links["presence"],
        )
        self.registry.on_change = self._verify
        self.registry.on_judged = self.presence.tell

    def digest(self, adapter_id: str) -> str | None:
        record = self.registry.records.get(adapter_id)
        return record.digest if record else None

    def is_down(self) -> bool:
        return all(link.problem for link in self.links.values())

    def is_up(self) -> bool:
        return all(link.is_up for link in self.links.values()) and self.registry.is_known

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    def _verify(self) -> None:
        for adapter_id, record in self.registry.unverified():
            self.registry.set_verified(adapter_id, record, None)

    def _heartbeat(self) -> keys.Heartbeat:
        return keys.Heartbeat(
            replica=self.name,
            address="127.0.0.1:1",
            base_model=BASE,
            max_rank=16,
            num_slots=1,
            num_free_slots=1,
            queue_depth=0,
            applied_revision=self.registry.applied_revision,
            rejected=self.registry.rejections(),
        )


@asynccontextmanager
async def running_replica(where: RedisSettings, name: str = "r0") -> AsyncIterator[Replica]:
    replica = Replica(where, name)
    tasks = [asyncio.create_task(replica.reader.run()), asyncio.create_task(replica.presence.run())]
    try:
        yield replica
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await replica.close()


@asynccontextmanager
async def running_operator(where: RedisSettings) -> AsyncIterator[Operator]:
    operator = Operator(where)
    try:
        yield operator
    finally:
        await operator.registry.close()


async def until(condition: Any) -> None:
    """Wait for a condition, plain or awaitable, within a generous limit; ``Unavailable`` is a no."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with suppress(Unavailable):
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return
            await asyncio.sleep(0.05)


async def converged(operator: Operator, replica: Replica, record: AdapterRecord) -> None:
    """Wait until the replica is seen, and has said that it applied the record."""

    async def has_applied() -> bool:
        await operator.sweep()
        fleet = await operator.registry.read_fleet(BASE)
        return any(
            b.replica == replica.name and b.applied_revision >= record.revision for b in fleet.beats
        )

    await until(has_applied)
    await until(replica.is_up)
