"""Some replicas of a measured land, in one process: what reads the registry and beats, and no more.

``registry`` starts it; it says on standard output when a revision is visible, and ends with its
standard input.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from loraland_core import redis_acl, redis_connection, redis_settings
from loraland_core.keys import AdapterRecord, Heartbeat, Residency, ResidentAdapter
from loraland_core.redis_settings import RedisSettings
from loraland_inference.adapters.presence import Presence
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.registry_reader import RegistryReader

BASE, HOST = "measured", "127.0.0.1"
NUM_RESIDENT = 64


def settings(environ: Mapping[str, str], user: str) -> RedisSettings:
    registry = {
        redis_settings.REGISTRY_USER: redis_acl.REGISTRY,
        redis_settings.REGISTRY_PASSWORD: environ[f"PASSWORD_{redis_acl.REGISTRY}"],
    }
    login = {
        redis_settings.USER: user,
        redis_settings.PASSWORD: environ[f"PASSWORD_{user}"],
    }
    return redis_settings.read({**environ, **login, **registry})


def record(number: int) -> AdapterRecord:
    digest = f"{number:064x}"
    return AdapterRecord(
        base_model=BASE,
        digest=digest,
        uri=f"s3://loraland/land/adapters/land/adapter-{number}/{digest}/",
        size_bytes=3_700_000,
        rank=8,
        target_modules=["q_proj", "v_proj"],
        tenants=["land"],
    )


async def _replicate(first: int, count: int) -> None:
    """Be some replicas: say on standard output when a revision is visible, until told to end."""
    async with AsyncExitStack() as stack:
        for number in range(first, first + count):
            await _start_replica(f"replica-{number}", stack)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        await reader.read()


async def _start_replica(name: str, stack: AsyncExitStack) -> None:
    where = settings(os.environ, redis_acl.REPLICA)
    registry = Registry()
    logins = (where.registry_login, where.login)
    clients = [redis_connection.connect(where, client_name="bench", login=it) for it in logins]
    reader = RegistryReader(clients[0], BASE, registry)
    started_s = time.time()

    def verify() -> None:
        for adapter_id, record in registry.unverified():
            registry.set_verified(adapter_id, record, None)
        _say(event="visible", replica=name, revision=registry.read_revision, started_s=started_s)

    presence = Presence(
        clients[1],
        heartbeat=lambda: heartbeat(name, registry),
        residency=lambda: residency(name, registry),
    )
    registry.on_change, registry.on_judged = verify, presence.tell
    for client in clients:
        stack.push_async_callback(client.aclose)
    for work in (reader.run(), presence.run()):
        task = asyncio.create_task(work)
        stack.callback(task.cancel)


def residency(name: str, registry: Registry) -> Residency:
    """Return what a server says: looks through all records for those that it holds."""
    held = [(i, record) for i, record in registry.records.items() if record.digest][:NUM_RESIDENT]
    near = {i: ResidentAdapter(digest=record.digest, tier="disk") for i, record in held}
    return Residency(replica=name, adapters=near)


def heartbeat(name: str, registry: Registry) -> Heartbeat:
    return Heartbeat(
        replica=name,
        address=f"{HOST}:8500",
        base_model=BASE,
        resolved_revision="r" * 40,
        max_rank=16,
        num_slots=32,
        num_free_slots=4,
        queue_depth=7,
        applied_revision=registry.applied_revision,
        rejected=registry.rejections(),
    )


def _say(**event: Any) -> None:
    print(json.dumps({**event, "at_s": time.time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(_replicate(int(sys.argv[1]), int(sys.argv[2])))
