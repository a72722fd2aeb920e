"""Brings the adapter of a request to where the engine can use it, and keeps it there meanwhile.

S3 → disk → slot. A request waits for its own adapter only; a failed load fails only the requests
that named it. Decisions are in ``registry`` and ``slots``; this is the thin shell around them.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from loraland_core.errors import ArtifactInvalid, InvalidInput
from loraland_core.keys import AdapterRecord, Rejection
from loraland_core.prompts import PromptTemplate

from loraland_inference.adapters.disk import DiskTier, LocalAdapter
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.slots import DRAIN_AFTER_S, Slot, SlotTable
from loraland_inference.engine_client import EngineClient

log = logging.getLogger("loraland.adapters")


@dataclass(frozen=True)
class Lease:
    """The right to use an adapter in the engine; ``release`` exactly once. Base: no digest."""

    digest: str = ""
    prompt: PromptTemplate | None = None
    load_s: float = 0.0
    priority: int = 0
    # Tells how many of the tokens that it was acquired for are done.
    spend: Callable[[int], None] = lambda _: None
    release: Callable[[], None] = lambda: None


class _Work:
    """What one request may still have to do on a slot."""

    def __init__(self, slot: Slot, num_tokens: int) -> None:
        self._slot = slot
        self._num_tokens = num_tokens
        slot.num_due_tokens += num_tokens

    def spend(self, num_tokens: int) -> None:
        spent = min(num_tokens, self._num_tokens)
        self._num_tokens -= spent
        self._slot.num_due_tokens -= spent

    def end(self) -> None:
        self.spend(self._num_tokens)


class _Load:
    """A load under way: each of those who wait for it is owed a reference on the slot."""

    def __init__(self) -> None:
        self.num_waiting = 0
        self.slot: Slot | None = None
        self.task: asyncio.Task[Slot]


class Coordinator:
    """The way of adapters into the engine's slots."""

    def __init__(
        self,
        *,
        registry: Registry,
        disk: DiskTier,
        engine: EngineClient,
        num_slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self.slots = SlotTable(num_slots)
        self._disk = disk
        self._engine = engine
        self._clock = clock
        self._loads: dict[str, _Load] = {}
        # Whoever waits for a slot, longest first.
        self._queue: deque[asyncio.Event] = deque()

    async def acquire(
        self, adapter_id: str, allowed: Callable[[AdapterRecord], bool], *, num_tokens: int = 0
    ) -> Lease:
        """Return a lease on the adapter once it is in a slot. The empty id is the base model.

        ``num_tokens`` is how many the request may come to: whoever has the least left to do is the
        first to give way when others wait too long.
        Raises ``NotFound``, ``ArtifactInvalid`` for one that is refused, ``Unavailable``.
        """
        if not adapter_id:
            return Lease()
        started_s = self._clock()
        record = self.registry.find(adapter_id, allowed)
        self._check(adapter_id)
        local = await self._local(adapter_id, record)
        slot = await self._slot(local)
        work = _Work(slot, num_tokens)
        return Lease(
            digest=record.digest,
            prompt=local.prompt,
            load_s=self._clock() - started_s,
            priority=record.priority,
            spend=work.spend,
            release=lambda: self._release(slot, work),
        )

    def tier(self, digest: str) -> Literal["slot", "disk", "absent"]:
        """Return the nearest place where an artifact is."""
        slot = self.slots.find(digest)
        if slot is not None and slot.is_loaded:
            return "slot"
        return "disk" if self._disk.has(digest) else "absent"

    async def prefetch(self, adapter_id: str) -> str:
        """Bring an adapter into a slot without a request; return its digest."""
        lease = await self.acquire(adapter_id, lambda _: True)
        lease.release()
        return lease.digest

    async def pin(self, adapter_id: str) -> None:
        """Keep an adapter in its slot until it is unpinned; one slot always stays unpinned."""
        record = self.registry.find(adapter_id, lambda _: True)
        if len(self.slots.pinned | {record.digest}) >= self.slots.num_slots:
            raise InvalidInput(
                f"{len(self.slots.pinned)} of {self.slots.num_slots} slots are pinned, and one must"
                " stay free for the others; unpin another adapter first",
                field="adapter",
            )
        await self.prefetch(adapter_id)
        self.slots.pinned.add(record.digest)

    def unpin(self, adapter_id: str) -> None:
        record = self.registry.find(adapter_id, lambda _: True)
        self.slots.pinned.discard(record.digest)
        self._wake()

    def evict(self, adapter_id: str) -> None:
        """Give up the adapter's slot as soon as no request uses it."""
        record = self.registry.find(adapter_id, lambda _: True)
        slot = self.slots.find(record.digest)
        if record.digest in self.slots.pinned:
            raise InvalidInput("it is pinned; unpin it first", field="adapter")
        if slot is not None and slot.references == 0:
            self._evict(slot)
        elif slot is not None:
            slot.is_draining = True

    def retire(self, named: set[str]) -> None:
        """Give up the slots of artifacts that nobody names, each once no request uses it."""
        self.slots.pinned &= named
        for slot in self.slots.loaded_slots:
            if slot.digest in named:
                continue
            if slot.references == 0:
                self._evict(slot)
            else:
                slot.is_draining = True

    def lose_slots(self) -> None:
        """Start over: the engine that held the adapters is gone."""
        self.slots.clear()
        self._wake()

    def _check(self, adapter_id: str) -> None:
        rejection = self.registry.standing_rejection(adapter_id, self._clock())
        if rejection is not None:
            raise ArtifactInvalid(
                f"adapter {adapter_id} is refused: {rejection.reason}: {rejection.message}",
                reason=rejection.reason,
            )

    def _use(self, digest: str) -> Slot | None:
        """Take a reference on a slot that is ready at once."""
        slot = self.slots.find(digest)
        if slot is None or not slot.is_loaded or slot.is_draining:
            return None
        slot.references += 1
        return slot

    async def _local(self, adapter_id: str, record: AdapterRecord) -> LocalAdapter:
        try:
            return await self._disk.ensure(record)
        except ArtifactInvalid as error:
            self._reject(record.digest, error)
            raise ArtifactInvalid(
                f"adapter {adapter_id} is refused: {error.reason}: {error}", reason=error.reason
            ) from error

    async def _slot(self, local: LocalAdapter) -> Slot:
        """Wait until the artifact is in a slot, whoever loads it, and take a reference."""
        slot = self._use(local.digest)
        if slot is not None:
            return slot
        load = self._loads.get(local.digest)
        if load is None:
            load = self._loads[local.digest] = _Load()
            load.task = asyncio.create_task(self._load(local, load))
            load.task.add_done_callback(_retrieve)
        load.num_waiting += 1
        try:
            # A caller that gives up does not take the load from the others.
            return await asyncio.shield(load.task)
        except BaseException:
            load.num_waiting -= 1
            if load.slot is not None:
                self._release(load.slot)
            raise

    async def _load(self, local: LocalAdapter, load: "_Load") -> Slot:
        """Put the artifact into a slot and give a reference to everyone who waits for it."""
        try:
            async with self._free_slot(local.digest):
                slot = self.slots.find(local.digest) or self.slots.take(local.digest, self._clock())
                slot.is_draining = False
            if not slot.is_loaded:
                await self._fill(slot, local)
            slot.references += load.num_waiting
            load.slot = slot
            return slot
        finally:
            del self._loads[local.digest]

    async def _fill(self, slot: Slot, local: LocalAdapter) -> None:
        try:
            await self._engine.load(local.digest, str(local.folder))
        except BaseException as error:
            self.slots.remove(slot)
            self._wake()
            if isinstance(error, ArtifactInvalid):
                self._reject(local.digest, error)
            raise
        slot.is_loaded = True
        self.registry.accept(local.digest)

    @asynccontextmanager
    async def _free_slot(self, digest: str) -> AsyncIterator[None]:
        """Enter when a slot is free, or holds ``digest``, and nobody waits longer for one."""
        turn = asyncio.Event()
        self._queue.append(turn)
        try:
            now_s = asyncio.get_running_loop().time
            drain_s = now_s() + DRAIN_AFTER_S
            while self._queue[0] is not turn or not self._make_room(digest):
                turn.clear()
                # Whoever gives a reference back wakes us, so that no single wait tells the time.
                if now_s() >= drain_s and self._queue[0] is turn:
                    self.slots.start_drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(turn.wait(), DRAIN_AFTER_S)
            yield
        finally:
            self._queue.remove(turn)
            self._wake()

    def _make_room(self, digest: str) -> bool:
        # One that was to give way, and is asked for again, may as well stay.
        if self.slots.num_free > 0 or self.slots.find(digest) is not None:
            return True
        victim = self.slots.victim()
        if victim is None:
            return False
        self._evict(victim)
        return True

    def _evict(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self._engine.unload(slot.digest)
        self._wake()

    def _release(self, slot: Slot, work: _Work | None = None) -> None:
        if work is not None:
            work.end()
        self.slots.release(slot, self._clock())
        if slot.references == 0 and slot.is_draining and self.slots.find(slot.digest) is slot:
            self._evict(slot)
        self._wake()

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].set()

    def _reject(self, digest: str, error: ArtifactInvalid) -> None:
        rejection = Rejection(digest=digest, reason=error.reason, message=str(error))
        self.registry.reject(digest, rejection, self._clock())
        log.warning("%s is refused: %s: %s", digest[:12], error.reason, error)


def _retrieve(task: asyncio.Task[Slot]) -> None:
    """Look at a task's error, so that one that nobody waits for any more is not reported as lost."""
    if not task.cancelled():
        task.exception()
