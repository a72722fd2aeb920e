"""The supervisor's process: one stack, one lock, one sweeper. Started by ``loraland_local.stack``."""

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from loraland_core import logs
from loraland_core.errors import LoraLandError

from loraland_local import processes
from loraland_local.apiclient.cluster import ApiError
from loraland_local.layout import Layout
from loraland_local.options import EXIT_DISK_FULL, EXIT_FAILED, StackOptions
from loraland_local.supervisor import Supervisor

_log = logging.getLogger("loraland_local")
_SWEEP_GRACE_S = 3.0
# With less than this free, whatever failed did so for want of space.
_LEAST_FREE_BYTES = 256 * 1024


def main() -> int:
    options, lock_descriptor = _parse_arguments()
    # Held to the end of this process, and by none of its children.
    os.set_inheritable(lock_descriptor, False)
    logs.configure()
    # Inherited from the command that started this process, which may have held signals back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    place = Layout(options.state)
    try:
        with _sweeper(place):
            return asyncio.run(_supervise(options, place))
    except OSError as error:
        _log.error("%s", error)
        return EXIT_DISK_FULL if _is_disk_full(error, place) else EXIT_FAILED


async def _supervise(options: StackOptions, place: Layout) -> int:
    supervisor = Supervisor(options, place)
    task = asyncio.ensure_future(supervisor.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    if options.stop_with_stdin:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, task)
    try:
        await task
    except asyncio.CancelledError:
        _log.info("stopping")
        supervisor.board.set_state("stopping")
    except (LoraLandError, ApiError, OSError) as error:
        _log.error("%s", error)
        with contextlib.suppress(OSError):
            supervisor.board.set_state(
                "failed", failure=str(error), failure_log=supervisor.failure_log()
            )
        return EXIT_DISK_FULL if _is_disk_full(error, place) else EXIT_FAILED
    finally:
        supervisor.children.stop()
    return 0


def _is_disk_full(error: Exception, place: Layout) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    return shutil.disk_usage(place.state).free < _LEAST_FREE_BYTES


def _stop_at_end(task: "asyncio.Future[None]") -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        task.cancel()


@contextlib.contextmanager
def _sweeper(place: Layout) -> Iterator[None]:
    """Keep a sweeper while the stack runs, and let it finish last."""
    command = [sys.executable, "-m", "loraland_local.sweeper", "--state", str(place.state)]
    sweeper = subprocess.Popen(
        command,
        env=processes.environment(place.state),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        processes.sweep(place.state, grace_s=_SWEEP_GRACE_S, spared=[sweeper.pid])
        # Its work is done; and it would wait for this process, which waits for it.
        sweeper.kill()
        sweeper.wait()
        assert sweeper.stdin is not None
        sweeper.stdin.close()


def _parse_arguments() -> tuple[StackOptions, int]:
    parser = argparse.ArgumentParser(prog="python -m loraland_local", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--stop-with-stdin", action="store_true")
    parser.add_argument(
        "--lock-descriptor", type=int, required=True, help="the directory's lock, open and held"
    )
    found = parser.parse_args()
    options = StackOptions(
        state=found.state,
        api_port=found.api_port,
        grpc_port=found.grpc_port,
        stop_with_stdin=found.stop_with_stdin,
    )
    return options, found.lock_descriptor


if __name__ == "__main__":
    sys.exit(main())
