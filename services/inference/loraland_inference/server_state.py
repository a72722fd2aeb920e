"""How busy this replica is, and whether it takes requests. No I/O."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from loraland_core.errors import Unavailable

from loraland_inference.failures import QueueFull

# When a place is likely to have become free.
RETRY_AFTER_S = 1.0


class ServerState:
    """The admission of requests: at most ``max_requests`` at a time, none while draining."""

    def __init__(
        self, *, base_model: str, replica: str, max_rank: int, version: str, max_requests: int
    ) -> None:
        self.base_model = base_model
        self.replica = replica
        self.max_rank = max_rank
        self.version = version
        self.is_draining = False
        self.num_requests = 0
        # Set while no request is here.
        self.idle = asyncio.Event()
        self.idle.set()
        self._max_requests = max_requests

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request for as long as it lasts; raise ``QueueFull`` where it is one too many."""
        if self.is_draining:
            raise Unavailable("this replica is draining; ask another", retry_after_s=RETRY_AFTER_S)
        if self.num_requests >= self._max_requests:
            raise QueueFull(
                f"{self.num_requests} requests are running or waiting, which is this replica's"
                " limit; come back later",
                retry_after_s=RETRY_AFTER_S,
            )
        self.num_requests += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.num_requests -= 1
            if not self.num_requests:
                self.idle.set()
