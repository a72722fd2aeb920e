"""A real replica over a real S3 and a real Redis: who gets which answer, and what goes wrong how."""

import asyncio
import json
import os
import signal
import uuid
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
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from loraland_client import CallFailed
from loraland_core import artifacts, keys
from loraland_core.rpc import admin_pb2, admin_pb2_grpc
from loraland_core.store import Store, StoreConfig
from replicas import ADMIN_TOKEN, OTHER_TOKEN, TOKEN, Land, Replica
from waiting import until, wait_for

Code = grpc.StatusCode
SHORT: dict[str, Any] = {"max_tokens": 8, "ignore_eos": True}
LONG: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}


class World:
    """One replica, the servers behind it, and the operator's part."""

    def __init__(self, land: Land, config: StoreConfig, s3: gate.Gate, redis_port: int) -> None:
        self.land, self.config, self.s3, self.redis_port = land, config, s3, redis_port
        self.replica: Replica
        self._redis = ExitStack()

    def start_redis(self) -> None:
        self._redis.enter_context(servers.redis_process(self.redis_port))

    def stop_redis(self) -> None:
        self._redis.close()


@pytest.fixture(scope="module")
def world(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A replica with two adapters of the tenant default, one of other, one of everyone."""
    folder = tmp_path_factory.mktemp("land")
    s3 = gate.Gate(int(s3_url.rsplit(":", 1)[1]))
    config = StoreConfig(
        bucket=f"land-{uuid.uuid4().hex[:8]}",
        prefix="p",
        endpoint_url=f"http://127.0.0.1:{s3.port}",
    )
    client = boto3.session.Session().client(
        "s3", endpoint_url=s3_url, region_name="us-east-1", **servers.S3_CREDENTIALS
    )
    client.create_bucket(Bucket=config.bucket)
    client.close()
    base_folder, revision = replicas.build_base(folder)
    store = Store(config.model_copy(update={"endpoint_url": s3_url}), credentials=_credentials())
    port = servers.free_port()
    land = Land(folder, store, f"redis://127.0.0.1:{port}/0", base_folder, revision)
    built = World(land, config, s3, port)
    built.start_redis()
    try:
        land.add("default/one", seed=1)
        land.add("default/two", seed=2, rank=8)
        land.add("other/hidden", seed=3)
        land.complete()
        with replicas.running(land, config, LORALAND_STEP_LIMIT_S="8") as replica:
            built.replica = replica
            wait_for(land.is_applied)
            yield built
    finally:
        built.stop_redis()
        s3.stop()
        store.close()


def _credentials() -> dict[str, str]:
    return dict(servers.S3_CREDENTIALS)


async def failure(
    world: World, token: str = replicas.TOKEN, attempts: int = 1, **request: Any
) -> CallFailed:
    """Return how a request fails at the last attempt."""
    async with world.replica.client(token, max_attempts=attempts) as client:
        with pytest.raises(CallFailed) as caught:
            await client.generate(**{"prompt": "hello"} | request)
    return caught.value


async def test_adapters_and_base_answer_side_by_side(world: World) -> None:
    """Each answers as itself, whatever shares its batch, and names its digest."""
    names = ["", "default/one", "default/two"]
    async with world.replica.client() as client:
        alone = [await client.generate(prompt="hello", adapter=n, **SHORT) for n in names]
        together = await asyncio.gather(
            *(client.generate(prompt="hello", adapter=n, **SHORT) for n in names * 4)
        )

    digests = ["", *(world.land.records[n].digest for n in names[1:])]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone] * 4
    assert [c.digest for c in alone] == digests
    assert len({c.token_ids for c in alone}) == 3


async def test_stream_gives_the_same_answer_in_pieces(world: World) -> None:
    """The pieces make the whole; the last alone tells why it ended."""
    async with world.replica.client() as client:
        whole = await client.generate(prompt="hello", adapter="default/one", **SHORT)
        pieces = [p async for p in client.stream(prompt="hello", adapter="default/one", **SHORT)]

    assert "".join(p.text for p in pieces) == whole.text
    assert [t for p in pieces for t in p.token_ids] == list(whole.token_ids)
    assert [p.finish_reason for p in pieces] == [""] * 7 + ["length"]


async def test_prompt_is_found_again_by_its_own_tenant_alone(world: World) -> None:
    """The same tokens, of the base model: the caller's usage says what was not computed."""
    prompt = "a prompt of more than three blocks, and of forty-eight bytes"
    found = []
    for token in (TOKEN, TOKEN, OTHER_TOKEN):
        async with world.replica.client(token) as client:
            found.append(await client.generate(prompt=prompt, **SHORT))

    assert [c.cached_prompt_tokens for c in found] == [0, 48, 0]
    assert len({c.token_ids for c in found}) == 1


async def test_inputs_of_every_kind_reach_the_model(world: World) -> None:
    """Fields go through the adapter's own template, chats through the base model's."""
    async with world.replica.client() as client:
        fields = await client.generate(fields={"question": "x"}, adapter="default/one", **SHORT)
        prompt = await client.generate(prompt="Q: x\nA:", adapter="default/one", **SHORT)
        chat = await client.generate(messages=[{"role": "user", "content": "x"}], **SHORT)
        scores = await client.score(["abc", "x"], prompt="hello", adapter="default/one")

    assert fields.token_ids == prompt.token_ids
    assert chat.prompt_tokens > 3
    assert all(score.logprob < 0 for score in scores)


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        ({"adapter": "default/absent"}, Code.NOT_FOUND, ""),
        ({"adapter": "other/hidden"}, Code.NOT_FOUND, ""),
        ({"adapter": "Nonsense!"}, Code.INVALID_ARGUMENT, "adapter"),
        ({"temperature": -1}, Code.INVALID_ARGUMENT, "sampling.temperature"),
        ({"max_tokens": 10_000}, Code.INVALID_ARGUMENT, "sampling.max_tokens"),
        ({"prompt": "x" * 300}, Code.INVALID_ARGUMENT, "input"),
        ({"prompt": "x" * 600_000}, Code.INVALID_ARGUMENT, "input.prompt"),
        ({"prompt": None, "fields": {"q": "x"}}, Code.INVALID_ARGUMENT, "input.fields"),
        ({"token": "wrong"}, Code.UNAUTHENTICATED, ""),
        ({"token": ""}, Code.UNAUTHENTICATED, ""),
        ({"timeout_s": 0.05, **LONG}, Code.DEADLINE_EXCEEDED, ""),
    ],
    ids=[
        "absent", "hidden", "malformed", "temperature", "max-tokens", "context", "prompt-bytes",
        "no-template", "wrong-token", "no-token", "deadline",
    ],
)  # fmt: skip
async def test_bad_request_gets_its_status_and_field(
    world: World, request_: dict[str, Any], code: grpc.StatusCode, field: str
) -> None:
    """Status and field tell the caller what to fix."""
    found = await failure(world, **request_)

    assert (found.code, found.details.field) == (code, field)


