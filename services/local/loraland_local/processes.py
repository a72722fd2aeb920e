"""Processes of a stack: started so that none outlives it, and found again by their mark.

Every process of a stack carries the state directory in its environment, in ``LORALAND_STACK_ID`` or,
for a container, in ``LORALAND_ROOT``. That mark, not a list of pids, says what belongs to a stack:
it also finds the grandchildren of a supervisor that was killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from loraland_core import paths

STACK_VARIABLE = "LORALAND_STACK_ID"
_PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "XDG_CACHE_HOME",
    paths.CACHE_VARIABLE,
    "KUBEBUILDER_ASSETS",
    "PYTHONPATH",
)
_PR_SET_PDEATHSIG = 1
_KILL_TIMEOUT_S = 5.0
_POLL_S = 0.1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def environment(state: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a station: what any program needs, the mark, and ``extra``."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", STACK_VARIABLE: str(state), **(extra or {})}


def start(
    command: Sequence[str], *, env: Mapping[str, str], log: Path, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that is told to stop when this process dies."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 (one thread starts them)
        )


def _die_with_parent(parent_pid: int) -> Callable[[], None]:
    def set_death_signal() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os._exit(1)

    return set_death_signal


def stop(process: "subprocess.Popen[bytes]", *, grace_s: float) -> None:
    """End a child: politely, then not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def marked(state: Path) -> list[psutil.Process]:
    """Return the processes that belong to the stack in ``state``, this one left out."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            carried = process.environ()
        except (psutil.Error, OSError):
            continue
        if _belongs(carried, str(state)):
            found.append(process)
    return found


def _belongs(carried: Mapping[str, str], state: str) -> bool:
    root = carried.get(paths.ROOT_VARIABLE, "")
    return carried.get(STACK_VARIABLE) == state or root.startswith(f"{state}/kubelet/")


def sweep(state: Path, *, grace_s: float, spared: Sequence[int] = ()) -> int:
    """Wait for the stack's processes to end, then kill those that remain; return how many."""
    left = _wait_ended(state, grace_s, spared)
    for process in left:
        try:
            process.kill()
        except psutil.Error:
            continue
    # Not psutil's wait: a killed child of another process stays a zombie until that one looks.
    _wait_ended(state, _KILL_TIMEOUT_S if left else 0, spared)
    # One that is about to die has no marks any more, and still runs.
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while any(is_alive(process.pid) for process in left) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return len(left)


def _wait_ended(state: Path, timeout_s: float, spared: Sequence[int]) -> list[psutil.Process]:
    deadline = time.monotonic() + timeout_s
    while left := [process for process in marked(state) if process.pid not in spared]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return left
