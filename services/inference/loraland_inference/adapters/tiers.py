"""Builds the way of adapters from S3 to the slots, by the replica's settings. No I/O until prepared."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loraland_core.store import Store

from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.adapters.disk import DiskTier
from loraland_inference.adapters.fetching import Fetcher
from loraland_inference.adapters.host import HostTier
from loraland_inference.adapters.leases import Leases
from loraland_inference.adapters.observer import Observer
from loraland_inference.adapters.registry import Registry
from loraland_inference.adapters.slots import SlotTable
from loraland_inference.adapters.states import Places
from loraland_inference.config import Config
from loraland_inference.engine_client import EngineClient


@dataclass(frozen=True)
class Tiers:
    """What they hold is told by ``coordinator.tier``; what went wrong by ``places``."""

    coordinator: Coordinator
    disk: DiskTier
    host: HostTier
    places: Places

    def prepare(self) -> None:
        """Make the folders and find what is there; raise ``OSError``."""
        self.disk.prepare()
        self.host.prepare()

    async def close(self) -> None:
        await self.host.close()
        await self.disk.close()


def build(
    config: Config,
    *,
    store: Store,
    redis: Any,
    engine: EngineClient,
    registry: Registry,
    observer: Observer,
    on_use: Callable[[str], None],
) -> Tiers:
    """Return the tiers around one engine."""
    places = Places(time.monotonic)
    disk = DiskTier(
        Fetcher(store, max_bytes=min(config.max_adapter_bytes, config.disk_bytes)),
        config.adapter_dir,
        budget_bytes=config.disk_bytes,
        concurrent_fetches=config.concurrent_fetches,
        turns=lambda disk_name: Leases(redis, node=disk_name),
        places=places,
        observer=observer,
    )
    host = HostTier(
        folder=config.packed_dir,
        budget_bytes=config.host_bytes,
        disk=disk,
        packer=engine,
        places=places,
        observer=observer,
    )
    coordinator = Coordinator(
        registry=registry,
        disk=disk,
        host=host,
        engine=engine,
        slots=SlotTable(config.num_slots, budget_bytes=config.slot_bytes),
        places=places,
        observer=observer,
        on_use=on_use,
    )
    return Tiers(coordinator, disk, host, places)
