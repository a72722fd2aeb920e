"""Records on disk, by number: what a job reads may be larger than its memory.

A spool is written once, front to back, and then read in any order. Its file has no name, so that
nothing is left behind however the process ends. Memory holds eight bytes a record.
"""

import os
import tempfile
import weakref
from array import array

WRITE_BYTES = 1024 * 1024


class Spool:
    """Byte strings in the order in which they came."""

    def __init__(self) -> None:
        self._fd, path = tempfile.mkstemp(prefix="loraland-rows-")
        os.unlink(path)  # noqa: PTH108 -- the descriptor is all that is kept
        weakref.finalize(self, os.close, self._fd)
        self._ends = array("Q", [0])
        self._pending = bytearray()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, record: bytes) -> None:
        self._pending += record
        self._ends.append(self._ends[-1] + len(record))
        if len(self._pending) >= WRITE_BYTES:
            self._flush()

    def read(self, index: int) -> bytes:
        """Return a record; any thread may ask, once all are written."""
        if self._pending:
            self._flush()
        start, end = self._ends[index], self._ends[index + 1]
        return os.pread(self._fd, end - start, start)

    def _flush(self) -> None:
        waiting = memoryview(bytes(self._pending))
        self._pending.clear()
        while waiting:
            waiting = waiting[os.write(self._fd, waiting) :]
