"""Some outputs of an int8 linear for all rows, compiled: in tile registers, or by VNNI. CPU; no I/O.

Both read the blocks of ``byte_blocks`` and sum exactly, so a row's numbers depend neither on how many
share the step nor on the processor.

Shapes: T rows, D in, N outs. ``described`` is what ``tiles`` returns for the number of rows.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import byte_blocks, tile_registers
from loraland_engine.byte_blocks import OUTS
from loraland_engine.native import carray, compiled, pointer_like, spread

_ROWS = tile_registers.LINES
# From so many rows on, weights are multiplied with two tiles of rows at once.
_SQUARE_ROWS = 2 * _ROWS
_SQUARE_OUTS = 2 * OUTS
_LINE = tile_registers.LINE_BYTES
# A step of decoding rows waits for weights from memory.
_AHEAD_BYTES = 4096
_LIKE_SUM = np.empty(0, dtype=np.int32)
_pair = tile_registers.build_product(tile_registers.BYTES, 1, 2, ahead_bytes=_AHEAD_BYTES)
_one = tile_registers.build_product(tile_registers.BYTES, 1, 1, ahead_bytes=_AHEAD_BYTES)
_square = tile_registers.build_product(tile_registers.BYTES, 2, 2)
_column = tile_registers.build_product(tile_registers.BYTES, 2, 1)


def tiles(num_rows: int, *, is_allowed: bool = True) -> np.ndarray:
    """Return how tile registers are to be set up; empty where there are none, or not allowed."""
    if not (is_allowed and tile_registers.is_supported(tile_registers.BYTES)):
        return np.empty(0, dtype=np.uint8)
    return tile_registers.setup(min(num_rows, _ROWS))


@compiled
def begin(described):
    """Set this thread's tiles up, if it has any."""
    if described.shape[0]:
        tile_registers.configure(described.ctypes.data)


@compiled
def end(described):
    if described.shape[0]:
        tile_registers.release()


@compiled
def build_sums(num_rows):
    """Return room for the sums that ``multiply_blocks`` has in hand."""
    return np.empty(max(num_rows * OUTS, _SQUARE_ROWS * _SQUARE_OUTS), dtype=np.int32)


@compiled
def multiply_blocks(
    rows_TD, scale_T, described, address, first, last, shift_N, scale_N, bias_N, y_TN, sums
):
    """Write the outputs of blocks [first, last) as floats: both scales, and the bias.

    ``address`` is the first block's of all.
    """
    if not described.shape[0] or rows_TD.shape[1] % _LINE:
        multiply_by_lanes(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums)
    elif rows_TD.shape[0] < _SQUARE_ROWS:
        multiply_few(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums)
    else:
        multiply_many(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums)
    if bias_N.shape[0]:
        for t in range(y_TN.shape[0]):
            for n in range(first * OUTS, min(last * OUTS, y_TN.shape[1])):
                y_TN[t, n] += bias_N[n]


@compiled
def multiply_few(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums):
    """Two blocks at a time, with up to 16 rows at a time; the last 16 may have been had in part."""
    num_rows, width = rows_TD.shape
    block_bytes, steps = OUTS * width, width // _LINE
    to = sums.ctypes.data
    for block in range(first, last, 2):
        weights = address + block * block_bytes
        for begun in range(0, num_rows, _ROWS):
            t = max(0, min(begun, num_rows - _ROWS))
            rows = rows_TD[t].ctypes.data
            count = min(_ROWS, num_rows)
            if block + 1 < last:
                _pair(rows, width, weights, _LINE, block_bytes, steps, to, 2 * _LINE)
                finish(to, 2, t, count, block, scale_T, shift_N, scale_N, y_TN)
                finish(to + _LINE, 2, t, count, block + 1, scale_T, shift_N, scale_N, y_TN)
            else:
                _one(rows, width, weights, _LINE, block_bytes, steps, to, _LINE)
                finish(to, 1, t, count, block, scale_T, shift_N, scale_N, y_TN)


