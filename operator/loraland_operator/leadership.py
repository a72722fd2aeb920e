"""Holds the Lease that lets one of several operators act.

A leader that cannot renew in time ends its process at once, so that nothing it still had in hand is
written after another has taken over. Its clock goes on while the process is stopped or its machine
is suspended; it is asked before every write, and when the process is continued.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from loraland_core.errors import LoraLandError

from loraland_operator.answers import AlreadyExists, Stale
from loraland_operator.cluster import LEASES, Cluster, Object
from loraland_operator.plan import lease as plan

log = logging.getLogger(__name__)

LEASE = "loraland-operator"
EXIT_LOST = 3
_REQUEST_TIMEOUT_S = 4.0
_SEIZE_AGAIN_S = 0.05


def _clock_s() -> float:
    """Return seconds that go on while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _end_process() -> None:
    # No clean-up: whatever it would write comes too late.
    sys.stderr.flush()
    os._exit(EXIT_LOST)


class Leadership:
    """One contender for one Lease."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float] = _clock_s,
        end: Callable[[], None] = _end_process,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._end = end
        self._renewed_s: float | None = None
        # The Lease as it was last seen to change, and when.
        self._seen: Object | None = None
        self._seen_s = clock()

    @property
    def is_leading(self) -> bool:
        return self._renewed_s is not None

    def check(self) -> None:
        """End the process if it led and has not renewed in time. Call before every write."""
        if self._renewed_s is None:
            return
        age_s = self._clock() - self._renewed_s
        if age_s >= plan.DURATION_S:
            log.error("the Lease %s was not renewed for %.1f s: ending", self._name, age_s)
            self._end()

    def check_when_continued(self) -> None:
        """Have a stopped process check before it does anything else."""
        signal.signal(signal.SIGCONT, lambda *_: self.check())

    async def acquire(self) -> None:
        """Wait until this process leads."""
        while not await self._try():
            pause_s = plan.RETRY_S * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
            await asyncio.sleep(pause_s)
        log.info("%s leads", self._identity)

    async def hold(self) -> None:
        """Renew until cancelled; end the process where that fails for too long."""
        while True:
            await asyncio.sleep(plan.RETRY_S)
            if not await self._try():
                assert self._renewed_s is not None
                if self._clock() - self._renewed_s >= plan.RENEW_DEADLINE_S or self._is_anothers():
                    log.error("the Lease %s is lost: ending", self._name)
                    self._end()

    async def seize(self, hold_s: int) -> bool:
        """Take the Lease for so long, whoever has it; return whether somebody else had it."""
        while True:
            found = await self._cluster.find(LEASES, self._namespace, self._name)
            self._note(found)
            try:
                self._note(await self._write(duration_s=hold_s))
            except (Stale, AlreadyExists):
                # It was renewed meanwhile: the next look has the newer version.
                await asyncio.sleep(_SEIZE_AGAIN_S)
                continue
            holder = (found or {}).get("spec", {}).get("holderIdentity")
            return holder not in (None, "", self._identity)

    async def release(self) -> None:
        """Let another one lead at once; if the API server does not answer, it waits for expiry."""
        if self._renewed_s is None or self._seen is None:
            return
        self._renewed_s = None
        with contextlib.suppress(LoraLandError, TimeoutError):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                spec = plan.released_spec(self._seen)
                await self._cluster.replace(LEASES, {**self._seen, "spec": spec})

    def _is_anothers(self) -> bool:
        return self._seen is not None and self._seen["spec"].get("holderIdentity") not in (
            self._identity,
            "",
        )

    async def _try(self) -> bool:
        """Take or renew the Lease; False where it is another's or could not be written."""
        begun_s = self._clock()
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await self._look()
                unchanged_for_s = self._clock() - self._seen_s
                if not plan.may_take(self._seen, self._identity, unchanged_for_s=unchanged_for_s):
                    return False
                self._note(await self._write())
        except (LoraLandError, TimeoutError) as error:
            log.warning("the Lease %s cannot be written: %s", self._name, error or "no answer")
            return False
        # From before the request: later than that, others may count from.
        self._renewed_s = begun_s
        return True

    async def _look(self) -> None:
        found = await self._cluster.find(LEASES, self._namespace, self._name)
        if _version(found) != _version(self._seen):
            self._note(found)

    async def _write(self, *, duration_s: float = plan.DURATION_S) -> Object:
        spec = plan.next_spec(self._seen, self._identity, datetime.now(UTC), duration_s=duration_s)
        if self._seen is None:
            metadata = {"namespace": self._namespace, "name": self._name}
            return await self._cluster.create(
                LEASES,
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": metadata,
                    "spec": spec,
                },
            )
        return await self._cluster.replace(LEASES, {**self._seen, "spec": spec})

    def _note(self, lease: Object | None) -> None:
        self._seen, self._seen_s = lease, self._clock()


def _version(lease: Object | None) -> str:
    return str(lease["metadata"].get("resourceVersion")) if lease else ""
