"""From a name to a slot: waiting, sharing, giving way, and failing alone."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loraland_core.errors import ArtifactInvalid, InvalidInput, NotFound, Unavailable
from tier_world import TierWorld, settle

Build = Callable[..., TierWorld]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return lambda **options: TierWorld(tmp_path, **options)


async def test_base_model_needs_no_slot(build: Build) -> None:
    """The empty id is the base model, whatever the slots do."""
    lease = await build().coordinator.acquire("", lambda _: True)

    assert (lease.digest, lease.prompt) == ("", None)


async def test_requests_for_one_adapter_share_one_load(build: Build) -> None:
    """However many name it at once, it is loaded once, and each holds a reference."""
    f = build()
    f.engine.gate = asyncio.Event()
    tasks = [f.start(0) for _ in range(5)]
    await settle()
    f.engine.gate.set()
    leases = await asyncio.gather(*tasks)

    slot = f.coordinator.slots.find("d0")
    assert slot is not None
    held = slot.references
    for lease in leases:
        lease.release()
    assert (f.engine.loads, held, slot.references) == (["d0"], 5, 0)


async def test_idle_adapter_gives_way_and_one_in_use_stays(build: Build) -> None:
    """The third adapter takes the slot of the one that nobody uses."""
    f = build()
    used = await f.acquire(0)
    (await f.acquire(1)).release()

    await f.acquire(2)

    assert f.engine.held == {"d0", "d2"}
    used.release()


async def test_request_waits_when_all_slots_are_in_use(build: Build) -> None:
    """It gets the slot that is released first; those who wait longer go first."""
    f = build()
    first, second = await f.acquire(0), await f.acquire(1)
    third, fourth = f.start(2), f.start(3)
    await settle()
    waited = (third.done(), fourth.done())

    second.release()
    await settle()

    assert (waited, third.done(), fourth.done()) == ((False, False), True, False)
    first.release()
    await fourth


async def test_busy_adapter_is_drained_when_another_waits_too_long(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of requests for a resident adapter does not starve the one outside."""
    monkeypatch.setattr("loraland_inference.adapters.slot_queue.DRAIN_AFTER_S", 0.02)
    f = build(num_slots=1)
    busy = await f.acquire(0)
    outside = f.start(1)
    await asyncio.sleep(0.1)
    newcomer = f.start(0)
    await settle()
    was_admitted = newcomer.done()

    busy.release()
    lease = await outside
    assert (was_admitted, newcomer.done(), lease.digest) == (False, False, "d1")
    lease.release()
    assert (await newcomer).digest == "d0"