async def test_caller_sees_only_its_own_adapters(world: World) -> None:
    """A listing shows what the caller may name."""
    async with world.replica.client(OTHER_TOKEN) as client:
        listed = [a.adapter for a in await client.list_adapters()]
        answer = await client.generate(prompt="x", adapter="other/hidden", **SHORT)

    assert listed == ["other/hidden"]
    assert answer.digest == world.land.records["other/hidden"].digest


def damage(world: World, kind: str) -> tuple[artifacts.Manifest, str]:
    """Upload an adapter with one fault; return its manifest and the id to publish it under."""
    name = f"default/{kind}"
    folder = world.land.make(name, seed=9)
    changes = {"other-base": {"base_model": "another"}, "rank": {"rank": 64}}.get(kind, {})
    manifest = world.land.upload(name, folder, **changes)
    prefix = artifacts.adapter_prefix("default", kind, manifest.digest)
    if kind == "flipped-byte":
        data = bytearray((folder / artifacts.WEIGHTS_FILE).read_bytes())
        data[-1] ^= 1
        world.land.store.write(prefix + artifacts.WEIGHTS_FILE, bytes(data))
    if kind == "no-manifest":
        world.land.store.delete_prefix(prefix)
    if kind == "pickle":
        document = json.loads(manifest.to_json())
        document["files"].append({"path": "a.bin", "sizeBytes": 1, "sha256": "0" * 64})
        world.land.store.write(prefix + artifacts.MANIFEST_FILE, json.dumps(document).encode())
    return manifest, name


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("flipped-byte", "DigestMismatch"),
        ("no-manifest", "ManifestMissing"),
        ("pickle", "ArtifactInvalid"),
        ("other-base", "BaseModelMismatch"),
        ("rank", "RankOverLimit"),
    ],
)
async def test_bad_artifact_is_refused_and_others_are_untouched(
    world: World, kind: str, reason: str
) -> None:
    """The reason reaches the caller and the heartbeat; a neighbour goes on answering."""
    manifest, name = damage(world, kind)
    world.land.publish(name, manifest)
    await until(world.land.is_applied, limit_s=20)

    found = await failure(world, adapter=name)
    async with world.replica.client() as client:
        neighbour = await client.generate(prompt="hello", adapter="default/one", **SHORT)
    await until(lambda: name in (beat.rejected if (beat := world.land.heartbeat()) else {}))

    beat = world.land.heartbeat()
    assert (found.code, found.details.reason) == (Code.FAILED_PRECONDITION, reason)
    assert beat is not None
    assert beat.rejected[name].reason == reason
    assert neighbour.completion_tokens == 8


