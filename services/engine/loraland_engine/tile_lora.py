"""The low-rank update of a prompt's rows in tile registers: neighbours with one adapter at a time. No I/O.

What ``prompt_lora`` does in float32, with rows, weights and what lies between them rounded to
bfloat16, and sums in float32. An int8 weight is exact in bfloat16; over a base of int8 or bfloat16 the
rest is less than what the base's own products lose. One more thing is done on the way: the tile's raw
products get their rows' scales and the bias while the update is added.

A row's result depends on no other row: a tile may be cut anywhere.

Shapes: M rows of the tile, D in, O a part's outs, N the joined outs, P parts, R rank. ``table_P4`` and
``like`` are those of ``row_kernels``.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import half_tiles, tile_registers
from loraland_engine.native import carray, compiled, fetch, pointer_like

# Rows of one adapter that A and B are rounded and laid out for at once.
TILE_ROWS = 64
_LINES, _STEP = half_tiles.LINES, half_tiles.STEP
_TILE_BYTES = tile_registers.TILE_BYTES
# Outs that one product has.
_BLOCK = 64
_HALF_BYTES, _FLOAT_BYTES = 2, 4
_SETUP = tile_registers.setup(_LINES)
_LIKE_SCALE = np.empty(0, dtype=np.float32)
_shrink = tile_registers.build_product(tile_registers.HALVES, 2, 1)
_expand = tile_registers.build_product(tile_registers.HALVES, 1, 4)


@compiled
def is_worthwhile(x_TD):
    """Whether the rows can be multiplied so."""
    return x_TD.shape[1] % _STEP == 0


@compiled
def round_rows(x_TD, first, count, halves_MD):
    for m in range(count):
        to, source = halves_MD[m].ctypes.data, x_TD[first + m].ctypes.data
        half_tiles.round_row(to, source, x_TD.shape[1])


@compiled
def shrink(halves_MD, a_RD, lines, h_MR):
    """Write the products of the tile's rows with A; columns beyond the rank are anything."""
    num_rows, width = halves_MD.shape
    rank = a_RD.shape[0]
    for r in range(0, rank, _LINES):
        source, last = a_RD[r].ctypes.data, min(_LINES, rank - r) - 1
        for d in range(0, width, _STEP):
            half_tiles.pack_square(
                lines.ctypes.data + d // _STEP * _TILE_BYTES, source + d * a_RD.itemsize, width,
                last, a_RD,
            )  # fmt: skip
        for m in range(0, num_rows, 2 * _LINES):
            _shrink(
                halves_MD[m].ctypes.data, width * _HALF_BYTES, lines.ctypes.data, _TILE_BYTES // _LINES,
                0, width // _STEP, h_MR[m, r:].ctypes.data, h_MR.shape[1] * _FLOAT_BYTES,
            )  # fmt: skip


@compiled
def round_ranks(h_MR, rank, scale_R, halves_MR):
    """Give each rank its scale, and round; columns beyond the rank become 0."""
    row = np.zeros(halves_MR.shape[1], dtype=np.float32)
    for m in range(h_MR.shape[0]):
        for r in range(rank):
            row[r] = h_MR[m, r] * scale_R[r]
        half_tiles.round_row(halves_MR[m].ctypes.data, row.ctypes.data, row.shape[0])


@compiled
def pack_outs(b_RO, first, count, edge, lines, num_lines):
    """Lay out up to 64 outs of B, pairs of ranks in a line; ``edge`` is a row where B has ended."""
    rank, size = b_RO.shape[0], b_RO.itemsize
    for o in range(0, count, _LINES):
        is_whole = o + _LINES <= count
        to = lines.ctypes.data + o // _LINES * num_lines * half_tiles.LINE_BYTES
        for pair in range(num_lines):
            if not is_whole:
                for n in range(o, count):
                    edge[1, n - o] = b_RO[min(2 * pair, rank - 1), first + n]
                    edge[2, n - o] = b_RO[min(2 * pair + 1, rank - 1), first + n]
            upper = lower = edge[0].ctypes.data
            if 2 * pair < rank:
                at = b_RO.ctypes.data + (2 * pair * b_RO.shape[1] + first + o) * size
                upper = at if is_whole else edge[1].ctypes.data
            if 2 * pair + 1 < rank:
                at = b_RO.ctypes.data + ((2 * pair + 1) * b_RO.shape[1] + first + o) * size
                lower = at if is_whole else edge[2].ctypes.data
            half_tiles.pack_pair(to + pair * half_tiles.LINE_BYTES, upper, lower, b_RO)


