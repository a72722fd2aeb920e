"""A queue of keys to reconcile: each key once, one worker a key, failures backed off. No I/O.

A key that is added while it is being worked on is worked on again afterwards, so no change is lost.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from loraland_core.errors import Unavailable

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
STOP_TIMEOUT_S = 10.0

# Returns when to come again by itself, in seconds; None for not before something changes.
Reconcile = Callable[[K], Awaitable[float | None]]


class Workqueue(Generic[K]):
    """Runs ``reconcile`` for keys with a few workers."""

    def __init__(
        self,
        reconcile: Reconcile[K],
        *,
        num_workers: int,
        scope: Callable[[K], AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
    ) -> None:
        self._reconcile = reconcile
        # Around all that is done and logged about a key.
        self._scope = scope
        self._num_workers = num_workers
        self._ready: deque[K] = deque()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wakeup = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, key: K) -> None:
        """Queue a key now; an appointment for later is dropped, a new one will be made."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._queued:
            return
        self._queued.add(key)
        if key not in self._active:
            self._ready.append(key)
            self._wakeup.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Queue a key after a while; the earlier of two appointments holds."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay_s:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay_s, self._ring, key)

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(), name=f"worker-{i}") for i in range(self._num_workers)
        ]

    async def stop(self) -> None:
        """Let no new work begin and end what goes on."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ring(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._wakeup.clear()
                await self._wakeup.wait()
            key = self._ready.popleft()
            self._queued.discard(key)
            self._active.add(key)
            try:
                with self._scope(key):
                    await self._reconcile_one(key)
            finally:
                self._active.discard(key)
                if key in self._queued:
                    self._ready.append(key)
                    self._wakeup.set()

    async def _reconcile_one(self, key: K) -> None:
        try:
            requeue_after_s = await self._reconcile(key)
        except Unavailable as error:
            self._retry(key, error, at_least_s=error.retry_after_s)
        except Exception as error:
            # Whatever goes wrong with one object must not stop the others.
            log.exception("%s cannot be reconciled", key)
            self._retry(key, error, at_least_s=FIRST_BACKOFF_S)
        else:
            self._failures.pop(key, None)
            log.debug("%s done, again in %s s", key, requeue_after_s)
            if requeue_after_s is not None and key not in self._queued:
                self.add_after(key, requeue_after_s)

    def _retry(self, key: K, error: Exception, *, at_least_s: float) -> None:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 10))
        delay_s = max(at_least_s, backoff_s) * random.uniform(0.8, 1.2)  # noqa: S311 (jitter)
        # The first time is mostly the world still getting up.
        level = logging.DEBUG if failures == 1 else logging.INFO
        log.log(level, "%s again in %.1f s (failure %d): %s", key, delay_s, failures, error)
        self.add_after(key, delay_s)
