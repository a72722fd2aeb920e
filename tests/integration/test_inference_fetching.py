"""The disk tier before a real S3 that misbehaves: what arrives is right, or does not arrive."""

import asyncio
import hashlib
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio
import servers
from faulty_proxy import Fault, FaultyProxy, random_faults
from loraland_core import artifacts, keys, transfers
from loraland_core import store as stores
from loraland_core.artifacts import File, Manifest
from loraland_core.errors import ArtifactInvalid, LoraLandError, Unavailable
from loraland_core.keys import AdapterRecord
from loraland_core.prompts import PromptTemplate
from loraland_core.store import Store
from loraland_inference.adapters.disk import DiskTier, Turns
from loraland_inference.adapters.fetching import Fetcher
from loraland_inference.adapters.leases import Leases
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.states import Places, State

pytestmark = pytest.mark.slow

RANGE_BYTES = 1024 * 1024
# Of the weights: several ranges, the last one cut.
BODY_BYTES = 4 * RANGE_BYTES + 1000
PREFIX = "adapters/ns/a/"


def build_weights() -> bytes:
    entry = {"dtype": "F32", "shape": [BODY_BYTES // 4], "data_offsets": [0, BODY_BYTES]}
    header = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(BODY_BYTES)


class OwnTurn:
    @asynccontextmanager
    async def turn(self, _: str, __: Callable[[], bool]) -> AsyncIterator[bool]:
        yield True


class World:
    """An artifact in S3, a proxy before it, and a disk tier with a clock of its own."""

    def __init__(self, store: Store, proxy: FaultyProxy, root: Path) -> None:
        self.proxy, self.root, self.now_s = proxy, root, 0.0
        self.files = {
            artifacts.CONFIG_FILE: b"{}",
            artifacts.WEIGHTS_FILE: build_weights(),
            "prompt.json": PromptTemplate(kind="fields", template="{x}").to_json(),
        }
        self.record = self._publish(store)
        config = store.config.model_copy(update={"endpoint_url": proxy.url})
        self.slow_store = Store(config)
        self.places = Places(lambda: self.now_s, jitter=lambda _, high: high)
        self.tier = self.build_tier(lambda _: OwnTurn(), self.places)

    def build_tier(self, turns: Callable[[str], Turns], places: Places | None = None) -> DiskTier:
        """Return another replica's tier on the same disk."""
        tier = DiskTier(
            Fetcher(self.slow_store, max_bytes=2**30),
            self.root,
            budget_bytes=2**30,
            concurrent_fetches=2,
            turns=turns,
            places=places or Places(lambda: self.now_s),
            observer=Observer(),
            clock=lambda: self.now_s,
        )
        tier.prepare()
        return tier

    def _publish(self, store: Store) -> AdapterRecord:
        for name, data in self.files.items():
            store.write(PREFIX + name, data)
        files = [
            File(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in self.files.items()
        ]
        manifest = Manifest(
            base_model="tiny", resolved_revision="r", training_precision="nf4", rank=4, alpha=8,
            target_modules=[], dtype="float32", files=files, created_at="2026-01-01T00:00:00Z",
        )  # fmt: skip
        store.write(PREFIX + artifacts.MANIFEST_FILE, manifest.to_json())
        return AdapterRecord(
            base_model="tiny", digest=manifest.digest, uri=store.uri(PREFIX),
            size_bytes=manifest.size_bytes, rank=4, tenants=["ns"],
        )  # fmt: skip

    @property
    def state(self) -> State:
        return self.places.state(self.record.digest)

    async def fetch(self) -> dict[str, bytes]:
        """Return what the tier hands out, by file."""
        async with self.tier.held(self.record) as local:
            return {name: (local.folder / name).read_bytes() for name in self.files}

    def left(self) -> list[str]:
        """Return what lies in the tier's folder, but for the names of the disk and this process."""
        own = self.root.glob(".work-*/*")
        folders = [p for p in self.root.iterdir() if not p.name.startswith(".")]
        return sorted(p.name for p in [*folders, *own])


@pytest.fixture
def world(
    store: Store, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Small ranges, so that a small artifact has several."""
    monkeypatch.setattr(transfers, "RANGE_BYTES", RANGE_BYTES)
    monkeypatch.setattr(stores, "MAX_ATTEMPTS", 3)
    proxy = FaultyProxy(int(s3_url.rsplit(":", 1)[1]))
    built = World(store, proxy, tmp_path / "adapters")
    yield built
    built.slow_store.close()
    proxy.stop()


async def test_artifact_comes_in_ranges_and_is_what_was_published(world: World) -> None:
    """Four ranges and the rest, of the weights alone."""
    found = await world.fetch()

    wanted = [f"bytes={i * RANGE_BYTES}-" for i in range(5)]
    asked = [r for r in world.proxy.ranges if not r.startswith("bytes=0-")]
    assert found == world.files
    assert sorted(r[: r.index("-") + 1] for r in asked) == wanted[1:]
    assert (world.left(), world.state) == ([world.record.digest], State.DISK)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("slow", delay_s=0.3, times=3),
        Fault("throttle", times=2),
        Fault("error", times=2),
        Fault("reset", artifacts.WEIGHTS_FILE, times=2),
        Fault("drip", artifacts.WEIGHTS_FILE, times=2, delay_s=0.3),
    ],
    ids=lambda fault: fault.kind,
)
async def test_what_passes_is_waited_for(world: World, fault: Fault) -> None:
    """A slow store, a throttling one and a connection that breaks cost time and nothing else."""
    world.proxy.set_faults(fault)

    found = await world.fetch()

    assert found == world.files
    assert fault.num_hits > 0


@pytest.mark.parametrize("kind", ["short", "changed"])
async def test_wrong_body_is_refused_and_leaves_nothing(world: World, kind: str) -> None:
    """Its error has a name, nothing of it stays, and the right body is taken afterwards."""
    world.proxy.set_faults(Fault(kind, artifacts.WEIGHTS_FILE))  # type: ignore[arg-type]

    with pytest.raises(ArtifactInvalid) as caught:
        await world.fetch()
    failed = (caught.value.reason, world.state, world.left())
    world.proxy.set_faults()
    found = await world.fetch()

    assert failed == ("DigestMismatch", State.FAILED, [])
    assert found == world.files


async def test_wrong_range_among_right_ones_is_noticed(world: World) -> None:
    """One range of five is not the object's."""
    world.proxy.set_faults(
        Fault("slow", artifacts.WEIGHTS_FILE, times=1),
        Fault("changed", artifacts.WEIGHTS_FILE, times=1),
    )

    with pytest.raises(ArtifactInvalid) as caught:
        await world.fetch()

    assert (caught.value.reason, world.left()) == ("DigestMismatch", [])


async def test_store_that_is_down_is_left_alone_for_a_while_and_used_when_back(
    world: World,
) -> None:
    """Unavailable at once until the time to try again, which each failure puts off further."""
    with world.proxy.down():
        with pytest.raises(Unavailable) as first:
            await world.fetch()
        num_requests = world.proxy.num_requests
        with pytest.raises(Unavailable) as second:
            await world.fetch()
        is_quiet = world.proxy.num_requests == num_requests
        world.now_s = 1.5
        with pytest.raises(Unavailable):
            await world.fetch()
        failures = world.places.failures()
        world.now_s = 3.0
        with pytest.raises(Unavailable) as third:
            await world.fetch()
    world.now_s = 4.0
    found = await world.fetch()

    assert (is_quiet, found) == (True, world.files)
    assert "does not answer" in str(first.value)
    assert [round(e.value.retry_after_s, 1) for e in (second, third)] == [1.0, 0.5]
    assert list(failures) == [world.record.digest]
    assert failures[world.record.digest].startswith("Unavailable: artifact store")


@pytest.mark.parametrize("seed", range(4))
async def test_random_faults_never_let_anything_wrong_through(world: World, seed: int) -> None:
    """Each attempt ends with the right files or with an error of ours; in the end they are there."""
    attempts = 0
    for fault in [*random_faults(seed, count=6), None]:
        world.proxy.set_faults(*([fault] if fault else []))
        world.now_s += 60.0
        attempts += 1
        try:
            found = await world.fetch()
        except LoraLandError:
            assert world.left() == []
        else:
            assert found == world.files
            break

    assert world.left() == [world.record.digest]
    assert attempts <= 7


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    opened = redis.asyncio.Redis.from_url(redis_url, protocol=2)
    yield opened
    await opened.aclose()


async def test_replicas_that_share_a_disk_download_once(
    world: World, client: redis.asyncio.Redis
) -> None:
    """Three ask at once; one downloads, the others find it; no lease is left."""
    disks: list[str] = []

    def turns(disk: str) -> Leases:
        disks.append(disk)
        return Leases(client, node=disk)

    tiers = [world.build_tier(turns) for _ in range(3)]
    world.proxy.set_faults(Fault("slow", artifacts.WEIGHTS_FILE, delay_s=0.3))
    await asyncio.gather(*(tier.ensure(world.record) for tier in tiers))

    left = [key async for key in client.scan_iter(f"ll:v1:lease:{disks[0]}:*")]
    starts = [r for r in world.proxy.ranges if r.startswith(f"bytes={RANGE_BYTES}-")]
    assert (len(set(disks)), len(starts), left) == (1, 1, [])
    assert [tier.has(world.record.digest) for tier in tiers] == [True] * 3


async def test_lease_of_a_dead_replica_runs_out(world: World, client: redis.asyncio.Redis) -> None:
    """Whoever waits for it downloads then."""
    disks: list[str] = []

    def turns(disk: str) -> Leases:
        disks.append(disk)
        return Leases(client, node=disk)

    tier = world.build_tier(turns)
    key = keys.lease(disks[0], world.record.digest)
    await client.set(key, "dead", px=700)

    await tier.ensure(world.record)

    assert tier.has(world.record.digest)
    assert await client.get(key) is None


async def test_download_goes_on_without_redis(world: World) -> None:
    """A lease that cannot be had costs bandwidth, nothing else."""
    nobody = redis.asyncio.Redis(host="127.0.0.1", port=servers.free_port(), protocol=2)
    tier = world.build_tier(lambda disk: Leases(nobody, node=disk))

    await tier.ensure(world.record)

    await nobody.aclose()
    assert tier.has(world.record.digest)
