"""The front's end of the pipe: starts the engine process, speaks to it, watches it, starts it again.

No torch. Requests in flight when the engine dies or hangs are answered ``Unavailable``; what it held
in its slots is gone, which ``on_down`` tells.
"""

import asyncio
import json
import logging
import sys
import time
import uuid
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loraland_core.errors import ArtifactInvalid, InvalidInput, LoraLandError, Unavailable

from loraland_inference import child, messages
from loraland_inference.commands import Commands
from loraland_inference.failures import InternalFault, QueueFull
from loraland_inference.messages import Message, Output

log = logging.getLogger("loraland.engine")

COMMAND = (sys.executable, "-m", "loraland_inference.engine_process")
CHECK_EVERY_S = 0.5
MAX_RESTART_DELAY_S = 30.0
# An engine that ran this long was healthy: the next restart is immediate again.
HEALTHY_AFTER_S = 60.0


@dataclass(frozen=True)
class EngineInfo:
    """What the engine knows of its base model."""

    context_tokens: int
    vocabulary_size: int
    resolved_revision: str
    precision: str


@dataclass(eq=False)
class Ticket:
    """A request in the engine: its completions' outputs, or an error. Ends exactly once."""

    id: str
    # Completions that have not ended.
    num_open: int = 1
    outputs: asyncio.Queue[Output | LoraLandError] = field(default_factory=asyncio.Queue)
    # Done when the engine no longer touches the request, whoever still listens.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    on_end: Callable[[], None] = lambda: None

    def end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self.on_end()


