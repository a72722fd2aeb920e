"""The trace of a call, as the parts that work on it see it. Does nothing until tracing is switched on.

No OpenTelemetry here: ``spans`` has it, and is imported only when there is somewhere to send to.
"""

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Attributes = dict[str, str | int | float | bool]


class CallTrace:
    """One call's span and those below it; this one notes nothing."""

    def set(self, **attributes: str | int | float | bool) -> None:
        """Note facts of the call; dots stand for double underscores."""

    def event(self, name: str, **attributes: str | int | float | bool) -> None:
        """Note that something happened now."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note a part of the call that lasts as long as the block."""
        yield

    def past_phase(self, name: str, started_s: float, ended_s: float) -> None:
        """Note a part of the call that is over; in seconds of ``time.time``."""

    def end(self, code: str) -> None:
        """The call has been answered with this gRPC status."""


class Tracer:
    """Begins the trace of each call; this one begins none."""

    def begin(self, method: str, metadata: Any) -> CallTrace:
        """Continue the caller's trace, if the metadata names one."""
        return _NONE

    def close(self) -> None:
        """Send what has not been sent."""


_NONE = CallTrace()
current: contextvars.ContextVar[CallTrace] = contextvars.ContextVar("call_trace", default=_NONE)


def call() -> CallTrace:
    """Return the trace of the call that this code works for."""
    return current.get()
