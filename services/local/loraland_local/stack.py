"""Starting, watching and stopping a stack from outside: what the command calls.

The stack itself is the supervisor's process (``python -m loraland_local``) and its children.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
from loraland_core.errors import InvalidInput, NotFound, Unavailable

from loraland_local import ownership, processes
from loraland_local.layout import Layout, StackRecord
from loraland_local.options import EXIT_DISK_FULL, StackOptions

_POLL_S = 0.1
_START_TIMEOUT_S = 1200.0
# The kubelet gives pods their grace period; then the rest is ended.
_STOP_TIMEOUT_S = 45.0
_KILL_TIMEOUT_S = 5.0
_SUPERVISOR_MODULE = "loraland_local"

OnChange = Callable[[StackRecord], None]


def start(
    place: Layout, options: StackOptions, *, is_fresh: bool = False
) -> "subprocess.Popen[bytes]":
    """Start the supervisor, ``is_fresh`` on nothing of what an earlier one left.

    Raises ``InvalidInput`` if the directory's stack runs already, or the directory is no stack's.
    With ``stop_with_stdin`` the stack ends with this process at the latest: keep the handle.
    """
    ownership.require(place)
    place.state.mkdir(parents=True, exist_ok=True)
    with ownership.hold(place) as lock:
        processes.sweep(place.state, grace_s=0)
        ownership.mark(place)
        if is_fresh:
            ownership.empty(place)
        place.logs.mkdir(exist_ok=True)
        place.record.unlink(missing_ok=True)
        return _start_supervisor(place, options, lock)


def _start_supervisor(place: Layout, options: StackOptions, lock: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", _SUPERVISOR_MODULE, *options.to_arguments()]
    with place.log("supervisor").open("wb") as output:
        return subprocess.Popen(
            [*command, "--lock-descriptor", str(lock)],
            env=processes.environment(place.state),
            stdin=subprocess.PIPE if options.stop_with_stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
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


def stop(place: Layout, *, is_own: bool = False) -> int:
    """End the stack and everything that belongs to it; return how many had to be killed.

    ``is_own`` ends only what this process has started.
    """
    supervisors = [p for p in processes.marked(place.state) if _is_supervisor(p, is_own=is_own)]
    for supervisor in supervisors:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
    _, stubborn = psutil.wait_procs(supervisors, timeout=_STOP_TIMEOUT_S)
    for supervisor in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.kill()
    psutil.wait_procs(stubborn, timeout=_KILL_TIMEOUT_S)
    return len(stubborn) + _sweep(place)


def _sweep(place: Layout) -> int:
    """Kill what dead supervisors left, unless a stack runs here again: it has swept itself."""
    with contextlib.ExitStack() as stack:
        if place.lock.exists():
            try:
                stack.enter_context(ownership.hold(place))
            except InvalidInput:
                return 0
        return processes.sweep(place.state, grace_s=1.0)


def _is_supervisor(process: psutil.Process, *, is_own: bool) -> bool:
    try:
        command = process.cmdline()
        is_asked_for = not is_own or process.ppid() == os.getpid()
    except psutil.Error:
        return False
    return is_asked_for and command[1:3] == ["-m", _SUPERVISOR_MODULE]


def is_running(place: Layout) -> bool:
    """Say whether a supervisor holds the directory's lock."""
    return ownership.is_held(place)


def running_record(place: Layout) -> StackRecord:
    """Return the record of a running stack; raise ``NotFound`` when none runs here."""
    record = place.read_record() if is_running(place) else None
    if record is None:
        raise NotFound(
            f"no stack runs in {place.state}; start one with `loraland up`, or name its directory"
            " with --state"
        )
    return record