async def test_adapter_in_steady_use_is_drained_although_its_requests_end_all_the_time(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot that is never idle, requests that overlap: the other waits no longer for that."""
    monkeypatch.setattr("loraland_inference.adapters.slot_queue.DRAIN_AFTER_S", 0.05)
    f = build(num_slots=1)
    lease = await f.acquire(0)
    waiting = f.start(1)
    for _ in range(200):
        if waiting.done():
            break
        following = f.start(0)
        await asyncio.sleep(0.01)
        lease.release()
        lease = await following if following.done() else await waiting

    assert (waiting.done(), lease.digest) == (True, "d1")


async def test_lease_tells_its_slot_what_is_left_to_do(build: Build) -> None:
    """What is spent and what ends is due no more, however much more it came to."""
    f = build()
    acquire = f.coordinator.acquire
    leases = [await acquire("ns/a0", lambda _: True, num_tokens=n) for n in (10, 5)]
    slot = f.coordinator.slots.find("d0")
    assert slot is not None

    leases[0].spend(4)
    leases[1].spend(9)
    due = [slot.num_due_tokens]
    leases[0].release()
    due.append(slot.num_due_tokens)

    assert due == [6, 0]


async def test_failed_load_fails_its_own_requests_only(build: Build) -> None:
    """Others are not touched, the slot is free again, and the heartbeat tells of it."""
    f = build(num_slots=1)
    f.engine.failing["d0"] = ArtifactInvalid("rank 99", reason="RankOverLimit")

    with pytest.raises(ArtifactInvalid):
        await f.acquire(0)
    other = await f.acquire(1)

    assert other.digest == "d1"
    assert f.registry.rejections()["ns/a0"].reason == "RankOverLimit"


async def test_rejected_adapter_is_tried_again_after_a_while(build: Build) -> None:
    """Within the delay nothing is fetched; after it a repaired artifact is served."""
    f = build()
    f.disk.failing["d0"] = ArtifactInvalid("sha256", reason="DigestMismatch")
    for _ in range(2):
        with pytest.raises(ArtifactInvalid):
            await f.acquire(0)
    num_fetches = len(f.disk.fetched)

    f.disk.failing.clear()
    f.now_s = 1000.0
    lease = await f.acquire(0)

    assert (num_fetches, lease.digest, f.registry.rejections()) == (1, "d0", {})


async def test_store_outage_is_not_held_against_the_adapter(build: Build) -> None:
    """An unavailable store is Unavailable each time, and no rejection."""
    f = build()
    f.disk.failing["d0"] = Unavailable("S3 is away")

    with pytest.raises(Unavailable):
        await f.acquire(0)

    assert f.registry.rejections() == {}


async def test_caller_that_gives_up_leaves_the_load_to_the_others(build: Build) -> None:
    """A cancelled wait holds no reference afterwards and takes nothing from its neighbour."""
    f = build()
    f.engine.gate = asyncio.Event()
    gone, stays = f.start(0), f.start(0)
    await settle()

    gone.cancel()
    await settle()
    f.engine.gate.set()
    lease = await stays

    slot = f.coordinator.slots.find("d0")
    assert slot is not None
    assert slot.references == 1
    lease.release()


async def test_all_callers_that_give_up_leave_no_reference(build: Build) -> None:
    """An adapter that nobody waited for is loaded, idle, and may give way."""
    f = build()
    f.engine.gate = asyncio.Event()
    tasks = [f.start(0), f.start(0)]
    await settle()
    for task in tasks:
        task.cancel()
    await settle()

    f.engine.gate.set()
    await settle()

    victim = f.coordinator.slots.victim(0.0)
    assert victim is not None
    assert (victim.digest, victim.references) == ("d0", 0)


async def test_release_after_the_engine_was_lost_is_harmless(build: Build) -> None:
    """Leases of the engine before do not count for the one after it."""
    f = build()
    old = await f.acquire(0)

    f.coordinator.lose_slots()
    f.engine.held.clear()
    new = await f.acquire(0)
    old.release()

    slot = f.coordinator.slots.find("d0")
    assert slot is not None
    assert (slot.references, f.engine.loads) == (1, ["d0", "d0"])
    new.release()


async def test_pin_leaves_one_slot_to_the_others(build: Build) -> None:
    """All but one slot may be pinned; a pinned adapter cannot be evicted."""
    f = build()
    await f.coordinator.pin("ns/a0")
    with pytest.raises(InvalidInput):
        await f.coordinator.pin("ns/a1")
    with pytest.raises(InvalidInput):
        f.coordinator.evict("ns/a0")
    for index in (1, 2, 3):
        (await f.acquire(index)).release()

    assert f.engine.held == {"d0", "d3"}


async def test_evict_waits_for_the_requests_that_use_it(build: Build) -> None:
    """Admin's eviction takes effect when the last request has ended."""
    f = build()
    lease = await f.acquire(0)

    f.coordinator.evict("ns/a0")
    during = set(f.engine.held)
    lease.release()

    assert (during, f.engine.held) == ({"d0"}, set())


async def test_acquire_hides_what_the_caller_may_not_use(build: Build) -> None:
    """Resident or not, authorization is asked on every call."""
    f = build()
    (await f.acquire(0)).release()

    with pytest.raises(NotFound):
        await f.coordinator.acquire("ns/a0", lambda _: False)


async def test_slots_survive_random_traffic(build: Build) -> None:
    """Many adapters over few slots, callers that give up in between: everyone ends, none leaks."""
    f = build(num_slots=2, num_adapters=6)

    async def visit(index: int) -> Any:
        lease = await f.coordinator.acquire(f"ns/a{index % 6}", lambda _: True)
        try:
            await asyncio.sleep(0.001 * (index % 5))
        finally:
            lease.release()

    tasks = [asyncio.create_task(visit(i)) for i in range(120)]
    await asyncio.sleep(0.01)
    for task in tasks[::7]:
        task.cancel()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*tasks, return_exceptions=True)

    table = f.coordinator.slots
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sum(s.references for d in table.loaded if (s := table.find(d))) == 0
    assert set(table.loaded) == f.engine.held


async def test_artifact_without_a_name_gives_up_its_slot_once_unused(build: Build) -> None:
    """Unused at once, used when the last request ends; those with a name stay, pins do not hold."""
    f = build(num_slots=3)
    leases = [await f.acquire(i) for i in range(3)]
    leases[0].release()
    f.coordinator.slots.pinned = {"d0", "d2"}
    f.coordinator.retire({"d2"})
    during = set(f.engine.held)
    leases[1].release()

    assert (during, f.engine.held) == ({"d1", "d2"}, {"d2"})
    assert f.coordinator.slots.pinned == {"d2"}
