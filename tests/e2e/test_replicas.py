"""Two real replicas of one node over one Redis and one S3: routing, versions, drains and deaths."""

import asyncio
import signal
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import gate
import grpc
import pytest
import replicas
import servers
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loraland_client import CallFailed, Client
from loraland_core.keys import HEARTBEAT_TTL_S
from loraland_core.rpc import admin_pb2, admin_pb2_grpc
from loraland_core.store import Store, StoreConfig
from replicas import Land, Replica
from waiting import until, wait_for

Code = grpc.StatusCode
NAMES = ("replica-0", "replica-1")
NUM_SLOTS = 4
GRACE_S = 3
SHORT: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True}
LONG: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}


class World:
    """S3 behind a gate, Redis, and replicas that are started by name."""

    def __init__(self, land: Land, config: StoreConfig, s3: gate.Gate) -> None:
        self.land, self.config, self.s3 = land, config, s3
        self.replicas: dict[str, Replica] = {}
        self._stacks: dict[str, ExitStack] = {}

    def start(self, name: str) -> None:
        self._stacks[name] = ExitStack()
        settings = {
            "POD_NAME": name,
            "LORALAND_NUM_SLOTS": str(NUM_SLOTS),
            "LORALAND_DRAIN_GRACE_S": str(GRACE_S),
        }
        running = replicas.running(self.land, self.config, **settings)
        self.replicas[name] = self._stacks[name].enter_context(running)

    def stop(self, name: str) -> None:
        del self.replicas[name]
        self._stacks.pop(name).close()

    def close(self) -> None:
        for name in list(self._stacks):
            self.stop(name)

    def client(self, **options: Any) -> Client:
        """Return a client that knows both replicas."""
        return Client([r.address for r in self.replicas.values()], replicas.TOKEN, **options)

    def is_applied(self) -> bool:
        return all(self.land.is_applied(name) for name in NAMES)

    def add(self, *adapter_ids: str) -> None:
        # No two have the same content: an artifact with two names keeps its slot for either.
        for adapter_id in adapter_ids:
            self.land.add(adapter_id, seed=zlib.crc32(adapter_id.encode()))
        wait_for(self.is_applied)

    def resident(self, name: str) -> set[str]:
        """Return the digests in the replica's slots, as its residency tells."""
        return {r.digest for r in self.land.residency(name).values() if r.tier == "slot"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two replicas that share a disk, and no adapter yet."""
    folder = tmp_path_factory.mktemp("land")
    s3_port, redis_port = servers.free_port(), servers.free_port()
    with servers.s3_process(s3_port), servers.redis_process(redis_port):
        s3 = gate.Gate(s3_port)
        store = Store(_create_bucket(s3_port), credentials=dict(servers.S3_CREDENTIALS))
        gated = f"http://127.0.0.1:{s3.port}"
        base_folder, revision = replicas.build_base(folder)
        land = Land(folder, store, f"redis://127.0.0.1:{redis_port}/0", base_folder, revision)
        land.complete()
        built = World(land, store.config.model_copy(update={"endpoint_url": gated}), s3)
        try:
            for name in NAMES:
                built.start(name)
            yield built
        finally:
            built.close()
            s3.stop()
            store.close()


def _create_bucket(s3_port: int) -> StoreConfig:
    config = StoreConfig(bucket="land", endpoint_url=f"http://127.0.0.1:{s3_port}")
    client = boto3.session.Session().client(
        "s3", endpoint_url=config.endpoint_url, region_name="us-east-1", **servers.S3_CREDENTIALS
    )
    client.create_bucket(Bucket=config.bucket)
    client.close()
    return config


async def fail(client: Client, adapter: str) -> grpc.StatusCode:
    with pytest.raises(CallFailed) as caught:
        await client.generate(prompt="hello", adapter=adapter, **SHORT)
    return caught.value.code


async def test_adapters_divide_the_slots_of_both_replicas(world: World) -> None:
    """Asked for one after another, each adapter has one home, and none is loaded twice."""
    names = [f"default/home-{i}" for i in range(6)]
    world.add(*names)
    async with world.client() as client:
        for name in names * 3:
            await client.generate(prompt="hello", adapter=name, **SHORT)
    infos = []
    for replica in world.replicas.values():
        async with replica.client() as client:
            infos.append(await client.server_info())

    resident = [set(info.resident) & set(names) for info in infos]
    assert {info.replica for info in infos} == set(NAMES)
    assert resident[0] & resident[1] == set()
    assert all(len(found) <= NUM_SLOTS for found in resident)


async def test_new_digest_takes_over_on_every_replica_and_the_old_one_can_come_back(
    world: World,
) -> None:
    """In flight ends on the old, new is the new; published again, the old answers as it did."""
    name = "default/versions"
    world.add(name)
    old = world.land.records[name]
    old_manifest = world.land.upload(name, world.land.make(name, seed=zlib.crc32(name.encode())))
    new_manifest = world.land.upload(name, world.land.make(name, seed=50))
    async with ask_both(world) as clients:
        streams = [c.stream(prompt="hello", adapter=name, **LONG) for c in clients]
        begun = [await anext(stream) for stream in streams]
        first = [await c.generate(prompt="hello", adapter=name, **SHORT) for c in clients]
        new = world.land.publish(name, new_manifest)
        await until(world.is_applied)
        second = [await c.generate(prompt="hello", adapter=name, **SHORT) for c in clients]
        ends = [[piece async for piece in stream][-1] for stream in streams]
        await until(lambda: all(old.digest not in world.resident(n) for n in NAMES))
        world.land.publish(name, old_manifest)
        await until(world.is_applied)
        third = [await c.generate(prompt="hello", adapter=name, **SHORT) for c in clients]

    assert len(begun) == 2
    assert {end.digest for end in ends} == {a.digest for a in first} == {old.digest}
    assert {a.digest for a in second} == {new.digest}
    assert [a.token_ids for a in third] == [a.token_ids for a in first]
    assert {a.token_ids for a in second}.isdisjoint({a.token_ids for a in first})


class ask_both:  # noqa: N801 (used as a function)
    """A client for each replica, which tries once."""

    def __init__(self, world: World) -> None:
        self._clients = [r.client(max_attempts=1) for r in world.replicas.values()]

    async def __aenter__(self) -> list[Client]:
        return self._clients

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))


async def test_deleted_adapter_leaves_every_replica_within_the_grace_period(world: World) -> None:
    """New requests do not find it; it is in no tier once the last one that ran has ended."""
    name = "default/deleted"
    world.add(name)
    digest = world.land.records[name].digest
    async with ask_both(world) as clients:
        for client in clients:
            await client.generate(prompt="hello", adapter=name, **SHORT)
        await until(lambda: all(digest in world.resident(n) for n in NAMES))
        stream = clients[0].stream(prompt="hello", adapter=name, **LONG)
        await anext(stream)
        world.replicas[NAMES[0]].stop_engine()
        world.land.remove(name)
        await until(world.is_applied)
        codes = [await fail(client, name) for client in clients]
        with pytest.raises(CallFailed) as caught:
            _ = [piece async for piece in stream]
        world.replicas[NAMES[0]].continue_engine()
        await until(lambda: all(not world.land.residency(n).get(name) for n in NAMES))
        await until(lambda: not (world.land.folder / "cache" / "adapters" / digest).exists())
        infos = [await client.server_info() for client in clients]

    assert codes == [Code.NOT_FOUND] * 2
    assert caught.value.code == Code.NOT_FOUND
    assert [name in info.resident for info in infos] == [False, False]


async def test_replica_that_dies_in_a_stream_ends_it_once_and_vanishes(world: World) -> None:
    """Kill -9: the stream fails, the next request is answered by the other, the beat runs out."""
    name = "default/dying"
    world.add(name)
    async with world.client() as client, world.replicas[NAMES[0]].client() as first:
        stream = first.stream(prompt="hello", adapter=name, **LONG)
        await anext(stream)
        world.replicas[NAMES[0]].process.send_signal(signal.SIGKILL)
        with pytest.raises(CallFailed) as caught:
            _ = [piece async for piece in stream]
        after = await client.generate(prompt="hello", adapter=name, **SHORT)
        await until(lambda: world.land.heartbeat(NAMES[0]) is None, limit_s=HEARTBEAT_TTL_S + 30)
    await asyncio.to_thread(world.stop, NAMES[0])
    await asyncio.to_thread(world.start, NAMES[0])
    await until(world.is_applied)

    assert caught.value.code == Code.UNAVAILABLE
    assert after.completion_tokens == 8


async def test_replica_that_dies_in_a_download_leaves_nothing_half_written(world: World) -> None:
    """The other one fetches for itself; the restarted one finds a whole file and no other."""
    name = "default/half"
    world.add(name)
    with world.s3.closed():
        async with world.replicas[NAMES[0]].client(max_attempts=1) as first:
            waiting = asyncio.create_task(first.generate(prompt="x", adapter=name, **SHORT))
            # It has the node's turn to download, and waits for S3.
            await until(world.land.leases)
            world.replicas[NAMES[0]].process.send_signal(signal.SIGKILL)
            with pytest.raises(CallFailed):
                await waiting
    async with world.replicas[NAMES[1]].client() as second:
        answer = await second.generate(prompt="x", adapter=name, timeout_s=100, **SHORT)
    await asyncio.to_thread(world.stop, NAMES[0])
    await asyncio.to_thread(world.start, NAMES[0])
    await until(world.is_applied)
    async with world.replicas[NAMES[0]].client() as first:
        again = await first.generate(prompt="x", adapter=name, **SHORT)

    assert again.token_ids == answer.token_ids
    assert (_partials(world), world.land.leases()) == ([], [])


def _partials(world: World) -> list[str]:
    """Return what is half written, by whichever process, alive or dead."""
    folder = world.land.folder / "cache" / "adapters"
    return [path.name for path in folder.glob(".work-*/fetch-*")]


async def test_callers_of_both_do_not_notice_that_one_drains(world: World) -> None:
    """SIGTERM under load: every request is answered, the replica ends with 0 and is gone."""
    names = [f"default/drained-{i}" for i in range(4)]
    world.add(*names)
    leaving = world.replicas[NAMES[0]].process
    async with world.client(max_attempts=9) as client:
        answers = []
        for index in range(40):
            if index == 8:
                leaving.send_signal(signal.SIGTERM)
            batch = [client.generate(prompt="hello", adapter=n, **SHORT) for n in names]
            answers += await asyncio.gather(*batch)
            if index > 8 and leaving.poll() is not None:
                break
        code = await asyncio.to_thread(leaving.wait, 40)
        gone = world.land.heartbeat(NAMES[0])

    assert {len(a.token_ids) for a in answers} == {8}
    assert (code, gone) == (0, None)
    await asyncio.to_thread(world.stop, NAMES[0])
    await asyncio.to_thread(world.start, NAMES[0])
    await until(world.is_applied)


async def test_stream_that_outlasts_the_grace_period_of_a_drain_is_told_so(world: World) -> None:
    """An engine that stands still: the replica ends all the same, and says to ask another."""
    world.add("default/endless")
    replica = world.replicas[NAMES[1]]
    async with replica.client(max_attempts=1) as client:
        stream = client.stream(prompt="hello", adapter="default/endless", **LONG)
        await anext(stream)
        replica.stop_engine()
        num_running, status = await drain(replica)
        with pytest.raises(CallFailed, match="stopping") as caught:
            _ = [piece async for piece in stream]
        code = await asyncio.to_thread(replica.process.wait, 40)
    await asyncio.to_thread(world.stop, NAMES[1])

    assert (num_running, status) == (1, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert (caught.value.code, code) == (Code.UNAVAILABLE, 0)


async def drain(replica: Replica) -> tuple[int, Any]:
    """Ask a replica to drain; return how many requests it has, and what its health says."""
    metadata = (("authorization", f"Bearer {replicas.ADMIN_TOKEN}"),)
    async with grpc.aio.insecure_channel(replica.address) as channel:
        admin = admin_pb2_grpc.AdminStub(channel)
        reply = await admin.Drain(admin_pb2.DrainRequest(), metadata=metadata, timeout=20)
        health = health_pb2_grpc.HealthStub(channel)
        status = health_pb2.HealthCheckResponse.SERVING
        while status == health_pb2.HealthCheckResponse.SERVING:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            status = answer.status
    return reply.num_running, status
