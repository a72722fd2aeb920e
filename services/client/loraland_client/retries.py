"""When a call is tried again, and after how long. No I/O.

Every call has its own limit of attempts and its deadline; the budget is shared by all calls of a
client, so that a service in trouble does not get its load several times over.
"""

import random

from loraland_client.failures import CallFailed

MAX_ATTEMPTS = 5
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 10.0
# A client that has nothing but failures stops trying again after so many …
BUDGET = 100.0
# … and earns one more with every ten successes. The scheme is gRPC's own (proposal A6).
EARNED_BY_SUCCESS = 0.1


class Budget:
    """How many more attempts all calls together may cost."""

    def __init__(self, limit: float = BUDGET) -> None:
        self._limit = limit
        self._left = limit

    def spend(self) -> bool:
        """Take one attempt; False where none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def earn(self) -> None:
        self._left = min(self._limit, self._left + EARNED_BY_SUCCESS)


def delay_s(failure: CallFailed, attempt: int) -> float:
    """Return how long to wait after an attempt: what the server said, at least, with jitter."""
    exponential_s: float = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
    wait_s = max(exponential_s, min(MAX_DELAY_S, failure.details.retry_after_s or 0.0))
    jitter: float = random.uniform(1.0, 1.5)  # noqa: S311 (no secret)
    return wait_s * jitter
