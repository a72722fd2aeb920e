"""Whose a state directory is: the marker says that a stack made it, the lock that one runs there.

A stack moves only into a directory that is empty or a stack's already, so that what it removes is
its own. The lock is an open file that the command passes on to its supervisor: it is never free
between the two. Files only.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from loraland_core.errors import InvalidInput

from loraland_local.layout import SCHEMA_VERSION, Layout, write_atomically

ALREADY_RUNNING = "AlreadyRunning"
_MARKER_TEXT = (
    "Made by LoRA Land, schema 1: `loraland down --purge` removes all of this directory.\n"
)
# Whoever looks whether a stack runs holds the lock for a moment, together with others who look.
_LOCK_TIMEOUT_S = 0.5
_POLL_S = 0.02


@contextlib.contextmanager
def hold(place: Layout) -> Iterator[int]:
    """Hold the directory's lock, by its descriptor; ``InvalidInput`` while somebody else does."""
    descriptor = _take_lock(place)
    try:
        yield descriptor
    finally:
        # Closed and not unlocked: a supervisor that has inherited the file goes on holding it.
        os.close(descriptor)


def _take_lock(place: Layout) -> int:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT, 0o644)
        if _has_locked(descriptor, place):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise InvalidInput(
                "a stack runs here already; see `loraland status`, or stop it with `loraland down`",
                field=str(place.state),
                reason=ALREADY_RUNNING,
            )
        time.sleep(_POLL_S)


def _has_locked(descriptor: int, place: Layout) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock that was removed meanwhile keeps nobody away.
        return os.path.samestat(os.fstat(descriptor), place.lock.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def is_held(place: Layout) -> bool:
    """Say whether somebody holds the lock; looking keeps nobody else from looking."""
    try:
        descriptor = os.open(place.lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_stack(place: Layout) -> bool:
    """Say whether a stack made the directory: by the marker, or by a record that is one."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if place.marker.read_text() == _MARKER_TEXT:
            return True
    with contextlib.suppress(OSError, UnicodeDecodeError, InvalidInput):
        record = place.read_record()
        return record is not None and record.schema_version == SCHEMA_VERSION
    return False


def require(place: Layout) -> None:
    """Raise ``InvalidInput`` for a directory that holds what no stack has made."""
    if not place.state.exists() or is_stack(place):
        return
    # Listed before the marker is looked for again: a stack that starts now writes it first.
    foreign = [entry.name for entry in place.state.iterdir() if not _is_known(place, entry)]
    if foreign and not is_stack(place):
        raise InvalidInput(
            f"is not empty and not a stack's (it holds {min(foreign)}); choose another --state",
            field=str(place.state),
        )


def _is_known(place: Layout, entry: Path) -> bool:
    if entry == place.lock:
        return entry.stat().st_size == 0
    return place.marker.name in entry.name or _is_nested_stack(entry)


def _is_nested_stack(entry: Path) -> bool:
    """The demo's directory lies in that of the stack that stays."""
    return entry.is_dir() and not entry.is_symlink() and is_stack(Layout(entry))


def mark(place: Layout) -> None:
    """Make the directory recognisable as a stack's; ``require`` it first."""
    write_atomically(place.marker, _MARKER_TEXT)


def empty(place: Layout) -> None:
    """Remove what the stack has made; its lock is held. Other stacks' directories stay."""
    assert is_stack(place)
    for entry in place.state.iterdir():
        if entry in (place.lock, place.marker) or _is_nested_stack(entry):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def remove(place: Layout) -> None:
    """Remove the directory of a stack that does not run."""
    if not is_stack(place):
        raise InvalidInput("was not made by loraland; remove it yourself", field=str(place.state))
    with hold(place):
        empty(place)
        place.marker.unlink(missing_ok=True)
        place.lock.unlink()
        # What is left is another stack's, or one that starts at this moment.
        with contextlib.suppress(OSError):
            place.state.rmdir()
