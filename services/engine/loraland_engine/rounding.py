"""Rows rounded to what a product multiplies: bytes with a scale, or halves (bfloat16). Compiled; no I/O.

``round_row`` is one function for both: which, the type of the rows says. Over float linears nothing is
rounded, and nobody calls it.

Shapes: T rows, D numbers of a row; a row may have room for more, which stays as it is.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine.native import (
    bits_of_float,
    compiled,
    extending,
    float_from_bits,
    types,
)

# The types of rows as arrays have them: NumPy knows no bfloat16.
BYTE, HALF = np.uint8, np.uint16


@compiled
def quantize(x, rows, scales, t):
    """Write row ``t`` as bytes around 128, and its scale."""
    # A float's bits without the sign grow with its magnitude, and integers' maximum is vectorized.
    largest = np.int32(0)
    for d in range(x.shape[0]):
        largest = max(largest, bits_of_float(x[d]) & np.int32(0x7FFFFFFF))
    scale = max(float_from_bits(largest), np.float32(1e-12)) / np.float32(127.0)
    inverse = np.float32(1.0) / scale
    row = rows[t]
    for d in range(x.shape[0]):
        # The sum is positive: cutting its fraction off rounds to the nearest byte.
        row[d] = np.uint8(np.int32(x[d] * inverse + np.float32(128.5)))
    scales[t] = scale


@compiled
def half(number):
    """Return the bits of the nearest bfloat16, of two the even one."""
    bits = bits_of_float(number)
    odd = (bits >> np.int32(16)) & np.int32(1)
    return np.uint16((bits + np.int32(0x7FFF) + odd) >> np.int32(16))


@compiled
def widened(bits):
    """Return the float32 that a bfloat16's bits mean."""
    return float_from_bits(np.int32(bits) << np.int32(16))


@compiled
def halve(x, rows, scales, t):
    """Write row ``t`` as halves; they need no scale."""
    row = rows[t]
    for d in range(x.shape[0]):
        row[d] = half(x[d])
    scales[t] = np.float32(1.0)


def round_row(x, rows, scales, t):
    """Write row ``t`` of ``rows`` as its type wants it, and the row's scale."""
    raise AssertionError("only compiled code rounds rows")


# Numba wants functions of the same arguments here, not what it has compiled itself.
@extending.overload(round_row)
def _round_row(x, rows, scales, t):
    if rows.dtype == types.uint8:
        return lambda x, rows, scales, t: quantize(x, rows, scales, t)  # noqa: PLW0108
    return lambda x, rows, scales, t: halve(x, rows, scales, t)  # noqa: PLW0108
