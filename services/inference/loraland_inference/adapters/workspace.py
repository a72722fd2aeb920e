"""A folder of this process alone, below one that others share; what dead processes left is removed.

A process holds a lock on a file beside its folder for as long as it lives. Whoever starts takes the
locks that nobody holds any more, and with them the right to remove the folders.
"""

import fcntl
import os
import shutil
import uuid
from pathlib import Path

_PREFIX = ".work-"
_LOCK_SUFFIX = ".lock"
# Of releases before this one, which knew no locks.
_OLD_PREFIX = ".partial-"
_NODE_FILE = ".node-id"


class Workspace:
    """``folder`` is there from ``open`` to ``close``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name = f"{_PREFIX}{uuid.uuid4().hex}"
        self.folder = root / self._name
        self._lock_fd = -1

    def open(self) -> None:
        """Make the folder and remove those of processes that are gone. Raises ``OSError``."""
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock_fd = self._take_lock()
        self.folder.mkdir(mode=0o700)
        for left in self._root.glob(f"{_OLD_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in self._root.glob(f"{_PREFIX}*"):
            name = left.name.removesuffix(_LOCK_SUFFIX)
            if name != self._name:
                _remove_if_dead(self._root, name)

    def close(self) -> None:
        if self._lock_fd < 0:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock_fd)
        self._lock_fd = -1

    @property
    def _lock_path(self) -> Path:
        return self._root / f"{self._name}{_LOCK_SUFFIX}"

    def _take_lock(self) -> int:
        while True:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Between the two a sweeper may have taken the lock, and the file with it.
            if is_same_file(fd, self._lock_path):
                return fd
            os.close(fd)


def node_id(root: Path) -> str:
    """Return a name for this disk that all processes on it agree on."""
    path = root / _NODE_FILE
    if not path.exists():
        partial = root / f"{_NODE_FILE}.{uuid.uuid4().hex}"
        partial.write_text(uuid.uuid4().hex)
        try:
            # Unlike a rename, a link never takes the place of what another one has put there.
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_text().strip()


def is_same_file(fd: int, path: Path) -> bool:
    """Whether the path still names what the descriptor has open."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _remove_if_dead(root: Path, name: str) -> None:
    lock = root / f"{name}{_LOCK_SUFFIX}"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(root / name, ignore_errors=True)
        lock.unlink(missing_ok=True)
    finally:
        os.close(fd)