class EngineClient:
    """One engine process at a time, for as long as ``run`` runs."""

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        step_limit_s: float,
        start_limit_s: float,
        command: tuple[str, ...] = COMMAND,
        on_up: Callable[[EngineInfo], None] = lambda _: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = (*command, json.dumps(settings))
        self._step_limit_s = step_limit_s
        self._start_limit_s = start_limit_s
        self.on_up = on_up
        self.on_down = on_down
        self.info: EngineInfo | None = None
        self.is_ready = False
        self.num_restarts = 0
        # What the engine said of itself with its last step.
        self._stats: dict[str, int] = {}
        self._process: Process | None = None
        self._tickets: dict[str, Ticket] = {}
        self._commands = Commands(time.monotonic)
        self._last_heard_s = 0.0

    @property
    def num_requests(self) -> int:
        return len(self._tickets)

    def stat(self, name: str) -> int:
        """Return what the engine last said of itself under this name; 0 if nothing yet."""
        return self._stats.get(name, 0)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    # Requests.

    def generate(
        self, request: Message, *, on_end: Callable[[], None], num_completions: int = 1
    ) -> Ticket:
        """Send a ``generate`` or ``score`` message; its id is chosen here."""
        # Found in no other replica's log.
        ticket = Ticket(uuid.uuid4().hex, num_completions, on_end=on_end)
        try:
            self._send(request | {"id": ticket.id})
        except Unavailable:
            ticket.end()
            raise
        # The thread that tokenizes reads it first; steps of others would not show that it hangs.
        self._commands.expect("tokenize", ticket.id)
        if not self._tickets:
            self._last_heard_s = time.monotonic()
        self._tickets[ticket.id] = ticket
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Stop a request; its ticket ends when the engine has let go of it."""
        if not ticket.ended.is_set():
            with suppress(Unavailable):
                self._send({"type": "cancel", "id": ticket.id})

    async def tokenize(self, given: messages.Input) -> list[int]:
        id_ = uuid.uuid4().hex
        reply = await self._ask(id_, {"type": "tokenize", "id": id_, "input": given})
        return [int(i) for i in reply["token_ids"]]

    async def pack(self, digest: str, folder: str, path: str) -> int:
        """Write an adapter's files packed; return the size in bytes."""
        message = {"type": "pack", "digest": digest, "folder": folder, "path": path}
        reply = await self._ask(_pack_key(digest), message)
        return int(reply["size_bytes"])

    async def load(self, digest: str, path: str) -> None:
        """Bring a packed adapter into a slot; the caller has made sure that one is free."""
        await self._ask(digest, {"type": "load", "digest": digest, "path": path})

    def unload(self, digest: str) -> None:
        with suppress(Unavailable):
            self._send({"type": "unload", "digest": digest})

    async def _ask(self, key: str, message: Message) -> Message:
        self._send(message)
        return await self._commands.ask(message["type"], key)

    def _send(self, message: Message) -> None:
        process = self._process
        if not self.is_ready or process is None or process.stdin is None:
            raise Unavailable("the engine is starting", retry_after_s=2.0)
        process.stdin.write(messages.encode(message))

    # The process.

    async def run(self) -> None:
        """Keep an engine running until cancelled."""
        delay_s = 0.0
        while True:
            started_s = time.monotonic()
            try:
                await self._run_once()
            finally:
                await self._stop()
            is_healthy = time.monotonic() - started_s > HEALTHY_AFTER_S
            delay_s = 0.0 if is_healthy else min(MAX_RESTART_DELAY_S, delay_s * 2 + 0.2)
            self.num_restarts += 1
            log.warning("starting the engine again in %.1f s", delay_s)
            await asyncio.sleep(delay_s)

    async def _run_once(self) -> None:
        self._process = await child.start(self._command)
        self._last_heard_s = time.monotonic()
        watchdog = asyncio.create_task(self._watch(self._process))
        try:
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                self._last_heard_s = time.monotonic()
                self._receive(messages.decode(line))
        finally:
            watchdog.cancel()

    async def _watch(self, process: Process) -> None:
        """Kill an engine that has work and does none of it; ``_run_once`` notices its end."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            limit_s = self._step_limit_s if self.is_ready else self._start_limit_s
            silent_s = self._silence_s()
            if silent_s > limit_s:
                log.error("the engine has been silent for %.0f s; its stacks follow", silent_s)
                self.is_ready = False
                await child.dump_and_kill(process)
                return

    def _silence_s(self) -> float:
        """Return for how long something that the engine should do has not been heard of."""
        is_busy = bool(self._tickets) or not self.is_ready
        step_s = time.monotonic() - self._last_heard_s if is_busy else 0.0
        # Its steps go on while the thread that reads adapters or prompts hangs.
        return max(step_s, self._commands.silence_s())

    async def _stop(self) -> None:
        """End the process and answer everything that waited for it."""
        process, self._process = self._process, None
        self.is_ready = False
        if process is not None:
            log.info("the engine process has ended (%s)", await child.end(process))
        self._fail_all(Unavailable("the engine was restarted; try again", retry_after_s=2.0))
        self.on_down()

    def _fail_all(self, error: LoraLandError) -> None:
        tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.outputs.put_nowait(error)
            ticket.end()
        self._commands.fail(error)

    # What it says.

    def _receive(self, message: Message) -> None:
        match message["type"]:
            case "step":
                self._stats = message["stats"]
                for output in message["outputs"]:
                    self._deliver(output)
            case "refused":
                self._refuse(message)
            case "loaded":
                self._commands.answer(message["digest"], message)
            case "packed":
                self._commands.answer(_pack_key(message["digest"]), message)
            case "load-failed" | "pack-failed" as kind:
                digest = message["digest"]
                self._commands.answer(
                    digest if kind == "load-failed" else _pack_key(digest),
                    ArtifactInvalid(message["message"], reason=message["reason"]),
                )
            case "tokens" | "prepared":
                self._commands.answer(message["id"], message)
            case "ready":
                self._become_ready(message)
            case "fatal":
                log.error("the base model cannot be served: %s", message["message"])

    def _deliver(self, output: Output) -> None:
        ticket = self._tickets.get(output["id"])
        if ticket is None:
            return
        ticket.outputs.put_nowait(output)
        if "finish" in output:
            ticket.num_open -= 1
        if ticket.num_open == 0:
            del self._tickets[ticket.id]
            ticket.end()

    def _refuse(self, message: Message) -> None:
        error: LoraLandError = InvalidInput(
            message["message"], field=message["field"], reason=message["reason"]
        )
        if message["reason"] == messages.ENGINE_FULL:
            error = QueueFull(message["message"], retry_after_s=1.0)
        if message["reason"] == messages.ADAPTER_LOST:
            error = Unavailable("the engine was restarted; try again", retry_after_s=1.0)
        if message["reason"] == messages.INTERNAL:
            error = InternalFault(message["id"])
        self._commands.answer(message["id"], error)
        ticket = self._tickets.pop(message["id"], None)
        if ticket is None:
            return
        ticket.outputs.put_nowait(error)
        ticket.end()

    def _become_ready(self, message: Message) -> None:
        self.info = EngineInfo(**{k: v for k, v in message.items() if k != "type"})
        self.is_ready = True
        log.info("the engine is ready")
        self.on_up(self.info)


def _pack_key(digest: str) -> str:
    """Both may be owed an answer for one artifact."""
    return f"pack {digest}"
