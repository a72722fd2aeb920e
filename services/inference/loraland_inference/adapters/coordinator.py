"""Brings the adapter of a request to where the engine can use it, and keeps it there meanwhile.

S3 → disk → host → slot. A request waits for its own adapter only; a failed load fails only the
requests that named it. Decisions are in ``registry`` and ``slots``; this is the thin shell around
them.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from loraland_core.errors import ArtifactInvalid, InvalidInput, Unavailable
from loraland_core.keys import AdapterRecord, Rejection

from loraland_inference import messages
from loraland_inference.adapters import loads
from loraland_inference.adapters.disk import DiskTier
from loraland_inference.adapters.host import HostTier, PackedAdapter
from loraland_inference.adapters.lease import Lease, Work
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.slot_queue import SlotQueue
from loraland_inference.adapters.slots import Slot, SlotTable
from loraland_inference.adapters.states import Event, Places
from loraland_inference.engine_client import EngineClient

log = logging.getLogger("loraland.adapters")

Tier = Literal["slot", "host", "disk", "absent"]


class Coordinator:
    """The way of adapters into the engine's slots."""

    def __init__(
        self,
        *,
        registry: Registry,
        disk: DiskTier,
        host: HostTier,
        engine: EngineClient,
        slots: SlotTable,
        places: Places,
        observer: Observer,
        on_use: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self.slots = slots
        self._disk = disk
        self._host = host
        self._places = places
        self._observer = observer
        self._on_use = on_use
        self._engine = engine
        self._clock = clock
        self._loads: dict[str, loads.Load] = {}
        self._queue = SlotQueue(self.slots.start_drain)

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
        tier = self.tier(record.digest)
        self._observer.found(tier)
        self._on_use(adapter_id)
        slot = await self._slot(adapter_id, record)
        assert slot.packed is not None, adapter_id
        work = Work(slot, num_tokens)
        return Lease(
            digest=record.digest,
            prompt=slot.packed.prompt,
            load_s=self._clock() - started_s,
            tier=tier,
            priority=record.priority,
            spend=work.spend,
            release=lambda: self._release(slot, work),
        )

    def tier(self, digest: str) -> Tier:
        """Return the nearest place where an artifact is."""
        slot = self.slots.find(digest)
        if slot is not None and slot.is_loaded:
            return "slot"
        if self._host.has(digest):
            return "host"
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
        self._queue.wake()

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

    async def forget(self, digest: str) -> bool:
        """Take an artifact out of every tier of this node; False while it is still in use."""
        if digest in self._loads or self.slots.find(digest) is not None:
            return False
        return self._host.discard(digest) and await self._disk.discard(digest)

    def lose_slots(self) -> None:
        """Start over: the engine that held the adapters is gone."""
        for slot in self.slots.clear():
            # One that is being loaded fails where it is waited for.
            if slot.is_loaded:
                self._let_go(slot)
        self._queue.wake()

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

    async def _slot(self, adapter_id: str, record: AdapterRecord) -> Slot:
        """Wait until the artifact is in a slot, whoever loads it, and take a reference."""
        slot = self._use(record.digest)
        if slot is not None:
            return slot
        try:
            return await self._join(record)
        except ArtifactInvalid as error:
            raise ArtifactInvalid(
                f"adapter {adapter_id} is refused: {error.reason}: {error}", reason=error.reason
            ) from error

    async def _join(self, record: AdapterRecord) -> Slot:
        load = self._loads.get(record.digest)
        if load is None:
            load = self._loads[record.digest] = loads.Load()
            load.task = asyncio.create_task(self._load(record, load))
            load.task.add_done_callback(loads.retrieve)
        load.num_waiting += 1
        try:
            # A caller that gives up does not take the load from the others.
            return await asyncio.shield(load.task)
        except BaseException:
            load.num_waiting -= 1
            if load.slot is not None:
                self._release(load.slot)
            raise

    async def _load(self, record: AdapterRecord, load: loads.Load) -> Slot:
        """Put the artifact into a slot and give a reference to everyone who waits for it."""
        digest = record.digest
        try:
            packed = await self._host.take(record)
            try:
                slot = await self._fill(packed)
            except BaseException:
                self._host.release(digest)
                raise
            slot.references += load.num_waiting
            load.slot = slot
            return slot
        except ArtifactInvalid as error:
            self._host.drop(digest)
            if error.reason == messages.PACKED_FILE_LOST:
                message = f"{digest[:12]} is packed anew; try again"
                raise Unavailable(message, retry_after_s=0.5) from error
            self._reject(digest, error)
            raise
        finally:
            del self._loads[digest]

    async def _fill(self, packed: PackedAdapter) -> Slot:
        """Bring a packed artifact, and the reference on it, into a slot."""
        digest = packed.digest
        async with self._queue.turn(lambda: self._make_room(packed)):
            slot = self.slots.find(digest)
            if slot is None:
                slot = self.slots.take(digest, self._clock(), size_bytes=packed.size_bytes)
            slot.is_draining = False
        if slot.packed is not None:
            # It held the artifact still, with a reference of its own.
            self._host.release(digest)
            return slot
        started_s = self._clock()
        self._places.move(digest, Event.LOAD)
        try:
            await self._engine.load(digest, str(packed.path))
            if self.slots.find(digest) is not slot:
                raise Unavailable("the engine was restarted; try again", retry_after_s=1.0)
        except BaseException as error:
            self.slots.remove(slot)
            self._queue.wake()
            if isinstance(error, ArtifactInvalid) and error.reason != messages.PACKED_FILE_LOST:
                self._places.fail(digest, error)
            else:
                self._places.move(digest, Event.UNLOADED)
            raise
        self._places.move(digest, Event.LOADED)
        slot.packed, slot.is_loaded = packed, True
        self._observer.moved("slot", self._clock() - started_s)
        self.registry.accept(digest)
        return slot

    def _make_room(self, packed: PackedAdapter) -> bool:
        # One that was to give way, and is asked for again, may as well stay.
        if self.slots.find(packed.digest) is not None:
            return True
        while not self.slots.has_room(packed.size_bytes):
            victim = self.slots.victim(self._clock())
            if victim is None:
                return False
            self._evict(victim)
        return True

    def _evict(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self._engine.unload(slot.digest)
        self._observer.evicted("slot")
        self._let_go(slot)
        self._queue.wake()

    def _let_go(self, slot: Slot) -> None:
        """Give the slot's artifact back to the host tier."""
        self._places.move(slot.digest, Event.UNLOADED)
        self._host.release(slot.digest)

    def _release(self, slot: Slot, work: Work | None = None) -> None:
        if work is not None:
            work.end()
        self.slots.release(slot, self._clock())
        if slot.references == 0 and slot.is_draining and self.slots.find(slot.digest) is slot:
            self._evict(slot)
        self._queue.wake()

    def _reject(self, digest: str, error: ArtifactInvalid) -> None:
        rejection = Rejection(digest=digest, reason=error.reason, message=str(error))
        self.registry.reject(digest, rejection, self._clock())
        log.warning("%s is refused: %s: %s", digest[:12], error.reason, error)
