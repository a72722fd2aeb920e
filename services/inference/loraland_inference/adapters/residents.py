"""Keeps near what the registry asks for and what is used most: the shell around ``prefetch``."""

import asyncio
import logging

from loraland_core.errors import LoraLandError

from loraland_inference.adapters import prefetch
from loraland_inference.adapters.prefetch import Room, Wish
from loraland_inference.adapters.tiers import Tiers
from loraland_inference.adapters.uses import Uses

log = logging.getLogger("loraland.adapters")

CHECK_EVERY_S = 2.0


async def run(tiers: Tiers, uses: Uses) -> None:
    """Bring one missing adapter at a time, until cancelled; requests go first."""
    residents = Residents(tiers, uses)
    while True:
        await residents.look()
        await asyncio.sleep(CHECK_EVERY_S)


class Residents:
    """What this replica brings by itself."""

    def __init__(self, tiers: Tiers, uses: Uses) -> None:
        self._tiers = tiers
        self._coordinator = tiers.coordinator
        self._uses = uses
        self._pinned_by_record: set[str] = set()
        # What could not be brought, so that it is told once.
        self._failing: dict[str, str] = {}

    async def look(self) -> None:
        """Bring what is missing now."""
        registry, slots = self._coordinator.registry, self._coordinator.slots
        records = registry.records
        wanted = {r.digest for r in records.values() if r.pinned}
        slots.pinned -= self._pinned_by_record - wanted
        self._pinned_by_record &= wanted
        self._tiers.places.forget_failures({r.digest for r in records.values()})
        wishes = prefetch.plan(
            records,
            self._uses.ranking,
            tier_of=self._coordinator.tier,
            is_refused=lambda adapter_id: registry.rejection(adapter_id) is not None,
            room=Room(self._tiers.disk.free_bytes, self._tiers.host.free_bytes),
        )
        for wish in wishes:
            try:
                await self._bring(wish)
            except LoraLandError as error:
                if self._failing.get(wish.adapter_id) != type(error).__name__:
                    log.warning("%s cannot be brought near yet: %s", wish.adapter_id, error)
                self._failing[wish.adapter_id] = type(error).__name__
            else:
                self._failing.pop(wish.adapter_id, None)

    async def _bring(self, wish: Wish) -> None:
        record = self._coordinator.registry.find(wish.adapter_id, lambda _: True)
        match wish.tier:
            case "slot":
                slots = self._coordinator.slots
                if slots.find(record.digest) is None or record.digest not in slots.pinned:
                    await self._coordinator.pin(wish.adapter_id)
                    self._pinned_by_record.add(record.digest)
            case "host":
                await self._tiers.host.take(record)
                self._tiers.host.release(record.digest)
            case "disk":
                await self._tiers.disk.ensure(record)
