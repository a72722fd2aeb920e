"""Trying again, for work that took long to make: hours of training are not lost to a short outage."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from loraland_core.errors import Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 8
FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 60.0


def insist(
    what: str,
    act: Callable[[], T],
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Return what ``act`` returns; while it raises ``Unavailable``, wait and try again.

    ``act`` must bear being repeated. The waits double up to a minute, each shortened by up to half
    at random, so that the pods of one outage do not come back in step: three minutes in all.
    """
    delay_s = FIRST_DELAY_S
    for attempt in range(1, attempts):
        try:
            return act()
        except Unavailable as error:
            wait_s = delay_s * (1 - jitter() / 2)
            log.warning(
                "%s failed (attempt %d of %d), again in %.0f s: %s",
                what,
                attempt,
                attempts,
                wait_s,
                error,
            )
            sleep(wait_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
    return act()
