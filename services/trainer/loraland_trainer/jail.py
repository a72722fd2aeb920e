"""Runs one Python program where it can do no harm. A script of its own; standard library only.

``sandbox`` starts it, with the program on standard input. It leaves everything that the program could
reach: network, processes and files are namespaces of their own, whose root holds Python's standard
library and the system's libraries, nothing else, all of it read-only. Then it becomes nobody, with
limits, and starts Python anew, so that nothing of this process is left in memory::

    this process ── waits for ──▶ process 1 of its own ── waits for ──▶ the program, as nobody

When process 1 ends, the kernel ends all others of its namespace. What goes wrong before the program
starts is exit code ``UNAVAILABLE`` with the reason on standard error.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

UNAVAILABLE = 97
CPU_S = 2
MEMORY_BYTES = 256 * 1024**2
MAX_PROCESSES = 16
NOBODY = 65534
_TREES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
# Mounts, names of the machine, IPC, processes, network.
_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
_NEW_USERS = 0x10000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT = 1, 2, 4, 32
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
# statvfs's flags that a remount must repeat, and mount's names for them.
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
# The key is the last that is said: an exit before the last test is no success. A program that looks
# for the key will find it; this measures honest programs, and keeps the others from doing harm.
_RUNNER = """
import os, sys
key, _, text = sys.stdin.buffer.read().partition(b"\\n")
sys.stdin.close()
exec(compile(text, "program", "exec"), {"__name__": "__main__"})
os.write(2, key)
os._exit(0)
"""
# Found before the root changes, behind all links.
_PYTHON = str(Path(sys.executable).resolve())
_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    encoded = [None if text is None else text.encode() for text in (source, str(target), kind)]
    _call(f"mount {target}", _libc.mount, *encoded, ctypes.c_ulong(flags), data.encode())


def leave_namespaces() -> None:
    """Enter namespaces of our own: with root's rights directly, else as nobody of new users."""
    user, group = os.getuid(), os.getgid()
    if user != 0 or _libc.unshare(_NAMESPACES) != 0:
        _call("unshare", _libc.unshare, _NEW_USERS | _NAMESPACES)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    _mount(None, Path("/"), None, _RECURSIVE | _PRIVATE)


def build_root(root: Path) -> None:
    """Make a folder the root of a file system that holds Python and no more, read-only."""
    _mount("none", root, "tmpfs", _NO_SUID | _NO_DEVICES, "size=1m,mode=755")
    for tree in dict.fromkeys((sys.base_prefix, *_TREES)):
        if not Path(tree).exists():
            continue
        target = root / tree.lstrip("/")
        if Path(tree).is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(Path(tree).readlink())
        elif not target.exists():
            target.mkdir(parents=True)
            _mount(tree, target, None, _BIND | _RECURSIVE)
            present = os.statvfs(target).f_flag
            kept = sum(new for old, new in _KEPT.items() if present & old)
            flags = _BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES
            _mount(None, target, None, flags | kept)
    (root / "work").mkdir()
    (root / "dev").mkdir()
    (root / "dev/null").touch()
    _mount("/dev/null", root / "dev/null", None, _BIND)
    _mount(None, root, None, _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES)


def forbid_shared_memory() -> None:
    """Allow no segments that would count for nobody; a container may not let us, then limits must do."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/kernel/shmall").write_text("0")


def become_nobody() -> None:
    """Take on the limits and lose every right."""
    limits = {
        resource.RLIMIT_CPU: (CPU_S, CPU_S + 1),
        resource.RLIMIT_AS: (MEMORY_BYTES, MEMORY_BYTES),
        resource.RLIMIT_NPROC: (MAX_PROCESSES, MAX_PROCESSES),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
    }
    for kind, limit in limits.items():
        resource.setrlimit(kind, limit)
    if os.getuid() != NOBODY:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", _libc.prctl, _SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _start_program(root: Path) -> None:
    """Become the program; does not return."""
    forbid_shared_memory()
    os.chroot(root)
    os.chdir("/work")
    become_nobody()
    # All other files that were opened before the root was left are closed by this.
    arguments = [_PYTHON, "-I", "-S", "-B", "-c", _RUNNER]
    os.execve(_PYTHON, arguments, {"LANG": "C.UTF-8"})  # noqa: S606 -- a shell is no help here


def _wait(child: int) -> int:
    """Wait for a child, reaping others meanwhile; return its exit code as a shell would say it."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _fork(run: Callable[[], object]) -> int:
    """Run a function in a child that ends with this process; return the child's id."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() not in (parent, 0):
            os._exit(UNAVAILABLE)
        run()
    except OSError as error:
        _say(error)
    os._exit(UNAVAILABLE)


def _say(error: OSError) -> None:
    os.write(sys.stderr.fileno(), f"{error}\n".encode())


def main(root: Path) -> int:
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    try:
        leave_namespaces()
        build_root(root)
        first = _fork(lambda: os._exit(_wait(_fork(lambda: _start_program(root)))))
    except OSError as error:
        _say(error)
        return UNAVAILABLE
    return _wait(first)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