@compiled
def expand(y_TN, scale_T, first, count, start, b_RO, halves_MR):
    """Scale the part's raw products, and add the products with B."""
    num_out, num_lines = b_RO.shape[1], halves_MR.shape[1] // 2
    lines = np.empty((_BLOCK // _LINES, num_lines, half_tiles.LINE_BYTES), dtype=np.uint8)
    sums = np.empty((_LINES, _BLOCK), dtype=np.float32)
    edge = np.zeros((3, _LINES), dtype=b_RO.dtype)
    for o in range(0, num_out, _BLOCK):
        outs = min(_BLOCK, num_out - o)
        pack_outs(b_RO, o, outs, edge, lines, num_lines)
        for m in range(0, count, _LINES):
            _expand(
                halves_MR[m].ctypes.data, halves_MR.shape[1] * _HALF_BYTES, lines.ctypes.data,
                half_tiles.LINE_BYTES, num_lines * half_tiles.LINE_BYTES, num_lines // _LINES,
                sums.ctypes.data, _BLOCK * _FLOAT_BYTES,
            )  # fmt: skip
            for i in range(min(_LINES, count - m)):
                y, scale = y_TN[first + m + i, start + o : start + o + outs], scale_T[first + m + i]
                update = sums[i]
                if outs == _BLOCK:
                    # With a number known when this is compiled, a row takes a few instructions.
                    for n in range(_BLOCK):
                        y[n] = y[n] * scale + update[n]
                else:
                    for n in range(outs):
                        y[n] = y[n] * scale + update[n]


@compiled
def scale_part(y_TN, scale_T, first, count, start, end):
    for t in range(first, first + count):
        y, scale = y_TN[t, start:end], scale_T[t]
        for n in range(y.shape[0]):
            y[n] *= scale


@compiled
def _finish_tile(y_TN, x_TD, scale_T, bias_N, first, count, table_P4, start_P, like):
    width = x_TD.shape[1]
    num_rows = (count + 2 * _LINES - 1) // (2 * _LINES) * (2 * _LINES)
    halves_MD = np.empty((num_rows, width), dtype=np.uint16)
    lines = np.empty(width // _STEP * _TILE_BYTES, dtype=np.uint8)
    # Adapters come from memory: A while rows are rounded, each B while its A is multiplied.
    for p in range(table_P4.shape[0]):
        fetch(table_P4[p, 0], table_P4[p, 2] * width * like.itemsize)
    round_rows(x_TD, first, count, halves_MD)
    tile_registers.configure(_SETUP.ctypes.data)
    for p in range(table_P4.shape[0]):
        rank, start, end = table_P4[p, 2], start_P[p], start_P[p + 1]
        if rank == 0:
            scale_part(y_TN, scale_T, first, count, start, end)
            continue
        a_RD = carray(pointer_like(table_P4[p, 0], like), (rank, width))
        b_RO = carray(pointer_like(table_P4[p, 1], like), (rank, end - start))
        scale_R = carray(pointer_like(table_P4[p, 3], _LIKE_SCALE), (rank,))
        fetch(table_P4[p, 1], rank * (end - start) * like.itemsize)
        h_MR = np.empty((num_rows, (rank + _LINES - 1) // _LINES * _LINES), dtype=np.float32)
        shrink(halves_MD, a_RD, lines, h_MR)
        padded = (rank + _STEP - 1) // _STEP * _STEP
        halves_MR = np.empty((num_rows, padded), dtype=np.uint16)
        round_ranks(h_MR, rank, scale_R, halves_MR)
        expand(y_TN, scale_T, first, count, start, b_RO, halves_MR)
    tile_registers.release()
    if bias_N.shape[0]:
        for t in range(first, first + count):
            y = y_TN[t]
            for n in range(y.shape[0]):
                y[n] += bias_N[n]


@compiled
def _refuse(y_TN, x_TD, scale_T, bias_N, first, count, table_P4, start_P, like):
    """Stand in where there are no tiles: their instructions could not be compiled."""


IS_SUPPORTED = tile_registers.is_supported(tile_registers.HALVES)
# Within compiled code: finish a linear's raw products for a tile, update included.
finish_tile = _finish_tile if IS_SUPPORTED else _refuse
