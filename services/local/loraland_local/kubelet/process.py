"""One process of a container under its launcher: start, output, end."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from loraland_local.kubelet import launcher

Output = Callable[[str, bytes], None]
"""Takes the stream's name (stdout | stderr) and a piece of what was written."""

_CHUNK_BYTES = 64 * 1024
_LAST_OUTPUT_S = 2.0
_KILLED_EXIT_CODE = 128 + signal.SIGKILL


class StartError(Exception):
    """The command cannot be executed."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What to run, and with what around it."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: pathlib.Path


class Process:
    """A running process; nothing of it outlives the kubelet."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        report: asyncio.StreamReader,
        transports: Sequence[asyncio.BaseTransport],
        pumps: Sequence[asyncio.Task[None]],
    ) -> None:
        self._popen = popen
        self._report = report
        self._transports = transports
        self._pumps = pumps
        self._ended: asyncio.Task[int] | None = None

    @classmethod
    async def start(cls, command: Command, output: Output) -> "Process":
        """Start the command; ``StartError`` says why it cannot be."""
        popen, report_read = _launch(command)
        assert popen.stdout is not None
        assert popen.stderr is not None
        report, report_transport = await _open_reader(os.fdopen(report_read, "rb", 0))
        stdout, stdout_transport = await _open_reader(popen.stdout)
        stderr, stderr_transport = await _open_reader(popen.stderr)
        process = cls(
            popen,
            report,
            (report_transport, stdout_transport, stderr_transport),
            (
                asyncio.create_task(_pump(stdout, "stdout", output)),
                asyncio.create_task(_pump(stderr, "stderr", output)),
            ),
        )
        first = json.loads(await report.readline() or b'{"error": "the launcher died"}')
        if "error" in first:
            await process._close()
            raise StartError(first["error"])
        process._ended = asyncio.create_task(process._wait_end())
        return process

    @property
    def pid(self) -> int:
        """Return the launcher's pid; the container's processes are its descendants."""
        return self._popen.pid

    async def wait(self) -> int:
        """Return the exit code: the process's own, or 128 and the number of its signal."""
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        self._ask(b"T")

    def kill(self) -> None:
        self._ask(b"K")

    async def stop(
        self, grace_s: float, before: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Ask the process to end, and kill it and its children when the grace is over.

        ``before`` (a preStop hook) uses up the same grace.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(grace_s, 0.01)):
                if before is not None:
                    await before()
                self.terminate()
                return await self.wait()
        self.kill()
        return await self.wait()

    def _ask(self, wish: bytes) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._popen.stdin.write(wish)
            self._popen.stdin.flush()

    async def _wait_end(self) -> int:
        line = await self._report.readline()
        await self._close()
        if not line:
            return _KILLED_EXIT_CODE
        status = int(json.loads(line)["status"])
        if os.WIFSIGNALED(status):
            return 128 + os.WTERMSIG(status)
        return os.WEXITSTATUS(status)

    async def _close(self) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.close()
        await asyncio.wait(self._pumps, timeout=_LAST_OUTPUT_S)
        for pump in self._pumps:
            pump.cancel()
        for transport in self._transports:
            transport.close()
        # The launcher's last act was its report: it is gone in a moment.
        await asyncio.to_thread(self._popen.wait)


def _launch(command: Command) -> tuple[subprocess.Popen[bytes], int]:
    """Execute the launcher; return it and the descriptor to read its reports from."""
    report_read, report_write = os.pipe()
    script = str(pathlib.Path(launcher.__file__))
    try:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(report_write), *command.arguments],
            env=dict(command.environment),
            cwd=command.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(report_write,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(report_read)
        raise StartError(f"cannot start {command.arguments[0]!r}: {error}") from error
    finally:
        os.close(report_write)
    return popen, report_read


async def _open_reader(
    pipe: object,
) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


async def _pump(reader: asyncio.StreamReader, name: str, output: Output) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        output(name, chunk)


async def run(command: Command, timeout_s: float, max_output_bytes: int) -> tuple[int, str]:
    """Run a short command to its end; ``TimeoutError`` kills it. Returns exit code and output."""
    collected = bytearray()

    def collect(name: str, chunk: bytes) -> None:
        del name
        collected.extend(chunk[: max(max_output_bytes - len(collected), 0)])

    process = await Process.start(command, collect)
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return code, collected.decode(errors="replace")
