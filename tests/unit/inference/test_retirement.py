"""What the registry no longer names: who may finish, who is ended, and when nothing is done."""

import asyncio

import pytest
from loraland_core.errors import NotFound
from loraland_core.keys import AdapterRecord
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.retirement import Retirement
from loraland_inference.server_state import ServerState

GRACE_S = 5.0


class FakeCoordinator:
    """Remembers which artifacts have a name."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.named: set[str] | None = None
        self.in_use: set[str] = set()
        self.forgotten: list[str] = []

    def retire(self, named: set[str]) -> None:
        self.named = named

    async def forget(self, digest: str) -> bool:
        if digest in self.in_use:
            return False
        self.forgotten.append(digest)
        return True


class World:
    """A registry with one adapter, and a request that uses it."""

    def __init__(self) -> None:
        self.coordinator = FakeCoordinator()
        self.state = ServerState(
            base_model="b", replica="r", max_rank=8, version="0", max_requests=9
        )
        self.now_s = 0.0
        self.retirement = Retirement(
            self.coordinator,  # type: ignore[arg-type]
            self.state,
            grace_s=GRACE_S,
            clock=lambda: self.now_s,
        )
        self.coordinator.registry.replace({"ns/a": build_record("old", 1)}, 1)

    async def use(self) -> None:
        with self.state.admitted("ns/a"):
            await asyncio.Event().wait()

    async def look(self, now_s: float = 0.0) -> None:
        self.now_s = now_s
        await self.retirement.look()


def build_record(digest: str, revision: int) -> AdapterRecord:
    return AdapterRecord(
        base_model="b", digest=digest, uri="s3://b/x/", size_bytes=1, rank=4, tenants=["ns"],
        revision=revision,
    )  # fmt: skip


async def test_request_on_a_deleted_adapter_has_the_grace_period() -> None:
    """Within it nothing happens to the request; after it, it is told that the adapter is gone."""
    world = World()
    request = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    world.coordinator.registry.apply("ns/a", None, 2)
    await world.look(0.0)
    await world.look(GRACE_S - 0.1)
    during = (world.state.num_requests, world.coordinator.named)
    await world.look(GRACE_S)
    with pytest.raises(NotFound, match="disabled or deleted"):
        await request

    assert during == (1, set())


async def test_request_on_an_earlier_digest_runs_to_its_end() -> None:
    """The adapter is still there: only the artifact behind the name has changed."""
    world = World()
    request = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    world.coordinator.registry.apply("ns/a", build_record("new", 2), 2)
    for now_s in (0.0, GRACE_S * 10):
        await world.look(now_s)
    await asyncio.sleep(0)
    is_running = not request.done()
    request.cancel()

    assert (is_running, world.coordinator.named) == (True, {"new"})


async def test_grace_begins_anew_when_the_adapter_was_back() -> None:
    """Enabled again in time, it owes nothing for the time before."""
    world = World()
    request = asyncio.create_task(world.use())
    await asyncio.sleep(0)
    world.coordinator.registry.apply("ns/a", None, 2)
    await world.look(0.0)
    world.coordinator.registry.apply("ns/a", build_record("old", 3), 3)
    await world.look(4.0)
    world.coordinator.registry.apply("ns/a", None, 4)
    await world.look(6.0)
    await asyncio.sleep(0)
    is_running = not request.done()
    request.cancel()

    assert is_running


async def test_nothing_is_let_go_while_the_registry_is_unknown() -> None:
    """A Redis that lost its content takes no adapter away."""
    world = World()
    world.coordinator.registry.forget_completeness()
    await world.look(100.0)

    assert world.coordinator.named is None


async def test_files_of_a_deleted_adapter_go_once_nobody_uses_them() -> None:
    """From every tier, when the last request has ended; those of an earlier digest stay near."""
    world = World()
    registry = world.coordinator.registry
    await world.look()
    registry.apply("ns/a", build_record("new", 2), 2)
    await world.look()
    world.coordinator.in_use = {"new"}
    registry.apply("ns/a", None, 3)
    await world.look()
    during = list(world.coordinator.forgotten)
    world.coordinator.in_use = set()
    await world.look()
    await world.look()

    assert (during, world.coordinator.forgotten) == ([], ["new"])


async def test_files_of_an_adapter_that_is_enabled_again_stay() -> None:
    """It came back before anybody let go of it, under whatever name."""
    world = World()
    registry = world.coordinator.registry
    await world.look()
    world.coordinator.in_use = {"old"}
    registry.apply("ns/a", None, 2)
    await world.look()
    registry.apply("ns/b", build_record("old", 3), 3)
    world.coordinator.in_use = set()
    await world.look()

    assert world.coordinator.forgotten == []
