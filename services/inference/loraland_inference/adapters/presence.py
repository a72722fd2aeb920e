"""This replica's signs of life in Redis: the heartbeat, what it holds, its place in the index."""

import asyncio
import logging
import time
from collections.abc import Callable

import redis.asyncio
import redis.exceptions
from loraland_core import keys
from loraland_core.keys import Heartbeat, Residency

log = logging.getLogger("loraland.presence")

# A replica that has been silent this long is dropped from the index by whichever beats next.
FORGET_AFTER_S = 60.0


class Presence:
    """Beats until cancelled, then takes itself out."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        heartbeat: Callable[[], Heartbeat],
        residency: Callable[[], Residency],
        every_s: float = keys.HEARTBEAT_EVERY_S,
    ) -> None:
        self._redis = client
        self._heartbeat = heartbeat
        self._residency = residency
        self._every_s = every_s
        self._written: Residency | None = None
        self._is_down = False

    async def run(self) -> None:
        while True:
            try:
                await self._beat()
                self._is_down = False
            except (redis.exceptions.RedisError, OSError) as error:
                # After an outage the residency may be gone as well.
                self._written = None
                if not self._is_down:
                    log.warning("no heartbeat: redis does not answer: %s", error)
                self._is_down = True
            await asyncio.sleep(self._every_s)

    async def leave(self) -> None:
        """Vanish at once instead of at the end of the TTL."""
        beat = self._heartbeat()
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.delete(keys.beat(beat.base_model, beat.replica))
                pipe.delete(keys.residency(beat.base_model, beat.replica))
                pipe.zrem(keys.replicas(beat.base_model), beat.replica)
                await pipe.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            log.warning("redis does not answer; this replica vanishes by its TTL: %s", error)

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
