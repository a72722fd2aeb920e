"""Python compiled to machine code at first use, by Numba, and kept beside the source. CPU only.

Numba shares one pool of threads with torch: its OpenMP layer finds the library that torch has loaded.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch  # noqa: F401 (first, so that Numba finds its OpenMP)

# What these modules offer is generic beyond what a type checker can follow.
numba: Any = import_module("numba")
types: Any = import_module("numba.types")
extending: Any = import_module("numba.extending")

prange = numba.prange
carray = numba.carray
# Sums may be reordered, or nothing would be vectorized; infinities and NaN keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


def compiled(*, parallel: bool = False) -> Callable[[Any], Any]:
    """Compile a function at its first call; ``parallel`` spreads its ``prange`` over the cores."""

    def decorate(function: Any) -> Any:
        options = {"parallel": parallel, "fastmath": _FAST, "nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(cache=True, **options)(function)
        # No folder to keep the machine code in: compile again in each process.
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate


def set_num_threads(num_threads: int) -> None:
    """Use as many threads as torch does; counts for the calling thread."""
    numba.set_num_threads(min(num_threads, numba.config.NUMBA_NUM_THREADS))


def _float_from_bits(_context: Any, _bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.float32(types.int32), generate


def _pointer_like(_context: Any, _address: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


# Within compiled code: the float32 that an int32's bits mean.
float_from_bits = extending.intrinsic(_float_from_bits)
# Within compiled code: an address as a pointer to what an array holds.
pointer_like = extending.intrinsic(_pointer_like)
