"""The registry against a real Redis."""

import json
from collections.abc import AsyncIterator, Mapping

import pytest
import redis.asyncio
from loraland_core import keys, redis_settings
from loraland_core.errors import Unavailable
from loraland_core.keys import AdapterRecord
from loraland_operator import registry
from loraland_operator.registry import Registry
from operator_objects import BASE, build_beat, build_record

Wanted = Mapping[str, AdapterRecord]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator["redis.asyncio.Redis[str]"]:
    found = redis.asyncio.Redis.from_url(redis_url, decode_responses=True)
    await found.flushall()
    yield found
    await found.aclose()


@pytest.fixture
async def records(client: object, redis_url: str) -> AsyncIterator[Registry]:
    found = registry.connect(redis_settings.read({"LORALAND_REDIS_URL": redis_url}))
    yield found
    await found.close()


async def publish(records: Registry, wanted: Wanted, known: set[str] | None = None) -> None:
    async def collect() -> tuple[Wanted, set[str]]:
        return wanted, known or set(wanted)

    await records.publish(BASE, collect)


async def test_nothing_is_written_before_the_first_publication(records: Registry) -> None:
    """Without a complete publication nobody knows what stands there."""
    with pytest.raises(Unavailable, match="not published"):
        await records.put("default/a", build_record())


async def test_record_and_change_are_one_write(records: Registry, client: object) -> None:
    """A replica that follows the stream finds each record under the revision announced."""
    await publish(records, {})
    written = await records.put("default/a", build_record())
    again = await records.put("default/b", build_record())
    await records.remove(BASE, "default/a")

    stored = await client.hgetall(keys.adapters(BASE))  # type: ignore[attr-defined]
    changes = [entry for _, entry in await client.xrange(keys.changes(BASE))]  # type: ignore[attr-defined]
    assert list(stored) == ["default/b"]
    assert json.loads(stored["default/b"])["revision"] == again.revision > written.revision
    assert [(c["adapter"], c["op"]) for c in changes] == [
        ("default/a", "put"),
        ("default/b", "put"),
        ("default/a", "delete"),
    ]
    revisions = [int(c["revision"]) for c in changes]
    assert revisions == sorted(set(revisions))


async def test_publication_writes_only_what_differs(records: Registry, client: object) -> None:
    """A restart of the operator moves no revision."""
    await publish(records, {"default/a": build_record(revision=0)})
    before = await client.hgetall(keys.adapters(BASE))  # type: ignore[attr-defined]
    await publish(records, {"default/a": build_record(revision=0)})

    assert before == await client.hgetall(keys.adapters(BASE))  # type: ignore[attr-defined]
    assert await client.xlen(keys.changes(BASE)) == 1  # type: ignore[attr-defined]


async def test_publication_removes_strangers_only(records: Registry, client: object) -> None:
    """A record of an Adapter that is there, but wants none now, is left to its own plan."""
    wanted = {id_: build_record(revision=0) for id_ in ("default/a", "default/b", "default/c")}
    await publish(records, wanted)
    await publish(records, {"default/a": wanted["default/a"]}, {"default/a", "default/b"})

    assert set(await client.hkeys(keys.adapters(BASE))) == {"default/a", "default/b"}  # type: ignore[attr-defined]


async def test_lost_registry_is_noticed(records: Registry, client: object) -> None:
    """Neither an empty Redis nor one from a backup passes for what we wrote."""
    await publish(records, {})
    assert await records.read_is_intact(BASE)
    await client.set(keys.epoch(BASE), keys.Epoch(revision=1, num_adapters=0).to_json())  # type: ignore[attr-defined]

    assert not await records.read_is_intact(BASE)


async def test_revision_of_a_lost_registry_is_kept(records: Registry) -> None:
    """A record that comes with a revision keeps it, and later ones are above it."""
    far = 9_999_999_999_999
    await publish(records, {"default/a": build_record(revision=far)})
    later = await records.put("default/b", build_record())

    kept = records.find_record(BASE, "default/a")
    assert kept is not None
    assert (kept.revision, later.revision > far) == (far, True)


async def test_fleet_is_who_lives(records: Registry, client: object) -> None:
    """A replica whose heartbeat ran out is in the index but not in the fleet."""
    for replica in ("r1", "r2"):
        await client.zadd(keys.replicas(BASE), {replica: 9e9})  # type: ignore[attr-defined]
    await client.set(keys.beat(BASE, "r1"), build_beat("r1").to_json())  # type: ignore[attr-defined]
    residency = keys.Residency(
        replica="r1", adapters={"default/a": keys.ResidentAdapter(digest="d", tier="slot")}
    )
    await client.set(keys.residency(BASE, "r1"), residency.to_json())  # type: ignore[attr-defined]

    fleet = await records.read_fleet(BASE)

    assert [b.replica for b in fleet.beats] == ["r1"]
    assert [r.adapters["default/a"].tier for r in fleet.residencies] == ["slot"]


async def test_absent_redis_is_unavailable() -> None:
    """Who cannot be reached is named, within seconds."""
    absent = redis_settings.read({"LORALAND_REDIS_URL": "redis://127.0.0.1:1/0"})
    records = registry.connect(absent)
    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await records.read_fleet(BASE)
    finally:
        await records.close()
