"""Keeps what the registry asks for near: pinned adapters in slots, prefetched ones on disk."""

import asyncio
import logging

from loraland_core.errors import LoraLandError
from loraland_core.keys import AdapterRecord

from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.adapters.disk import DiskTier

log = logging.getLogger("loraland.adapters")

CHECK_EVERY_S = 2.0


async def run(coordinator: Coordinator, disk: DiskTier) -> None:
    """Bring one missing adapter at a time, until cancelled; requests go first."""
    pinned_by_record: set[str] = set()
    while True:
        records = coordinator.registry.records
        wanted = {r.digest for r in records.values() if r.pinned}
        coordinator.slots.pinned -= pinned_by_record - wanted
        pinned_by_record &= wanted
        for adapter_id, record in sorted(records.items(), key=lambda item: -item[1].priority):
            if coordinator.registry.rejection(adapter_id) is not None:
                continue
            try:
                if await _bring(coordinator, disk, adapter_id, record):
                    pinned_by_record.add(record.digest)
            except LoraLandError as error:
                log.warning("%s cannot be brought near yet: %s", adapter_id, error)
        await asyncio.sleep(CHECK_EVERY_S)


async def _bring(
    coordinator: Coordinator, disk: DiskTier, adapter_id: str, record: AdapterRecord
) -> bool:
    """Return whether this call has pinned the adapter."""
    is_held = (
        coordinator.slots.find(record.digest) is not None
        and record.digest in coordinator.slots.pinned
    )
    if record.pinned and not is_held:
        await coordinator.pin(adapter_id)
        return True
    if record.prefetch and not disk.has(record.digest):
        await disk.ensure(record)
    return False
