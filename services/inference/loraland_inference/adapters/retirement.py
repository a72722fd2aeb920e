"""Lets go of what the registry no longer names: an earlier digest, a disabled or deleted adapter.

An artifact without a name gives up its slot as soon as no request uses it. A request on an earlier
digest of an adapter that is still there runs to its end, and its files stay near for a while: it may
come back. A request on an adapter that is gone has the grace period, and its files go from memory and
disk as well. While the registry is unknown nothing is let go: its silence says nothing.
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
        # By adapter id, as last looked at; and the artifacts of those that are gone.
        self._digests: dict[str, str] = {}
        self._unwanted: set[str] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(CHECK_EVERY_S)

    async def look(self) -> None:
        """Retire what has no name, and end what had its grace."""
        registry = self._coordinator.registry
        if not registry.is_known:
            return
        records = registry.records
        named = {record.digest for record in records.values()}
        self._coordinator.retire(named)
        self._end_requests(set(records))
        before, self._digests = self._digests, {i: r.digest for i, r in records.items()}
        self._unwanted |= {before[i] for i in set(before) - set(records)}
        self._unwanted -= named
        for digest in sorted(self._unwanted):
            await self._forget(digest)

    async def _forget(self, digest: str) -> None:
        try:
            if await self._coordinator.forget(digest):
                self._unwanted.discard(digest)
        except OSError as error:
            log.warning("%s stays on disk for now: %s", digest[:12], error)

    def _end_requests(self, known: set[str]) -> None:
        gone = self._state.adapters_in_use - known
        now_s = self._clock()
        self._gone_since_s = {a: self._gone_since_s.get(a, now_s) for a in gone}
        for adapter_id, since_s in self._gone_since_s.items():
            if now_s - since_s >= self._grace_s:
                num_ended = self._state.end(_gone, adapter_id)
                if num_ended:
                    log.warning("%s is gone: %d requests ended", adapter_id, num_ended)


def _gone(adapter_id: str) -> LoraLandError:
    return NotFound(f"adapter {adapter_id!r} was disabled or deleted while this request ran")
