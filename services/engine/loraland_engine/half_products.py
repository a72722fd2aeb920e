"""Some outputs of a bfloat16 linear for all rows, compiled: in tile registers, or in lanes. CPU; no I/O.

Reads the blocks of ``half_blocks``. Sums are float32 and taken in one order on a machine, however many
rows there are, so that a row's numbers do not depend on who shares its step.

Shapes: T rows, D in, N outs. ``described`` is what ``tiles`` returns for the number of rows.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import half_blocks, tile_registers
from loraland_engine.half_blocks import OUTS
from loraland_engine.native import carray, compiled, pointer_like, spread

_ROWS = tile_registers.LINES
_SQUARE_ROWS = 2 * _ROWS
_LINE = tile_registers.LINE_BYTES
# A step of decoding rows waits for weights from memory.
_AHEAD_BYTES = 4096
_FLOATS = np.empty(0, dtype=np.float32)
_four = tile_registers.build_product(tile_registers.HALVES, 1, 4, ahead_bytes=_AHEAD_BYTES)
_pair = tile_registers.build_product(tile_registers.HALVES, 1, 2, ahead_bytes=_AHEAD_BYTES)
_one = tile_registers.build_product(tile_registers.HALVES, 1, 1, ahead_bytes=_AHEAD_BYTES)
_square = tile_registers.build_product(tile_registers.HALVES, 2, 2)


def tiles(num_rows: int, *, is_allowed: bool = True) -> np.ndarray:
    """Return how tile registers are to be set up; empty where there are none, or not allowed."""
    if not (is_allowed and tile_registers.is_supported(tile_registers.HALVES)):
        return np.empty(0, dtype=np.uint8)
    return tile_registers.setup(min(num_rows, _ROWS))


@compiled
def multiply_blocks(rows_TD, described, address, first, last, bias_N, y_TN, scratch):
    """Write the outputs of blocks [first, last), with the bias.

    ``address`` is the first block's of all, ``scratch`` one of room for 16 floats a row.
    """
    whole = min(last, y_TN.shape[1] // OUTS)
    if first < whole:
        to, stride = y_TN.ctypes.data + 4 * OUTS * first, 4 * y_TN.shape[1]
        multiply_whole(rows_TD, described, address, first, whole, to, stride)
    if whole < last:
        # The last block's outputs are not all there are lanes for.
        multiply_whole(rows_TD, described, address, whole, last, scratch, _LINE)
        sums = carray(pointer_like(scratch, _FLOATS), (y_TN.shape[0], OUTS))
        for t in range(y_TN.shape[0]):
            for n in range(whole * OUTS, y_TN.shape[1]):
                y_TN[t, n] = sums[t, n - whole * OUTS]
    if bias_N.shape[0]:
        for t in range(y_TN.shape[0]):
            for n in range(first * OUTS, min(last * OUTS, y_TN.shape[1])):
                y_TN[t, n] += bias_N[n]


@compiled
def multiply_whole(rows_TD, described, address, first, last, to, stride):
    """Write the sums of blocks [first, last) to an address, rows ``stride`` bytes apart."""
    block_bytes = 2 * OUTS * rows_TD.shape[1]
    weights = address + first * block_bytes
    if not described.shape[0]:
        multiply_by_lanes(rows_TD, weights, last - first, to, stride)
        return
    block, left = 0, last - first
    while left:
        at, place = weights + block * block_bytes, to + block * _LINE
        if rows_TD.shape[0] >= _SQUARE_ROWS and left >= 2:
            multiply_many(rows_TD, at, block_bytes, place, stride)
            taken = 2
        else:
            taken = 4 if left >= 4 else (2 if left >= 2 else 1)
            multiply_few(rows_TD, at, block_bytes, taken, place, stride)
        block += taken
        left -= taken


@compiled
def multiply_few(rows_TD, weights, block_bytes, num_blocks, to, stride):
    """Up to 16 rows at a time; the last 16 may have been had in part."""
    num_rows, width = rows_TD.shape
    steps = 2 * width // _LINE
    for begun in range(0, num_rows, _ROWS):
        t = max(0, min(begun, num_rows - _ROWS))
        rows, place = rows_TD[t].ctypes.data, to + t * stride
        if num_blocks == 4:
            _four(rows, 2 * width, weights, _LINE, block_bytes, steps, place, stride)
        elif num_blocks == 2:
            _pair(rows, 2 * width, weights, _LINE, block_bytes, steps, place, stride)
        else:
            _one(rows, 2 * width, weights, _LINE, block_bytes, steps, place, stride)


@compiled
def multiply_many(rows_TD, weights, block_bytes, to, stride):
    """Two blocks with 32 rows at a time, while the blocks stay in the nearest cache."""
    num_rows, width = rows_TD.shape
    steps = 2 * width // _LINE
    for begun in range(0, num_rows, _SQUARE_ROWS):
        t = min(begun, num_rows - _SQUARE_ROWS)
        rows, place = rows_TD[t].ctypes.data, to + t * stride
        _square(rows, 2 * width, weights, _LINE, block_bytes, steps, place, stride)


@compiled
def multiply_by_lanes(rows_TD, weights, num_blocks, to, stride):
    """One block at a time with all rows, without tiles."""
    width = 2 * rows_TD.shape[1]
    for block in range(num_blocks):
        at = weights + block * OUTS * width
        t = 0
        while t < rows_TD.shape[0]:
            left = rows_TD.shape[0] - t
            row = rows_TD[t].ctypes.data
            place = to + block * _LINE + t * stride
            if left >= 8:
                half_blocks.multiply_8(row, width, at, place, stride)
                t += 8
            elif left >= 4:
                half_blocks.multiply_4(row, width, at, place, stride)
                t += 4
            elif left >= 2:
                half_blocks.multiply_2(row, width, at, place, stride)
                t += 2
            else:
                half_blocks.multiply_1(row, width, at, place, stride)
                t += 1


@compiled
def _multiply_share(begin_, end_, num_items, rows_TD, described, address, bias_N, y_TN):
    num_blocks = (y_TN.shape[1] + OUTS - 1) // OUTS
    scratch = np.empty((rows_TD.shape[0], OUTS), dtype=np.float32)
    if described.shape[0]:
        tile_registers.configure(described.ctypes.data)
    first, last = begin_ * num_blocks // num_items, end_ * num_blocks // num_items
    multiply_blocks(rows_TD, described, address, first, last, bias_N, y_TN, scratch.ctypes.data)
    if described.shape[0]:
        tile_registers.release()


@compiled
def multiply(threads, rows_TD, described, address, bias_N, y_TN):
    """Write all outputs."""
    num_items = threads[2]
    share = (num_items, rows_TD, described, address, bias_N, y_TN)
    spread(threads, num_items, _multiply_share, share)
