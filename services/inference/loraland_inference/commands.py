"""Commands that the engine owes an answer: who waits for each, and since when. No I/O.

The engine answers each kind in order: one of whose kind nothing is heard for long is stuck, and so
are those behind it, whatever else the engine says meanwhile.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from loraland_core.errors import LoraLandError

from loraland_inference.messages import Message


@dataclass(frozen=True)
class _Command:
    kind: str
    asked_s: float
    # None where nobody waits for the answer itself.
    reply: asyncio.Future[Message] | None


class Commands:
    """Those without an answer. One whose caller has gone stays: the engine is at it still."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: dict[str, _Command] = {}
        self._answered_s: dict[str, float] = {}

    def ask(self, kind: str, key: str) -> asyncio.Future[Message]:
        """Return what will be the answer under the key."""
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[key] = _Command(kind, self._clock(), reply)
        return reply

    def expect(self, kind: str, key: str) -> None:
        """Note that an answer under the key is owed, though nobody waits for it."""
        self._open[key] = _Command(kind, self._clock(), None)

    def answer(self, key: str, reply: Message | LoraLandError) -> None:
        command = self._open.pop(key, None)
        if command is None:
            return
        self._answered_s[command.kind] = self._clock()
        _resolve(command, reply)

    def fail(self, error: LoraLandError) -> None:
        """Answer all of them with the error."""
        commands, self._open = self._open, {}
        for command in commands.values():
            _resolve(command, error)

    def silence_s(self) -> float:
        """Return for how long the engine has owed an answer and given none of its kind."""
        since_s = [
            max(c.asked_s, self._answered_s.get(c.kind, c.asked_s)) for c in self._open.values()
        ]
        return self._clock() - min(since_s) if since_s else 0.0


def _resolve(command: _Command, reply: Message | LoraLandError) -> None:
    if command.reply is None or command.reply.done():
        return
    if isinstance(reply, LoraLandError):
        command.reply.set_exception(reply)
    else:
        command.reply.set_result(reply)
