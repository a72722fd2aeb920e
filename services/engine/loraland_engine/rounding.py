"""Numbers in less than 32 bits, and back: bytes with a scale, halves (bfloat16). Compiled; no I/O.

One function each, whatever the type of the arrays: ``round_row`` makes a row what a product
multiplies, ``put`` copies numbers to where they are kept, and ``as_float`` reads one of them.

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


def put(numbers, to):
    """Copy float32 numbers to an array of halves, rounded, or of float32, as they are."""
    raise AssertionError("only compiled code puts numbers")


@extending.overload(put)
def _put(numbers, to):
    if to.dtype == types.uint16:

        def put_halves(numbers, to):
            for i in range(numbers.shape[0]):
                to[i] = half(numbers[i])

        return put_halves

    # Assigning a slice would first ask whether the two overlap.
    def put_floats(numbers, to):
        for i in range(numbers.shape[0]):
            to[i] = numbers[i]

    return put_floats


def as_float(number):
    """Return the float32 that a float32, an int8, or a half's bits mean."""
    raise AssertionError("only compiled code reads numbers")


@extending.overload(as_float)
def _as_float(number):
    if number == types.uint16:
        return lambda number: widened(number)  # noqa: PLW0108
    return lambda number: np.float32(number)  # noqa: PLW0108


def as_floats(rows, room):
    """Return rows of halves as float32, in ``room``; rows of float32 as they are."""
    raise AssertionError("only compiled code reads numbers")


@extending.overload(as_floats)
def _as_floats(rows, room):
    if rows.dtype != types.uint16:
        return lambda rows, room: rows

    def widen(rows, room):
        for i in range(rows.shape[0]):
            for j in range(rows.shape[1]):
                room[i, j] = widened(rows[i, j])
        return room[: rows.shape[0]]

    return widen