async def test_requests_go_on_while_an_adapter_is_fetched_slowly(world: World) -> None:
    """The one that names it waits; the others do not."""
    world.land.add("default/slow", seed=5)
    await until(world.land.is_applied, limit_s=20)
    async with world.replica.client() as client:
        with world.s3.closed():
            waiting = asyncio.create_task(
                client.generate(prompt="hello", adapter="default/slow", **SHORT)
            )
            names = ["", "default/one", "default/two"]
            others = [await client.generate(prompt="hello", adapter=n, **SHORT) for n in names]
            was_waiting = not waiting.done()
        slow = await waiting

    assert (was_waiting, [o.completion_tokens for o in others]) == (True, [8, 8, 8])
    assert slow.digest == world.land.records["default/slow"].digest
    assert slow.adapter_load_s > 0


async def test_new_digest_under_a_name_takes_over(world: World) -> None:
    """Requests after the change get the new artifact; one in flight ends on the old one."""
    name, engine = "default/changing", world.replica.engine_pid()
    old = world.land.add(name, seed=6)
    manifest = world.land.upload(name, world.land.make(name, seed=7))
    await until(world.land.is_applied, limit_s=20)
    async with world.replica.client() as client:
        stream = client.stream(prompt="hello", adapter=name, **LONG)
        before = [await anext(stream)]
        os.kill(engine, signal.SIGSTOP)
        new = world.land.publish(name, manifest)
        await until(world.land.is_applied, limit_s=20)
        os.kill(engine, signal.SIGCONT)
        after = await client.generate(prompt="hello", adapter=name, **SHORT)
        before += [piece async for piece in stream]

    assert (before[-1].digest, after.digest) == (old.digest, new.digest)
    assert sum(len(piece.token_ids) for piece in before) == 200


async def test_pinned_and_prefetched_adapters_come_near_before_anybody_asks(world: World) -> None:
    """The registry's wishes are met without a request, and the residency tells of it."""
    for seed, kind in enumerate(("prefetch", "pinned")):
        name = f"default/{kind}"
        manifest = world.land.upload(name, world.land.make(name, seed=40 + seed))
        world.land.publish(name, manifest, **{kind: True})

    wanted = {"default/pinned": "slot", "default/prefetch": "disk"}
    await until(lambda: wanted.items() <= _tiers(world).items(), limit_s=30)

    world.land.publish("default/pinned", manifest, pinned=False)


def _tiers(world: World) -> dict[str, str]:
    with world.land.redis as client:
        data = client.get(keys.residency(replicas.BASE, "replica-0"))
    return {i: r.tier for i, r in keys.parse_residency(data).adapters.items()} if data else {}


async def test_more_adapters_than_slots_all_answer(world: World) -> None:
    """Twelve adapters over eight slots, all at once: the idle ones give way."""
    names = [f"default/many-{i}" for i in range(12)]
    for index, name in enumerate(names):
        world.land.add(name, seed=20 + index)
    await until(world.land.is_applied, limit_s=30)
    async with world.replica.client() as client:
        answers = await asyncio.gather(
            *(client.generate(prompt="hello", adapter=n, **SHORT) for n in names * 2)
        )

    assert [a.digest for a in answers] == [world.land.records[n].digest for n in names * 2]


async def test_adapter_that_lost_its_slot_comes_back_from_memory(world: World) -> None:
    """Its reply tells how far away it was; nothing is read from S3 for it, or packed again."""
    names = [f"default/again-{i}" for i in range(9)]
    for index, name in enumerate(names):
        world.land.add(name, seed=60 + index)
    await until(world.land.is_applied)
    async with world.replica.client() as client:
        first = [await client.generate(prompt="hello", adapter=n, **SHORT) for n in names]
        with world.s3.closed():
            again = [await client.generate(prompt="hello", adapter=n, **SHORT) for n in names]
        base = await client.generate(prompt="hello", **SHORT)

    assert {c.adapter_tier for c in first} == {"absent"}
    assert {c.adapter_tier for c in again} <= {"slot", "host"}
    assert "host" in {c.adapter_tier for c in again}
    assert [c.token_ids for c in again] == [c.token_ids for c in first]
    assert base.adapter_tier == ""


