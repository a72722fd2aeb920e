"""Folders of the cache that are made once, by one process, and appear whole. File system only.

Two pods of a node (or two tests) may want the same converted model at the same moment: the first
takes the lock, the second waits and finds the folder.
"""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_TIMEOUT_S = 1800.0
_POLL_S = 0.2


@contextmanager
def locked(lock: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system drops it when the process dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with lock.open("w") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    report(f"waiting for another process that is preparing {lock.stem}")
                    waiting = True
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"{lock} has been held for {LOCK_TIMEOUT_S:.0f} s; end the process"
                        " that holds it"
                    ) from None
                time.sleep(_POLL_S)
        yield


def ensure_folder(
    folder: Path, fill: Callable[[Path], None], *, report: Callable[[str], None]
) -> Path:
    """Return ``folder``, filled by ``fill`` into a temporary one and renamed if it is not there."""
    if folder.exists():
        return folder
    with locked(folder.parent / f".{folder.name}.lock", report):
        if folder.exists():
            return folder
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            fill(temporary)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder
