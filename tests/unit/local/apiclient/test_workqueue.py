"""The queue in front of every reconciler."""

import asyncio
import contextlib

from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Key
from loraland_local.apiclient.workqueue import Reconcile, Workqueue

KEY = ("n", "x")


async def run_for(queue: Workqueue, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await queue.run()


def counting(calls: list[Key], *answers: float | Exception | None) -> Reconcile:
    listed = list(answers)

    async def reconcile(key: Key) -> float | None:
        calls.append(key)
        answer = listed.pop(0) if listed else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    return reconcile


async def test_key_that_waits_is_called_once() -> None:
    """Many requests before a call are one."""
    calls: list[Key] = []
    queue = Workqueue("test", counting(calls))
    for _ in range(5):
        queue.add(KEY)
    await run_for(queue, 0.05)

    assert calls == [KEY]


async def test_key_is_never_worked_on_twice_at_once() -> None:
    """A request during a call leads to one more call, after it."""
    spans: list[str] = []

    async def reconcile(key: Key) -> float | None:
        spans.append("in")
        queue.add(key)
        await asyncio.sleep(0.01)
        spans.append("out")
        return None

    queue = Workqueue("test", reconcile)
    queue.add(KEY)
    await run_for(queue, 0.06)

    assert spans[:4] == ["in", "out", "in", "out"]


async def test_failed_key_comes_back() -> None:
    """Errors of the API, and any other, are tried again."""
    calls: list[Key] = []
    queue = Workqueue("test", counting(calls, ApiError(500, "", "no"), ValueError("bug"), None))
    queue.add(KEY)
    await run_for(queue, 0.8)

    assert calls == [KEY] * 3


async def test_asked_for_delay_is_kept() -> None:
    """A reconciler that asks for a later call gets it."""
    calls: list[Key] = []
    queue = Workqueue("test", counting(calls, 0.03))
    queue.add(KEY)
    await run_for(queue, 0.01)
    before = len(calls)
    await run_for(queue, 0.1)

    assert (before, len(calls)) == (1, 2)
