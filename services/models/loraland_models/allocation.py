"""How the C library gets memory from the system while a model is loaded. Linux with glibc; no I/O.

Loading makes and drops several times what it keeps. In the heap those would leave holes among the
weights, and whatever is allocated later wanders through them and makes them resident again. On pages
of its own a dropped tensor is gone at once.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 128 * 1024
# Where the library's own adjustment ends, which a process with weights has long reached: a step's
# buffers come from the heap and stay there.
_USUAL_MMAP_BYTES = 32 * 1024 * 1024


@contextmanager
def large_apart() -> Iterator[None]:
    """Give everything large that is allocated in the block pages of its own."""
    _set_thresholds(_LARGE_BYTES)
    try:
        yield
    finally:
        _set_thresholds(_USUAL_MMAP_BYTES)


def return_freed() -> None:
    """Give what was freed back to the system; milliseconds, from any thread."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _set_thresholds(mmap_bytes: int) -> None:
    option = _function("mallopt")
    if option is not None:
        option(_MMAP_THRESHOLD, mmap_bytes)
        option(_TRIM_THRESHOLD, 2 * mmap_bytes)


def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