async def test_engine_that_dies_fails_its_requests_and_is_started_again(world: World) -> None:
    """Kill -9: requests in flight are UNAVAILABLE, later ones are answered."""
    engine = world.replica.engine_pid()
    async with world.replica.client(max_attempts=1) as client:
        stream = client.stream(prompt="hello", adapter="default/one", **LONG)
        await anext(stream)
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(CallFailed) as caught:
            _ = [piece async for piece in stream]
    async with world.replica.client(max_attempts=30) as client:
        after = await client.generate(prompt="hello", adapter="default/one", **SHORT)

    assert caught.value.code == Code.UNAVAILABLE
    assert after.completion_tokens == 8


@pytest.mark.slow
async def test_engine_that_hangs_is_dumped_and_started_again(world: World) -> None:
    """Stopped in the middle of its work, the engine is killed by the watchdog."""
    async with world.replica.client(max_attempts=1) as client:
        os.kill(world.replica.engine_pid(), signal.SIGSTOP)
        with pytest.raises(CallFailed) as caught:
            await client.generate(prompt="hello", **SHORT)
    async with world.replica.client(max_attempts=30) as client:
        after = await client.generate(prompt="hello", **SHORT)

    assert (caught.value.code, after.completion_tokens) == (Code.UNAVAILABLE, 8)
    assert "silent for" in world.replica.log()


async def test_serving_goes_on_when_redis_restarts_empty(world: World) -> None:
    """Known adapters answer throughout; unknown names may exist, so they are UNAVAILABLE."""
    world.stop_redis()
    async with world.replica.client() as client:
        without = await client.generate(prompt="hello", adapter="default/one", **SHORT)
        world.start_redis()
        await until(lambda: "epoch is gone" in world.replica.log())
        empty = await client.generate(prompt="hello", adapter="default/two", **SHORT)
        unknown = await failure(world, adapter="default/absent")
    world.land.rewrite()
    absent = await failure(world, adapter="default/absent", attempts=20)

    assert (without.completion_tokens, empty.completion_tokens) == (8, 8)
    assert (unknown.code, absent.code) == (Code.UNAVAILABLE, Code.NOT_FOUND)


async def test_admin_wants_its_role(world: World) -> None:
    """A caller without the role is refused; one with it pins, and the pin shows."""
    async with grpc.aio.insecure_channel(world.replica.address) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        request = admin_pb2.PrefetchAdapterRequest(adapter="default/one")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PrefetchAdapter(request, metadata=_bearer(replicas.TOKEN), timeout=20)
        reply = await stub.PrefetchAdapter(request, metadata=_bearer(ADMIN_TOKEN), timeout=20)

    assert caught.value.code() == Code.PERMISSION_DENIED
    assert reply.digest == world.land.records["default/one"].digest


def _bearer(token: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {token}"),)


async def test_health_and_reflection_are_open_to_everyone(world: World) -> None:
    """Probes and grpcurl carry no token."""
    async with grpc.aio.insecure_channel(world.replica.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        names = ["", "loraland.inference.v1.Inference", "loraland.inference.v1.Admin"]
        checks = [
            await health.Check(health_pb2.HealthCheckRequest(service=n), timeout=10) for n in names
        ]
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=10)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.read()
        await call.done_writing()

    services = {s.name for s in listed.list_services_response.service}
    assert [c.status for c in checks] == [health_pb2.HealthCheckResponse.SERVING] * 3
    assert services >= {names[1], names[2], "grpc.health.v1.Health"}


@pytest.mark.slow
async def test_replica_drains_and_a_new_one_finds_its_disk(world: World) -> None:
    """SIGTERM lets a stream finish, exit 0; a new replica serves from disk while S3 is away."""
    left = world.land.folder / "cache" / "adapters" / ".partial-left"
    left.mkdir()
    async with world.replica.client() as client:
        await client.generate(prompt="x", adapter="default/one", **SHORT)
    with replicas.running(world.land, world.config, POD_NAME="replica-1") as replica:
        with world.s3.closed():
            async with replica.client(max_attempts=10) as client:
                pieces = []
                async for piece in client.stream(prompt="x", adapter="default/one", **LONG):
                    if not pieces:
                        replica.process.send_signal(signal.SIGTERM)
                    pieces.append(piece)
        code = await asyncio.to_thread(replica.process.wait, 30)

    assert (pieces[-1].finish_reason, pieces[-1].completion_tokens) == ("length", 200)
    assert (code, left.exists()) == (0, False)
