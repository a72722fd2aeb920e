"""One download of an artifact a node: replicas that share a disk take turns by a lease in Redis.

An optimisation only. Files are named by content and renamed when whole, so a lease that is lost, or
that Redis cannot give, costs bandwidth and never correctness: whoever cannot ask goes ahead.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from loraland_core import keys, redis_connection

log = logging.getLogger("loraland.leases")

# How often whoever waits looks whether the artifact is there or the lease is free.
LOOK_EVERY_S = 0.5
# A download that takes longer than this keeps nobody else waiting.
MAX_WAIT_S = 300.0

# Compare and act in one step, so that nobody ends or prolongs what has become another's.
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""


class Leases:
    """The leases of one node. Each key stands alone, which suits a Redis Cluster."""

    def __init__(self, client: Any, *, node: str, ttl_s: float = keys.LEASE_TTL_S) -> None:
        self._redis = client
        self._node = node
        self._ttl_ms = int(ttl_s * 1000)

    async def take(self, digest: str) -> str | None:
        """Return a token, or None where another one holds the lease."""
        token = secrets.token_hex(16)
        key = keys.lease(self._node, digest)
        is_ours = await self._redis.set(key, token, nx=True, px=self._ttl_ms)
        return token if is_ours else None

    async def renew(self, digest: str, token: str) -> bool:
        """Prolong the lease; False where it ran out or is another's."""
        key = keys.lease(self._node, digest)
        return bool(await self._redis.eval(_RENEW, 1, key, token, self._ttl_ms))

    async def release(self, digest: str, token: str) -> bool:
        """Give the lease back; False where it ran out or is another's."""
        return bool(await self._redis.eval(_RELEASE, 1, keys.lease(self._node, digest), token))

    @asynccontextmanager
    async def turn(self, digest: str, is_done: Callable[[], bool]) -> AsyncIterator[bool]:
        """Enter when it is our turn to download, with True; with False when another one has done it.

        Waits while others hold the lease, ``MAX_WAIT_S`` at most; ours is prolonged while the block
        runs.
        """
        token = await self._wait(digest, is_done)
        if is_done():
            await self._give_back(digest, token)
            yield False
            return
        renewal = asyncio.create_task(self._keep(digest, token)) if token else None
        try:
            yield True
        finally:
            if renewal is not None:
                renewal.cancel()
                await asyncio.gather(renewal, return_exceptions=True)
            await self._give_back(digest, token)

    async def _wait(self, digest: str, is_done: Callable[[], bool]) -> str | None:
        """Return our token; None where it is done, or waiting is of no use."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + MAX_WAIT_S
        while not is_done() and loop.time() < until_s:
            try:
                token = await self.take(digest)
                redis_connection.raise_if_cancelled()
            except redis_connection.FAILURES as error:
                log.warning("no lease, downloading all the same: %s", _describe(error))
                return None
            if token:
                return token
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 (jitter)
        return None

    async def _keep(self, digest: str, token: str) -> None:
        while True:
            await asyncio.sleep(self._ttl_ms / 3000)
            try:
                is_ours = await self.renew(digest, token)
                redis_connection.raise_if_cancelled()
                if not is_ours:
                    log.warning("the lease on %s was lost; downloading on", digest[:12])
                    return
            except redis_connection.FAILURES as error:
                log.warning("the lease on %s is not renewed: %s", digest[:12], _describe(error))

    async def _give_back(self, digest: str, token: str | None) -> None:
        if token is None:
            return
        try:
            await self.release(digest, token)
        except redis_connection.FAILURES as error:
            log.warning("the lease on %s ends by its TTL: %s", digest[:12], _describe(error))


def _describe(error: BaseException) -> str:
    return redis_connection.describe(error)
