"""The way of adapters into slots over a disk and an engine that are pretended, and a clock at will."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from loraland_core.keys import AdapterRecord
from loraland_core.prompts import PromptTemplate
from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.adapters.folders import LocalAdapter
from loraland_inference.adapters.host import HostTier
from loraland_inference.adapters.lease import Lease
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.slots import SlotTable
from loraland_inference.adapters.states import Event, Places, State

PACKED_BYTES = 1000


class FakeDisk:
    """Has everything, but for digests that are set to fail or to wait."""

    def __init__(self, places: Places) -> None:
        self.failing: dict[str, Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.fetched: list[str] = []
        self._places = places

    def has(self, digest: str) -> bool:
        return digest in self.fetched

    @asynccontextmanager
    async def held(self, record: AdapterRecord) -> AsyncIterator[LocalAdapter]:
        self.fetched.append(record.digest)
        if record.digest in self.gates:
            await self.gates[record.digest].wait()
        if record.digest in self.failing:
            raise self.failing[record.digest]
        self._places.retry(record.digest)
        if self._places.state(record.digest) is State.ABSENT:
            self._places.move(record.digest, Event.FOUND)
        prompt = PromptTemplate(kind="fields", template="{x}")
        yield LocalAdapter(record.digest, Path("/disk") / record.digest, prompt, 100)


class FakeEngine:
    """Remembers what it holds; loads wait for a gate or fail on demand."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self.held: set[str] = set()
        self.loads: list[str] = []
        self.packs: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.unpackable: dict[str, Exception] = {}
        self.gate: asyncio.Event | None = None

    async def pack(self, digest: str, _: str, path: str) -> int:
        self.packs.append(digest)
        if digest in self.unpackable:
            raise self.unpackable[digest]
        Path(path).touch()  # noqa: ASYNC240 (a test)
        return PACKED_BYTES

    async def load(self, digest: str, _: str) -> None:
        self.loads.append(digest)
        if self.gate is not None:
            await self.gate.wait()
        if digest in self.failing:
            raise self.failing[digest]
        self.held.add(digest)
        assert len(self.held) <= self._num_slots

    def unload(self, digest: str) -> None:
        self.held.discard(digest)


class CountingObserver(Observer):
    def __init__(self) -> None:
        self.found_in: list[str] = []
        self.evicted_from: list[str] = []

    def found(self, tier: str) -> None:
        self.found_in.append(tier)

    def evicted(self, tier: str) -> None:
        self.evicted_from.append(tier)


class TierWorld:
    """A coordinator and a host tier of their own; the disk and the engine are pretended."""

    def __init__(
        self,
        folder: Path,
        num_slots: int = 2,
        num_adapters: int = 4,
        *,
        num_packed: int = 100,
        slot_bytes: int = 0,
    ) -> None:
        self.registry = Registry()
        self.now_s = 0.0
        self.observer = CountingObserver()
        self.places = Places(self.clock, jitter=lambda _, high: high)
        self.disk, self.engine = FakeDisk(self.places), FakeEngine(num_slots)
        self.host = HostTier(
            folder=folder,
            budget_bytes=num_packed * PACKED_BYTES,
            disk=self.disk,
            packer=self.engine,
            places=self.places,
            observer=self.observer,
            clock=self.clock,
        )
        self.host.prepare()
        self.coordinator = Coordinator(
            registry=self.registry,
            disk=self.disk,  # type: ignore[arg-type]
            host=self.host,
            engine=self.engine,  # type: ignore[arg-type]
            slots=SlotTable(num_slots, budget_bytes=slot_bytes),
            places=self.places,
            observer=self.observer,
            clock=self.clock,
        )
        records = {f"ns/a{i}": build_record(f"d{i}") for i in range(num_adapters)}
        self.registry.replace(records, 1)

    def clock(self) -> float:
        return self.now_s

    async def acquire(self, index: int) -> Lease:
        return await asyncio.wait_for(
            self.coordinator.acquire(f"ns/a{index}", lambda _: True), timeout=10
        )

    def start(self, index: int) -> asyncio.Task[Lease]:
        return asyncio.create_task(self.acquire(index))


def build_record(digest: str) -> AdapterRecord:
    return AdapterRecord(
        base_model="tiny", digest=digest, uri="s3://b/x/", size_bytes=1, rank=4, tenants=["ns"]
    )


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(20):
        await asyncio.sleep(0)
