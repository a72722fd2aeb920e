"""The parent of one container's process; a script of its own, started by ``process``.

Usage: ``python -I -S launcher.py REPORT_FD COMMAND [ARGUMENT...]``. Environment and working
directory are already the container's. Standard input is the line to the kubelet: ``T`` asks the
process to end (SIGTERM), ``K`` kills everything, and the end of the line, which comes when the
kubelet dies in whatever way, kills everything too. What happened is written to REPORT_FD, one
JSON object a line: ``{"started": pid}`` or ``{"error": text}``, then ``{"status": wait status}``.

Like the first process of a container it takes all descendants with it, also those that left the
process group: as a "child subreaper" it inherits them (Linux; elsewhere the group must do).
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MAX_KILL_ROUNDS = 50


def main() -> int:
    report_fd = int(sys.argv[1])
    os.set_inheritable(report_fd, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid, error = _start(sys.argv[2:])
    if error:
        _report(report_fd, {"error": error})
        return 1
    _report(report_fd, {"started": pid})
    status = _supervise(pid, wake_read)
    _kill_descendants()
    _report(report_fd, {"status": status})
    return 0


def _start(command: list[str]) -> tuple[int, str]:
    """Fork and execute; return the child's pid, and what went wrong."""
    error_read, error_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, error_write)
    os.close(error_write)
    error = b""
    while chunk := os.read(error_read, 4096):
        error += chunk
    os.close(error_read)
    return pid, error.decode(errors="replace")


def _become(command: list[str], error_fd: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                _reset(number)
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvpe(command[0], command, os.environ)  # noqa: S606 the point of a launcher
    except OSError as error:
        os.write(error_fd, f"exec: {command[0]!r}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _reset(number: int) -> None:
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):
        return


def _supervise(pid: int, wake_fd: int) -> int:
    """Pass the kubelet's wishes on until the process has ended; return its wait status."""
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    poller.register(wake_fd, select.POLLIN)
    while True:
        for found, _ in poller.poll(1000):
            if found == wake_fd:
                _drain(wake_fd)
                continue
            wishes = os.read(0, 64)
            if b"T" in wishes:
                _signal(pid, signal.SIGTERM)
            if not wishes or b"K" in wishes:
                _signal(pid, signal.SIGKILL)
                _kill_descendants()
            if not wishes:
                poller.unregister(0)
        status = _reap(pid)
        if status is not None:
            return status


def _drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return


def _reap(main_pid: int) -> int | None:
    """Collect ended children; return the wait status of the main one if it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            # No child is left, so the main one is not there to be waited for either.
            return signal.SIGKILL if found is None else found
        if pid == 0:
            return found
        if pid == main_pid:
            found = status


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _kill_descendants() -> None:
    """Kill all that is left, also what is born meanwhile."""
    for _ in range(_MAX_KILL_ROUNDS):
        left = _descendants()
        if not left:
            return
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    try:
        entries = os.listdir("/proc")  # noqa: PTH208 pathlib would double the start-up time
    except OSError:
        return []
    for entry in entries:
        if entry.isdigit():
            state, parent = _read_stat(entry)
            if state not in ("", "Z"):
                children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += born
    return found


def _read_stat(pid: str) -> tuple[str, int]:
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:  # noqa: PTH123 no pathlib here
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def _report(fd: int, document: dict[str, object]) -> None:
    try:
        os.write(fd, json.dumps(document).encode() + b"\n")
    except BrokenPipeError:
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    # Without clean-up work: nothing may hold up the news that the process has ended.
    code = main()
    os._exit(code)
