"""How much each adapter is used, over all replicas: counted here, decayed and added up in Redis.

A use is worth half as much an hour later. Scores are kept as logarithms on one time axis, the log2
of the sum of ``2 ** (time of use / half-life)``: their order is the order of decayed use at any
time, nothing has to be decayed, nothing overflows. Lost counts cost a worse choice, no more.

Source of forward decay: Cormode et al. 2009, "Forward Decay: A Practical Time Decay Model for
Streaming Systems".
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from loraland_core import keys, redis_connection

log = logging.getLogger("loraland.uses")

HALF_LIFE_S = 3600.0
FLUSH_EVERY_S = 10.0
MAX_ADAPTERS = 10_000
# What was used less than this in the end (one use, twenty half-lives ago) is forgotten.
FORGET_BELOW = 2.0**-20

# KEYS[1] the set; ARGV: the score below which members go, how many may stay, then pairs of member
# and log2 score. Cluster-safe: one key.
_ADD = """
for i = 3, #ARGV, 2 do
  local new = tonumber(ARGV[i + 1])
  local old = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if old then
    old = tonumber(old)
    local high, low = math.max(old, new), math.min(old, new)
    new = high + math.log(1 + 2 ^ (low - high)) / math.log(2)
  end
  redis.call('ZADD', KEYS[1], string.format('%.17g', new), ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
return redis.call('ZCARD', KEYS[1])
"""


def score(num_uses: float, now_s: float) -> float:
    """Return what so many uses at a time are worth on the common axis."""
    return math.log2(num_uses) + now_s / HALF_LIFE_S


def decayed(value: float, now_s: float) -> float:
    """Return how many uses now a score is worth."""
    return float(2.0 ** (value - now_s / HALF_LIFE_S))


class Uses:
    """Counts uses in memory, carries them to Redis now and then, and reads everybody's."""

    def __init__(
        self, client: Any, base_model: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = client
        self._key = keys.use(base_model)
        self._clock = clock
        self._counts: dict[str, float] = {}
        # Decayed uses of all replicas together, as last read; most used first.
        self.ranking: dict[str, float] = {}

    def count(self, adapter_id: str, num_uses: float = 1.0) -> None:
        """Note that a request named the adapter."""
        self._counts[adapter_id] = self._counts.get(adapter_id, 0.0) + num_uses

    async def run(self) -> None:
        """Carry and read until cancelled; while Redis is away the counts wait here."""
        while True:
            try:
                await self.flush()
                self.ranking = await self.read_top(MAX_ADAPTERS)
                redis_connection.raise_if_cancelled()
            except redis_connection.FAILURES as error:
                log.info("use counts wait for redis: %s", redis_connection.describe(error))
            await asyncio.sleep(FLUSH_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)

    async def flush(self) -> None:
        """Add what was counted to what stands in Redis."""
        counts, self._counts = self._counts, {}
        try:
            if counts:
                await self._add(counts)
        except BaseException:
            # Perhaps they arrived all the same: a doubled count does no harm, a growing one would.
            for adapter_id, num_uses in list(counts.items())[:MAX_ADAPTERS]:
                self.count(adapter_id, num_uses)
            raise

    async def read_top(self, num_adapters: int) -> dict[str, float]:
        """Return the most used adapters with their decayed uses, most used first."""
        pairs = await self._redis.zrevrange(self._key, 0, num_adapters - 1, withscores=True)
        now_s = self._clock()
        return {_text(member): decayed(float(value), now_s) for member, value in pairs}

    async def _add(self, counts: Mapping[str, float]) -> None:
        now_s = self._clock()
        arguments = [f"{score(FORGET_BELOW, now_s):.17g}", str(MAX_ADAPTERS)]
        for adapter_id, num_uses in counts.items():
            arguments += [adapter_id, f"{score(num_uses, now_s):.17g}"]
        await self._redis.eval(_ADD, 1, self._key, *arguments)


def _text(member: bytes | str) -> str:
    return member.decode() if isinstance(member, bytes) else member
