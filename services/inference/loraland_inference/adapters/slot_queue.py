"""Who waits for a slot, longest first. No policy: what gives way is decided in ``slots``."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

DRAIN_AFTER_S = 1.0


class SlotQueue:
    """``start_drain`` is called while the first one has waited for longer than ``DRAIN_AFTER_S``."""

    def __init__(self, start_drain: Callable[[], object]) -> None:
        self._start_drain = start_drain
        self._turns: deque[asyncio.Event] = deque()

    @asynccontextmanager
    async def turn(self, make_room: Callable[[], bool]) -> AsyncIterator[None]:
        """Enter when there is room and nobody waits longer for it."""
        turn = asyncio.Event()
        self._turns.append(turn)
        try:
            now_s = asyncio.get_running_loop().time
            drain_s = now_s() + DRAIN_AFTER_S
            while self._turns[0] is not turn or not make_room():
                turn.clear()
                # Whoever gives a reference back wakes us, so that no single wait tells the time.
                if now_s() >= drain_s and self._turns[0] is turn:
                    self._start_drain()
                # Whoever becomes first later than it came has waited some of the time already.
                wait_s = max(drain_s - now_s(), 0.0) or DRAIN_AFTER_S
                with suppress(TimeoutError):
                    # ``wait_for`` may lose a cancellation that comes together with the turn.
                    async with asyncio.timeout(wait_s):
                        await turn.wait()
            yield
        finally:
            self._turns.remove(turn)
            self.wake()

    def wake(self) -> None:
        """Let the first one look again."""
        if self._turns:
            self._turns[0].set()
