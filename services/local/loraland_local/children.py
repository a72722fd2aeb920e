"""The supervisor's children: started, watched until they serve, started again when they fall."""

import asyncio
import contextlib
import logging
import random
import subprocess
import time

from loraland_core.errors import Unavailable

from loraland_local import processes
from loraland_local.board import Board
from loraland_local.layout import Layout
from loraland_local.stations import Program

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_MAX_RESTARTS = 5
# A program that ran this long before it fell starts with a clean slate.
_STABLE_S = 60.0
_LOG_LINES = 20


class Children:
    """The running programs, in the order in which they were started."""

    def __init__(self, layout: Layout, board: Board) -> None:
        self._layout = layout
        self._board = board
        self._running: dict[str, tuple[Program, subprocess.Popen[bytes], float]] = {}
        self._falls: dict[str, int] = {}

    def clear_logs(self) -> None:
        """Forget what earlier runs said, so that a log's end is about this one."""
        for station in self._board.record.stations:
            self._layout.log(station.name).unlink(missing_ok=True)

    def start(self, program: Program) -> None:
        if program.ready_file is not None:
            program.ready_file.unlink(missing_ok=True)
        process = processes.start(
            program.command,
            env=processes.environment(self._layout.state, program.env),
            log=self._layout.log(program.name),
        )
        self._running[program.name] = (program, process, time.monotonic())
        self._board.starting(program.name, pid=process.pid, address=program.address)

    async def wait_ready(self, program: Program) -> None:
        """Wait until the program serves; raise ``Unavailable`` when it ends or takes too long."""
        deadline = time.monotonic() + program.ready_timeout_s
        process = self._running[program.name][1]
        while not await _serves(program):
            if process.poll() is not None:
                raise Unavailable(
                    f"{program.name} ended with status {process.returncode} while it started"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{program.name} did not serve within {program.ready_timeout_s:.0f} s"
                )
            await asyncio.sleep(_POLL_S)
        self._board.ready(program.name)

    async def watch(self) -> None:
        """Start fallen programs again; raise ``Unavailable`` when one does not stay up."""
        while True:
            await asyncio.sleep(_POLL_S * 5)
            for program, process, started in list(self._running.values()):
                if process.poll() is not None:
                    await self._revive(program, process.returncode, time.monotonic() - started)

    async def _revive(self, program: Program, status: int, lived_s: float) -> None:
        falls = 1 if lived_s > _STABLE_S else self._falls.get(program.name, 0) + 1
        self._falls[program.name] = falls
        if falls > _MAX_RESTARTS:
            raise Unavailable(f"{program.name} fell {falls} times in a row (status {status})")
        _log.warning("%s ended with status %s; starting it again", program.name, status)
        self._board.restarting(program.name, f"ended with status {status}")
        await asyncio.sleep(min(0.2 * 2**falls, 5.0) * random.uniform(0.8, 1.2))  # noqa: S311 jitter
        self.start(program)
        await self.wait_ready(program)

    def stop(self) -> None:
        """End all, the last started first, so that nothing loses what it stands on."""
        for name in reversed(list(self._running)):
            program, process, _ = self._running.pop(name)
            processes.stop(process, grace_s=program.grace_s)
            # On a full disk the end matters, its notice does not.
            with contextlib.suppress(OSError):
                self._board.stopped(name)

    def log_tail(self, name: str) -> str:
        with contextlib.suppress(OSError):
            lines = self._layout.log(name).read_text(errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES:])
        return ""


async def _serves(program: Program) -> bool:
    if program.ready_file is not None:
        return program.ready_file.exists()
    if program.port is None:
        return True
    host = program.address.removeprefix("https://").removeprefix("http://").partition(":")[0]
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host, program.port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
