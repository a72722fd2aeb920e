"""A dead watch stream is noticed, an end that was asked for is none."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from loraland_core.errors import Unavailable
from loraland_operator import streams

NAMES = ("stop-flag checker", "watcher for adapters", "watcher for jobs")


@pytest.fixture
async def kopf() -> AsyncIterator[dict[str, "asyncio.Task[bool]"]]:
    """Tasks by the names that kopf gives its own."""
    never = asyncio.Event()
    tasks = {name: asyncio.create_task(never.wait(), name=name) for name in NAMES}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_dead_watcher_is_named(kopf: dict[str, "asyncio.Task[bool]"]) -> None:
    """The operator ends then, and the kubelet starts it again with all of its streams."""
    watching = asyncio.create_task(streams.watch(0.01))
    await asyncio.sleep(0.05)
    kopf["watcher for adapters"].cancel()

    with pytest.raises(Unavailable, match="no events come any more of adapters"):
        async with asyncio.timeout(60):
            await watching


async def test_end_of_all_is_no_death(kopf: dict[str, "asyncio.Task[bool]"]) -> None:
    """After a signal kopf ends its watchers itself."""
    watching = asyncio.create_task(streams.watch(0.01))
    await asyncio.sleep(0.05)
    for name in NAMES:
        kopf[name].cancel()

    async with asyncio.timeout(60):
        assert await watching is None
