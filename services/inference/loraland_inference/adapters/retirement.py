"""Lets go of what the registry no longer names: an earlier digest, a disabled or deleted adapter.

An artifact without a name gives up its slot as soon as no request uses it. A request on an earlier
digest of an adapter that is still there runs to its end; one on an adapter that is gone has the
grace period. While the registry is unknown nothing is let go: its silence says nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from loraland_core.errors import LoraLandError, NotFound

from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.server_state import ServerState

log = logging.getLogger("loraland.adapters")

CHECK_EVERY_S = 0.5


class Retirement:
    """Looks at the registry now and then."""

    def __init__(
        self,
        coordinator: Coordinator,
        state: ServerState,
        *,
        grace_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._coordinator = coordinator
        self._state = state
        self._grace_s = grace_s
        self._clock = clock
        # Since when adapters that requests still use have been gone.
        self._gone_since_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(CHECK_EVERY_S)

    def look(self) -> None:
        """Retire what has no name, and end what had its grace."""
        registry = self._coordinator.registry
        if not registry.is_known:
            return
        records = registry.records
        self._coordinator.retire({record.digest for record in records.values()})
        gone = self._state.adapters_in_use - set(records)
        now_s = self._clock()
        self._gone_since_s = {a: self._gone_since_s.get(a, now_s) for a in gone}
        for adapter_id, since_s in self._gone_since_s.items():
            if now_s - since_s >= self._grace_s:
                num_ended = self._state.end(_gone, adapter_id)
                if num_ended:
                    log.warning("%s is gone: %d requests ended", adapter_id, num_ended)


def _gone(adapter_id: str) -> LoraLandError:
    return NotFound(f"adapter {adapter_id!r} was disabled or deleted while this request ran")
