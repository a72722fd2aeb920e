"""This replica's signs of life in Redis: the heartbeat, what it holds, its place in the index."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from loraland_core import keys, redis_connection
from loraland_core.keys import Heartbeat, Residency

from loraland_inference.adapters.link import Link

# A replica that has been silent this long is dropped from the index by whichever beats next.
FORGET_AFTER_S = 60.0
# News is told at once, but no oftener than this.
MIN_GAP_S = 0.25


class Presence:
    """Beats until cancelled, then takes itself out."""

    def __init__(
        self,
        client: Any,
        *,
        heartbeat: Callable[[], Heartbeat],
        residency: Callable[[], Residency],
        every_s: float = keys.HEARTBEAT_EVERY_S,
        link: Link | None = None,
    ) -> None:
        self._redis = client
        self._heartbeat = heartbeat
        self._residency = residency
        self._every_s = every_s
        self._link = link or Link("this replica is not seen")
        self._news = asyncio.Event()
        self._written: Residency | None = None

    def tell(self) -> None:
        """Beat soon: there is something new to say."""
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._beat()
                redis_connection.raise_if_cancelled()
                self._link.worked()
            except redis_connection.FAILURES as error:
                # After an outage the residency may be gone as well. However long it lasts, the
                # beat keeps its pace: a replica that is not seen gets no requests.
                self._written = None
                self._link.failed(error)
                self._news.clear()
            await self._pause()

    async def leave(self) -> None:
        """Vanish at once instead of at the end of the TTL."""
        beat = self._heartbeat()
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.delete(keys.beat(beat.base_model, beat.replica))
                pipe.delete(keys.residency(beat.base_model, beat.replica))
                pipe.zrem(keys.replicas(beat.base_model), beat.replica)
                await pipe.execute()
        except redis_connection.FAILURES as error:
            self._link.failed(error)

    async def _pause(self) -> None:
        """Wait for the next beat, or for news; replicas that started together drift apart."""
        await asyncio.sleep(MIN_GAP_S)
        rest_s = self._every_s * random.uniform(0.9, 1.1) - MIN_GAP_S  # noqa: S311 (jitter)
        # Not ``wait_for``: Python 3.11's loses a cancellation that comes together with the news.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(rest_s, 0.0)):
                await self._news.wait()

    async def _beat(self) -> None:
        beat, residency = self._heartbeat(), self._residency()
        now_s = time.time()
        key = keys.residency(beat.base_model, beat.replica)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(
                keys.beat(beat.base_model, beat.replica), beat.to_json(), ex=keys.HEARTBEAT_TTL_S
            )
            pipe.zadd(keys.replicas(beat.base_model), {beat.replica: now_s})
            pipe.zremrangebyscore(keys.replicas(beat.base_model), 0, now_s - FORGET_AFTER_S)
            if residency != self._written:
                pipe.set(key, residency.to_json(), ex=keys.HEARTBEAT_TTL_S)
            else:
                pipe.expire(key, keys.HEARTBEAT_TTL_S)
            *_, kept = await pipe.execute()
        # A Redis that was restarted empty has nothing left to renew.
        self._written = residency if kept else None
