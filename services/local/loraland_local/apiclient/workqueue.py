"""Calls a reconciler for keys that changed: one call at a time for a key, failures backed off.

The thin loop of every controller; what is to be decided lies in the controllers' pure modules.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Key

Reconcile = Callable[[Key], Awaitable[float | None]]
"""Brings one object in order; returns the seconds until it wants to be called again."""

_log = logging.getLogger(__name__)
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 30.0


class Workqueue:
    """Keys waiting for their reconciliation."""

    def __init__(self, name: str, reconcile: Reconcile, *, num_workers: int = 4) -> None:
        self._name = name
        self._reconcile = reconcile
        self._num_workers = num_workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Ask for a reconciliation soon."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Ask for a reconciliation in a while, or sooner if something else asks for it."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay_s:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._num_workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            try:
                await self._reconcile_once(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _reconcile_once(self, key: Key) -> None:
        try:
            requeue_after_s = await self._reconcile(key)
        except ApiError as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            level = logging.DEBUG if error.is_conflict else logging.WARNING
            _log.log(level, "%s %s: %s; trying again", self._name, "/".join(key), error)
            self.add_after(key, _backoff_s(failures))
            return
        except Exception:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            _log.exception("%s %s: failed; trying again", self._name, "/".join(key))
            self.add_after(key, _backoff_s(failures))
            return
        self._failures.pop(key, None)
        if requeue_after_s is not None:
            self.add_after(key, max(requeue_after_s, 0.01))


def _backoff_s(failures: int) -> float:
    exponential_s = _FIRST_BACKOFF_S * float(2 ** min(failures - 1, 16))
    return min(exponential_s, _MAX_BACKOFF_S) * random.uniform(0.5, 1.5)  # noqa: S311 jitter
