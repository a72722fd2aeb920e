"""The low-rank update of a prompt's rows, compiled: neighbours with one adapter at a time. CPU; no I/O.

Decoding rows have an adapter each and are bound by reading it. A piece of a prompt brings many rows
of one adapter, and is bound by multiplying: rows and ranks are taken in blocks that stay in registers.
Adds what ``row_kernels.add_lora`` adds, at true ranks, part by part.

Shapes: T rows, D in, O a part's outs, N the joined outs, P parts, R rank. ``table_P4`` and ``like`` are
those of ``row_kernels``.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine.float_blocks import (
    LANES,
    ROWS,
    SQUARE,
    WIDTH,
    add_row,
    add_row_narrow,
    add_rows,
    add_rows_narrow,
    dot_rows,
    dot_square,
)
from loraland_engine.native import carray, compiled, pointer_like

# A tile of more is one of a prompt.
DECODING_ROWS = 4
# Rows of one adapter that A and B are converted for at once.
TILE_ROWS = 16
_LIKE_SCALE = np.empty(0, dtype=np.float32)


@compiled
def is_worthwhile(x_TD, count):
    """Whether a tile is one for these blocks: fewer rows, or odd widths, are another's."""
    return count > DECODING_ROWS and x_TD.shape[1] % LANES == 0


@compiled
def shrink(x_TD, first, a_RD, h_MR, like):
    """Write the products of the tile's rows with A."""
    count, rank = h_MR.shape
    width = x_TD.shape[1]
    whole = rank - rank % SQUARE
    for begin in range(0, count, SQUARE):
        # The last block is filled up with rows that were had before.
        m = min(begin, count - SQUARE)
        x, h = x_TD[first + m].ctypes.data, h_MR[m].ctypes.data
        for r in range(0, whole, SQUARE):
            dot_square(h + 4 * r, rank, x, width, a_RD[r].ctypes.data, width, width, like)
        for r in range(whole, rank):
            dot_rows(h + 4 * r, rank, x, width, a_RD[r].ctypes.data, width, width, like)


@compiled
def expand(y_TN, first, start, b_RO, h_MR, like):
    """Add the products with B to the rows, from column ``start`` on."""
    num_out = b_RO.shape[1]
    wide = num_out - num_out % WIDTH
    whole = num_out - num_out % LANES
    for o in range(0, wide, WIDTH):
        expand_wide(y_TN, first, start, o, b_RO, h_MR, like)
    for o in range(wide, whole, LANES):
        expand_narrow(y_TN, first, start, o, b_RO, h_MR, like)
    for m in range(h_MR.shape[0]):
        for r in range(h_MR.shape[1]):
            for o in range(whole, num_out):
                y_TN[first + m, start + o] += h_MR[m, r] * np.float32(b_RO[r, o])


@compiled
def expand_wide(y_TN, first, start, o, b_RO, h_MR, like):
    count, rank = h_MR.shape
    b = b_RO[0, o:].ctypes.data
    whole = count - count % ROWS
    for m in range(0, whole, ROWS):
        y = y_TN[first + m, start + o :].ctypes.data
        add_rows(
            y, y_TN.shape[1], h_MR[m].ctypes.data, rank, 1, b, b_RO.shape[1], rank, like
        )  # fmt: skip
    for m in range(whole, count):
        y = y_TN[first + m, start + o :].ctypes.data
        add_row(y, y_TN.shape[1], h_MR[m].ctypes.data, rank, 1, b, b_RO.shape[1], rank, like)


@compiled
def expand_narrow(y_TN, first, start, o, b_RO, h_MR, like):
    count, rank = h_MR.shape
    b = b_RO[0, o:].ctypes.data
    whole = count - count % ROWS
    for m in range(0, whole, ROWS):
        y = y_TN[first + m, start + o :].ctypes.data
        add_rows_narrow(
            y, y_TN.shape[1], h_MR[m].ctypes.data, rank, 1, b, b_RO.shape[1], rank, like
        )  # fmt: skip
    for m in range(whole, count):
        y = y_TN[first + m, start + o :].ctypes.data
        add_row_narrow(
            y, y_TN.shape[1], h_MR[m].ctypes.data, rank, 1, b, b_RO.shape[1], rank, like
        )  # fmt: skip


@compiled
def add_tile(y_TN, x_TD, scale_T, first, count, table_P4, start_P, like):
    """Add the update to the tile's raw products, which ``scale_T`` has yet to multiply."""
    for p in range(table_P4.shape[0]):
        rank = table_P4[p, 2]
        if rank == 0:
            continue
        start, end = start_P[p], start_P[p + 1]
        a = carray(pointer_like(table_P4[p, 0], like), (rank, x_TD.shape[1]))
        b = carray(pointer_like(table_P4[p, 1], like), (rank, end - start))
        scale = carray(pointer_like(table_P4[p, 3], _LIKE_SCALE), (rank,))
        h = np.empty((count, rank), dtype=np.float32)
        shrink(x_TD, first, a, h, like)
        for m in range(count):
            inverse = np.float32(1.0) / scale_T[first + m]
            for r in range(rank):
                h[m, r] *= scale[r] * inverse
        expand(y_TN, first, start, b, h, like)
