"""How this replica gets along with Redis: up or down, since when, why, and when to try again. No I/O.

One for reading the registry and one for being seen in it: each says an outage once, not each time.
"""

import logging
import random
import time
from collections.abc import Callable

from loraland_core import redis_connection

log = logging.getLogger("loraland.redis")

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 15.0


class Link:
    """``consequence`` is what an outage means, in the words of the log."""

    def __init__(self, consequence: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._consequence = consequence
        self._clock = clock
        self._backoff_s = FIRST_BACKOFF_S
        self._worked_at_s: float | None = None
        self.num_failures = 0
        # Why it does not work; empty while it does.
        self.problem = ""

    @property
    def is_up(self) -> bool:
        """Whether the last attempt succeeded; False before the first one."""
        return self._worked_at_s is not None and not self.problem

    @property
    def silent_s(self) -> float:
        """Seconds since it worked; infinite before it did."""
        return float("inf") if self._worked_at_s is None else self._clock() - self._worked_at_s

    def worked(self) -> None:
        if self.problem:
            log.info("redis answers again (%s)", self._consequence)
        self._worked_at_s, self.problem, self._backoff_s = self._clock(), "", FIRST_BACKOFF_S

    def failed(self, error: BaseException) -> float:
        """Note a failure; return how long to wait before the next attempt, with jitter."""
        problem = redis_connection.describe(error)
        if not self.problem:
            log.warning("redis does not do as asked, %s: %s", self._consequence, problem)
        self.problem = problem
        self.num_failures += 1
        wait_s = self._backoff_s * random.uniform(0.5, 1.5)  # noqa: S311 (jitter)
        self._backoff_s = min(MAX_BACKOFF_S, self._backoff_s * 2)
        return wait_s
