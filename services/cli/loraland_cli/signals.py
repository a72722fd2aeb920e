"""Interrupts that tear down in peace: the first one stops the command, later ones change nothing."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Raises ``KeyboardInterrupt`` for the first signal, unless told to ignore them from now on."""

    def __init__(self) -> None:
        self._ignored = False

    def ignore(self) -> None:
        self._ignored = True

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Treat Ctrl-C, a request to terminate and the terminal's end alike while inside."""
    interrupts = Interrupts()
    before: dict[int, Any] = {
        number: signal.signal(number, interrupts.on_signal) for number in _SIGNALS
    }
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
