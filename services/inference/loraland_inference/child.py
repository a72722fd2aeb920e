"""The engine process as a child of the front: how it is started, and how it is made to end."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from loraland_core import threads

from loraland_inference import messages

# Long enough for the stacks to be written.
DUMP_S = 0.5
# A process whose pipe has closed needs this long to be gone.
END_S = 1.0


async def start(command: tuple[str, ...]) -> Process:
    """Start the process; lines go to its standard input and come from its standard output."""
    environment = dict(os.environ)
    threads.set_spinning(environment)
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, limit=messages.MAX_LINE_BYTES, env=environment
    )


async def dump_and_kill(process: Process) -> None:
    """Have a process that hangs write its stacks, and end it."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
        await asyncio.sleep(DUMP_S)
        process.kill()


async def end(process: Process) -> int:
    """Return the process's exit code, after killing it if it does not end by itself."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(END_S):
            return await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
