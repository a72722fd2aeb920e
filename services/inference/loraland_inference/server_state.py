"""How busy this replica is, and whether it takes requests. No I/O."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loraland_core.errors import LoraLandError, Unavailable

from loraland_inference.failures import QueueFull

# When a place is likely to have become free.
RETRY_AFTER_S = 1.0


@dataclass(eq=False)
class _Request:
    """A request in this process; ``error`` is why it was ended, if it was."""

    adapter_id: str
    task: "asyncio.Task[Any] | None"
    error: LoraLandError | None = None


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
        # Set while no request is here.
        self.idle = asyncio.Event()
        self.idle.set()
        self._max_requests = max_requests
        self._requests: set[_Request] = set()

    @property
    def num_requests(self) -> int:
        return len(self._requests)

    @property
    def adapters_in_use(self) -> set[str]:
        """The adapters that running requests have named."""
        return {r.adapter_id for r in self._requests if r.adapter_id}

    @contextmanager
    def admitted(self, adapter_id: str = "") -> Iterator[None]:
        """Count a request for as long as it lasts; raise ``QueueFull`` where it is one too many.

        Raises what ``end`` is given, if this request is ended before it ends itself.
        """
        if self.is_draining:
            raise Unavailable("this replica is draining; ask another", retry_after_s=RETRY_AFTER_S)
        if self.num_requests >= self._max_requests:
            raise QueueFull(
                f"{self.num_requests} requests are running or waiting, which is this replica's"
                " limit; come back later",
                retry_after_s=RETRY_AFTER_S,
            )
        request = _Request(adapter_id, _current_task())
        self._requests.add(request)
        self.idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if request.error is None:
                raise
            assert request.task is not None
            request.task.uncancel()
            raise request.error from None
        finally:
            self._requests.remove(request)
            if not self._requests:
                self.idle.set()

    def end(self, build_error: Callable[[str], LoraLandError], adapter_id: str = "") -> int:
        """End the requests of one adapter, or all, with an error each; return how many."""
        ended = [
            r
            for r in self._requests
            if r.error is None and r.task is not None and adapter_id in ("", r.adapter_id)
        ]
        for request in ended:
            request.error = build_error(request.adapter_id)
            assert request.task is not None
            request.task.cancel()
        return len(ended)


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        # No loop runs: nothing could be ended, and nothing waits.
        return None
