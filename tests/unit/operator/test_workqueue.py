"""The queue runs each key alone, forgets no change and backs off."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from loraland_core.errors import Unavailable
from loraland_operator.workqueue import Workqueue


@asynccontextmanager
async def running(
    reconcile: Callable[[str], Awaitable[float | None]], *, num_workers: int = 4
) -> AsyncIterator[Workqueue[str]]:
    queue: Workqueue[str] = Workqueue(reconcile, num_workers=num_workers)
    queue.start()
    try:
        yield queue
    finally:
        await queue.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (any condition, not one event)
            await asyncio.sleep(0.005)


async def test_key_added_twice_runs_once() -> None:
    """Ten events before a worker is free are one reconciliation."""
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    async with running(reconcile) as queue:
        for _ in range(10):
            queue.add("a")
        await until(lambda: bool(seen))
        await asyncio.sleep(0.02)

    assert seen == ["a"]


async def test_change_during_work_is_worked_on_afterwards() -> None:
    """A key never runs beside itself, and what came meanwhile is not lost."""
    events: list[str] = []
    may_end = asyncio.Event()

    async def reconcile(key: str) -> None:
        events.append("begin")
        await may_end.wait()
        events.append("end")

    async with running(reconcile) as queue:
        queue.add("a")
        await until(lambda: events == ["begin"])
        queue.add("a")
        await asyncio.sleep(0.02)
        may_end.set()
        await until(lambda: len(events) == 4)

    assert events == ["begin", "end", "begin", "end"]


async def test_slow_key_does_not_hold_up_others() -> None:
    """One worker waits; the others go on."""
    done: list[str] = []

    async def reconcile(key: str) -> None:
        if key == "slow":
            await asyncio.Event().wait()
        done.append(key)

    async with running(reconcile, num_workers=2) as queue:
        for key in ("slow", "a", "b", "c"):
            queue.add(key)
        await until(lambda: len(done) == 3)

    assert done == ["a", "b", "c"]


async def test_requeue_comes_again_by_itself() -> None:
    """A result in seconds is an appointment."""
    num_runs = 0

    async def reconcile(key: str) -> float | None:
        nonlocal num_runs
        num_runs += 1
        return 0.01 if num_runs < 3 else None

    async with running(reconcile) as queue:
        queue.add("a")
        await until(lambda: num_runs == 3)
        await asyncio.sleep(0.05)

    assert num_runs == 3


async def test_failure_is_tried_again_later() -> None:
    """Errors of ours and bugs alike are retried, and no worker dies of them."""
    errors: list[Exception] = [Unavailable("away", retry_after_s=0.01), RuntimeError("a bug")]
    num_runs = 0

    async def reconcile(key: str) -> None:
        nonlocal num_runs
        num_runs += 1
        if errors:
            raise errors.pop()

    async with running(reconcile, num_workers=1) as queue:
        queue.add("a")
        await until(lambda: num_runs == 3)

    assert errors == []


async def test_earlier_appointment_holds() -> None:
    """A later one does not push an earlier one away."""
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    async with running(reconcile) as queue:
        queue.add_after("a", 0.01)
        queue.add_after("a", 60)
        await asyncio.sleep(0.05)

    assert seen == ["a"]
