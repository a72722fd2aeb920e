"""SIGTERM: Kubernetes asks the pod to go. Training finishes its step first; all else stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """The pod was asked to stop. Not an ``Exception``: no retry loop of a library may swallow it."""


class Terminator:
    """Turns SIGTERM into ``Terminated``, at a moment when nothing is half done."""

    def __init__(self) -> None:
        self.requested = False
        self._deferring = False

    def install(self) -> None:
        """Take over SIGTERM; main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request()

    def request(self) -> None:
        """Ask for the end; raises at once unless something must be finished first."""
        self.requested = True
        if not self._deferring:
            raise Terminated

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a request while the block runs, and raise at its end."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.requested:
            raise Terminated
