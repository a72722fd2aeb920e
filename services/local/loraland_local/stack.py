"""Starting, watching and stopping a stack from outside: what the command calls.

The stack itself is the supervisor's process (``python -m loraland_local``) and its children.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
from loraland_core.errors import InvalidInput, NotFound, Unavailable

from loraland_local import processes
from loraland_local.layout import Layout, StackRecord
from loraland_local.options import EXIT_DISK_FULL, StackOptions

_POLL_S = 0.1
_START_TIMEOUT_S = 1200.0
# The kubelet gives pods their grace period; then the rest is ended.
_STOP_TIMEOUT_S = 45.0
_SUPERVISOR_MODULE = "loraland_local"

OnChange = Callable[[StackRecord], None]


def start(place: Layout, options: StackOptions) -> "subprocess.Popen[bytes]":
    """Start the supervisor; ``InvalidInput`` if the directory's stack runs already.

    With ``stop_with_stdin`` the stack ends with this process at the latest: keep the handle.
    """
    if is_running(place):
        raise InvalidInput(
            "a stack runs here already; see `loraland status`, or stop it with `loraland down`",
            field=str(place.state),
            reason="AlreadyRunning",
        )
    processes.sweep(place.state, grace_s=0)
    place.logs.mkdir(parents=True, exist_ok=True)
    place.record.unlink(missing_ok=True)
    with place.log("supervisor").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", _SUPERVISOR_MODULE, *options.to_arguments()],
            env=processes.environment(place.state),
            stdin=subprocess.PIPE if options.stop_with_stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_ready(
    place: Layout, process: "subprocess.Popen[bytes]", *, on_change: OnChange
) -> StackRecord:
    """Wait until all stations are ready; raise ``Unavailable`` with the supervisor's sentence."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    last: StackRecord | None = None
    while True:
        ended = process.poll()
        record = place.read_record()
        if record is not None and record != last:
            last = record
            on_change(record)
        if record is not None and record.state == "ready":
            return record
        if ended is not None:
            raise Unavailable(_failure(place, record, ended))
        if time.monotonic() > deadline:
            raise Unavailable(f"the stack is not ready after {_START_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)


def _failure(place: Layout, record: StackRecord | None, status: int) -> str:
    if status == EXIT_DISK_FULL:
        return f"the disk that holds {place.state} is full: free some space and try again"
    if record is not None and record.failure:
        return record.failure
    return f"the supervisor ended with status {status}; see {place.log('supervisor')}"


def stop(place: Layout) -> int:
    """End the stack and everything that belongs to it; return how many had to be killed."""
    supervisors = [p for p in processes.marked(place.state) if _is_supervisor(p)]
    for supervisor in supervisors:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
    psutil.wait_procs(supervisors, timeout=_STOP_TIMEOUT_S)
    return processes.sweep(place.state, grace_s=1.0)


def _is_supervisor(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return command[1:3] == ["-m", _SUPERVISOR_MODULE]


def is_running(place: Layout) -> bool:
    """Say whether a supervisor holds the directory's lock."""
    try:
        descriptor = os.open(place.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def running_record(place: Layout) -> StackRecord:
    """Return the record of a running stack; raise ``NotFound`` when none runs here."""
    record = place.read_record() if is_running(place) else None
    if record is None:
        raise NotFound(
            f"no stack runs in {place.state}; start one with `loraland up`, or name its directory"
            " with --state"
        )
    return record
