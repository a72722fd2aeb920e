"""Leases and use counts over a real Redis: what replicas of one node, and of one land, share."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import servers
from loraland_core import keys, redis_connection, redis_settings
from loraland_inference.adapters import uses
from loraland_inference.adapters.leases import Leases
from loraland_inference.adapters.uses import Uses


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    settings = redis_settings.read({"LORALAND_REDIS_URL": redis_url})
    found = redis_connection.connect(settings, client_name="test")
    yield found
    await found.aclose()


@pytest.fixture
async def absent() -> AsyncIterator[Any]:
    url = f"redis://127.0.0.1:{servers.free_port()}/0"
    settings = redis_settings.read({"LORALAND_REDIS_URL": url})
    found = redis_connection.connect(settings, client_name="test")
    yield found
    await found.aclose()


@pytest.fixture
def node() -> str:
    return uuid.uuid4().hex


def never() -> bool:
    return False


async def test_one_of_two_holds_a_lease(client: Any, node: str) -> None:
    """The second one gets it when the first one gives it back, and not before."""
    leases = Leases(client, node=node)
    first = await leases.take("digest")
    refused = await leases.take("digest")
    assert first
    is_back = await leases.release("digest", first)
    second = await leases.take("digest")

    assert (refused, is_back, bool(second)) == (None, True, True)


async def test_lease_of_another_is_neither_ended_nor_prolonged(client: Any, node: str) -> None:
    """Who lost a lease, and comes back late, changes nothing of its successor's."""
    leases = Leases(client, node=node)
    token = await leases.take("digest")

    assert not await leases.release("digest", "a token of long ago")
    assert not await leases.renew("digest", "a token of long ago")
    assert (await client.get(keys.lease(node, "digest"))).decode() == token


async def test_leases_are_by_node_and_digest(client: Any, node: str) -> None:
    """Each node downloads its own copy, and artifacts do not wait for each other."""
    here, there = Leases(client, node=node), Leases(client, node=node + "-2")

    taken = [await here.take("a"), await here.take("b"), await there.take("a")]

    assert all(taken)


async def test_turn_of_a_long_download_is_prolonged(client: Any, node: str) -> None:
    """A lease is set to its TTL again while the work goes on, and is gone right after it."""
    leases, key = Leases(client, node=node, ttl_s=3), keys.lease(node, "digest")
    async with leases.turn("digest", never) as is_ours:
        await client.pexpire(key, 600_000)
        while await client.pttl(key) > 3_000:  # noqa: ASYNC110 (Redis tells nobody)
            await asyncio.sleep(0.05)

    assert is_ours
    assert await client.get(key) is None


async def test_many_replicas_of_a_node_download_once(client: Any, node: str) -> None:
    """Whoever waited finds the work done, and does not do it again."""
    done: list[int] = []

    async def download(number: int) -> bool:
        async with Leases(client, node=node).turn("digest", lambda: bool(done)) as is_ours:
            if is_ours:
                await asyncio.sleep(0.1)
                done.append(number)
            return is_ours

    turns = await asyncio.gather(*(download(number) for number in range(8)))

    assert (turns.count(True), len(done)) == (1, 1)
    assert await client.get(keys.lease(node, "digest")) is None


async def test_dead_owner_is_followed_after_the_ttl(client: Any, node: str) -> None:
    """A replica that was killed during a download blocks the others for one TTL, no longer."""
    assert await Leases(client, node=node, ttl_s=0.3).take("digest")

    async with Leases(client, node=node).turn("digest", never) as is_ours:
        assert is_ours


async def test_failed_download_gives_its_turn_to_the_next(client: Any, node: str) -> None:
    """An error leaves the block with the lease given back."""
    leases = Leases(client, node=node)
    with pytest.raises(ConnectionResetError):
        async with leases.turn("digest", never):
            raise ConnectionResetError

    assert await leases.take("digest")


async def test_without_redis_everybody_downloads(absent: Any, node: str) -> None:
    """No lease is no reason not to serve."""
    async with Leases(absent, node=node).turn("digest", never) as is_ours:
        assert is_ours


async def test_uses_of_all_replicas_add_up(client: Any) -> None:
    """Two replicas count the same adapter; the most used one comes first."""
    base = uuid.uuid4().hex
    replicas = [Uses(client, base, clock=lambda: 1.7e9) for _ in range(2)]
    for replica in replicas:
        replica.count("ns/a", 3)
        replica.count("ns/b")
        await replica.flush()

    found = await replicas[0].read_top(10)

    assert list(found) == ["ns/a", "ns/b"]
    assert list(found.values()) == pytest.approx([6, 2])


async def test_use_halves_with_each_half_life(client: Any) -> None:
    """Eight uses three half-lives ago are worth as much as one now."""
    now_s = 1.7e9
    counted = Uses(client, uuid.uuid4().hex, clock=lambda: now_s)
    counted.count("ns/old", 8)
    await counted.flush()
    now_s += 3 * uses.HALF_LIFE_S
    counted.count("ns/new", 1.5)
    counted.count("ns/old", 1)
    await counted.flush()

    found = await counted.read_top(10)

    assert found == pytest.approx({"ns/old": 2, "ns/new": 1.5})


async def test_long_unused_is_forgotten(client: Any) -> None:
    """The set keeps what was used lately."""
    now_s = 1.7e9
    counted = Uses(client, uuid.uuid4().hex, clock=lambda: now_s)
    counted.count("ns/old")
    await counted.flush()
    now_s += 21 * uses.HALF_LIFE_S
    counted.count("ns/new")
    await counted.flush()

    assert list(await counted.read_top(10)) == ["ns/new"]


async def test_counts_wait_while_redis_is_away(absent: Any, client: Any) -> None:
    """What was counted during an outage is carried after it."""
    base = uuid.uuid4().hex
    counted = Uses(absent, base, clock=lambda: 1.7e9)
    counted.count("ns/a")
    with pytest.raises(redis_connection.FAILURES):
        await counted.flush()
    counted.count("ns/a")
    counted._redis = client
    await counted.flush()

    assert await counted.read_top(10) == pytest.approx({"ns/a": 2})
