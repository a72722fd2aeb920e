"""Who waits for a slot gets one in a bounded time, whatever the traffic. Time is the loop's own."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loraland_inference.adapters.slot_queue import DRAIN_AFTER_S, SlotQueue
from loraland_inference.adapters.slots import Slot, SlotTable

NUM_SLOTS, NUM_ADAPTERS, LONGEST_S = 2, 5, 4.0
# Requests, as (seconds after the one before, adapter, seconds until it ends).
TRAFFIC = st.lists(
    st.tuples(st.floats(0.0, 1.5), st.integers(0, NUM_ADAPTERS - 1), st.floats(0.01, LONGEST_S)),
    min_size=1,
    max_size=40,
)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is left to do, it is the next timer's time."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        inner: Any = self
        if not inner._ready:
            timers = [t.when() for t in inner._scheduled if not t.cancelled()]
            self.now_s = max(self.now_s, min(timers, default=0.0))
        super()._run_once()  # type: ignore[misc]


@dataclass
class Wait:
    arrived_s: float
    entered_s: float = math.inf


@dataclass
class World:
    """Requests, and slots that they use as the coordinator does."""

    table: SlotTable = field(default_factory=lambda: SlotTable(NUM_SLOTS))
    waits: list[Wait] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = SlotQueue(self.table.start_drain)

    async def request(self, digest: str, length_s: float) -> None:
        slot = self.table.find(digest)
        if slot is None or slot.is_draining:
            slot = await self.wait(digest)
        slot.references += 1
        await asyncio.sleep(length_s)
        self.table.release(slot, now_s())
        self.queue.wake()

    async def wait(self, digest: str) -> Slot:
        wait = Wait(now_s())
        self.waits.append(wait)
        async with self.queue.turn(lambda: self.make_room(digest)):
            slot = self.table.find(digest) or self.table.take(digest, now_s())
            slot.is_loaded, slot.is_draining = True, False
        wait.entered_s = now_s()
        return slot

    def make_room(self, digest: str) -> bool:
        if self.table.find(digest) is not None or self.table.num_free:
            return True
        victim = self.table.victim(now_s())
        if victim is not None:
            self.table.remove(victim)
        return victim is not None

    async def run(self, traffic: list[tuple[float, int, float]]) -> None:
        async with asyncio.TaskGroup() as group:
            for gap_s, adapter, length_s in traffic:
                await asyncio.sleep(gap_s)
                group.create_task(self.request(f"d{adapter}", length_s))


def now_s() -> float:
    return asyncio.get_running_loop().time()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


@settings(max_examples=60, deadline=None)
@given(traffic=TRAFFIC)
def test_nobody_waits_longer_than_the_threshold_and_the_longest_request(
    traffic: list[tuple[float, int, float]],
) -> None:
    """Counted from when nobody waits longer; first come, first served."""
    world = World()

    run(lambda: world.run(traffic))

    before_s = -math.inf
    for wait in world.waits:
        latest_s = max(wait.arrived_s + DRAIN_AFTER_S, before_s) + LONGEST_S
        assert before_s <= wait.entered_s <= latest_s + 1e-6
        before_s = wait.entered_s
    assert len(world.table.loaded) <= NUM_SLOTS


def test_drain_begins_when_the_threshold_is_over_although_others_waited_before() -> None:
    """Who becomes first after most of it does not wait all of it again."""
    world = World()
    # Two busy slots. The third is served after 0.9 s; the fourth came with it, and the fifth uses
    # an adapter that is to give way by then.
    traffic = [(0.0, 0, 0.9), (0.0, 1, 4.0), (0.0, 2, 4.0), (0.0, 3, 1.0), (1.5, 1, 4.0)]

    run(lambda: world.run(traffic))

    assert [w.entered_s for w in world.waits[2:4]] == pytest.approx([0.9, 4.0])