@compiled
def multiply_many(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums):
    """The same with 32 rows at a time, while two blocks of weights stay in the nearest cache."""
    num_rows, width = rows_TD.shape
    block_bytes, steps = OUTS * width, width // _LINE
    to, count = sums.ctypes.data, _SQUARE_ROWS
    for block in range(first, last, 2):
        weights = address + block * block_bytes
        for begun in range(0, num_rows, _SQUARE_ROWS):
            t = min(begun, num_rows - _SQUARE_ROWS)
            rows = rows_TD[t].ctypes.data
            if block + 1 < last:
                _square(rows, width, weights, _LINE, block_bytes, steps, to, 2 * _LINE)
                finish(to, 2, t, count, block, scale_T, shift_N, scale_N, y_TN)
                finish(to + _LINE, 2, t, count, block + 1, scale_T, shift_N, scale_N, y_TN)
            else:
                _column(rows, width, weights, _LINE, block_bytes, steps, to, _LINE)
                finish(to, 1, t, count, block, scale_T, shift_N, scale_N, y_TN)


@compiled
def multiply_by_lanes(rows_TD, scale_T, address, first, last, shift_N, scale_N, y_TN, sums):
    """One block at a time with all rows, without tiles."""
    num_rows, width = rows_TD.shape
    for block in range(first, last):
        multiply_rows(rows_TD, address + block * OUTS * width, sums)
        finish(sums.ctypes.data, 1, 0, num_rows, block, scale_T, shift_N, scale_N, y_TN)


@compiled
def multiply_rows(rows_TD, block, sums):
    """Write the sums of 16 outputs for all rows."""
    width = rows_TD.shape[1]
    first = 0
    while first < rows_TD.shape[0]:
        left = rows_TD.shape[0] - first
        row = rows_TD.ctypes.data + first * width
        to = sums.ctypes.data + first * OUTS * 4
        if left >= 16:
            byte_blocks.multiply_16(row, width, block, width, to)
            first += 16
        elif left >= 8:
            byte_blocks.multiply_8(row, width, block, width, to)
            first += 8
        elif left >= 4:
            byte_blocks.multiply_4(row, width, block, width, to)
            first += 4
        elif left >= 2:
            byte_blocks.multiply_2(row, width, block, width, to)
            first += 2
        else:
            byte_blocks.multiply_1(row, width, block, width, to)
            first += 1


@compiled
def finish(sums, blocks, t, count, block, scale_T, shift_N, scale_N, y_TN):
    """Write a block's sums as outputs of rows [t, t + count); a line holds those of ``blocks``."""
    first = block * OUTS
    if first + OUTS <= y_TN.shape[1]:
        byte_blocks.finish_16(
            sums, blocks * _LINE, count, scale_T[t:].ctypes.data, shift_N[first:].ctypes.data,
            scale_N[first:].ctypes.data, y_TN[t, first:].ctypes.data, 4 * y_TN.shape[1],
        )  # fmt: skip
    else:
        total_TN = carray(pointer_like(sums, _LIKE_SUM), (count, blocks * OUTS))
        for i in range(count):
            for n in range(y_TN.shape[1] - first):
                exact = np.float32(total_TN[i, n] - shift_N[first + n])
                y_TN[t + i, first + n] = exact * scale_N[first + n] * scale_T[t + i]


@compiled
def _multiply_share(begin_, end_, num_items, rows_TD, one_T, described, weights, none_N, y_TN):
    address, shift_N, scale_N = weights
    num_blocks = (y_TN.shape[1] + OUTS - 1) // OUTS
    sums = build_sums(rows_TD.shape[0])
    begin(described)
    first, last = begin_ * num_blocks // num_items, end_ * num_blocks // num_items
    multiply_blocks(
        rows_TD, one_T, described, address, first, last, shift_N, scale_N, none_N, y_TN, sums
    )
    end(described)


@compiled
def multiply(threads, rows_TD, one_T, described, weights, none_N, y_TN):
    """Write all outputs, still without the rows' scales and the bias."""
    num_items = threads[2]
    share = (num_items, rows_TD, one_T, described, weights, none_N, y_TN)
    spread(threads, num_items, _multiply_share, share)
