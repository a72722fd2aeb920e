"""Attention of pieces of prompts, compiled: all pieces, heads and threads in one call. CPU; no I/O.

A strip is a few neighbouring tokens of one piece with all query heads of one key/value head: the
lanes of the processor's vectors. Scores and sums lie transposed, one line a key or an element, so
that maxima and sums over keys are taken lane by lane. Keys and values are read from KV memory.

Shapes: I strips, T packed tokens, N joined outs, W lanes of a strip, B keys of a block, S slots,
G key/value heads, L context tokens, E head size, H query heads.

Source: the running softmax of FlashAttention, Dao et al. 2022, arXiv:2205.14135.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine.float_blocks import (
    ROWS,
    WIDTH,
    add_row,
    add_rows,
    multiply_row,
    multiply_rows,
)
from loraland_engine.native import compiled, spread
from loraland_engine.rounding import as_floats
from loraland_engine.row_kernels import exponential

BLOCK_KEYS = 64
_FLOATS = np.empty(0, dtype=np.float32)


def build_strips(pieces: list[tuple[int, int, int, int]], *, group_size: int) -> np.ndarray:
    """Return [I, 4]: first packed row, number of tokens, first position and KV slot of each strip.

    A piece is (first packed row, first position, number of tokens, KV slot).
    """
    num_tokens = WIDTH // group_size
    assert num_tokens, group_size
    tables = []
    for row, position, count, slot in pieces:
        starts = np.arange(0, count, num_tokens)
        table = np.empty((len(starts), 4), dtype=np.int64)
        table[:, 0] = row + starts
        table[:, 1] = np.minimum(num_tokens, count - starts)
        table[:, 2] = position + starts
        table[:, 3] = slot
        tables.append(deal(table))
    return np.concatenate(tables) if tables else np.empty((0, 4), dtype=np.int64)


def deal(table: np.ndarray) -> np.ndarray:
    """Return the strips of a piece in turns, early and late ones, which have more to read.

    So threads that share the table out have equal parts.
    """
    half = (len(table) + 1) // 2
    turns = np.empty_like(table)
    turns[0::2], turns[1::2] = table[:half], table[half:][::-1]
    return turns


@compiled
def multiply_keys(query_EW, keys_BE, scores_BW):
    """Write the scores of some keys."""
    count, size = keys_BE.shape
    whole = count - count % ROWS
    for n in range(0, whole, ROWS):
        multiply_rows(
            scores_BW[n].ctypes.data, WIDTH, keys_BE[n].ctypes.data, size, 1,
            query_EW.ctypes.data, WIDTH, size, _FLOATS,
        )  # fmt: skip
    for n in range(whole, count):
        multiply_row(
            scores_BW[n].ctypes.data, WIDTH, keys_BE[n].ctypes.data, size, 1,
            query_EW.ctypes.data, WIDTH, size, _FLOATS,
        )  # fmt: skip


@compiled
def add_values(weights_BW, values_BE, sums_EW):
    """Add the values of some keys, each as often as its weight says."""
    count, size = values_BE.shape
    whole = size - size % ROWS
    address = values_BE.ctypes.data
    for e in range(0, whole, ROWS):
        add_rows(
            sums_EW[e].ctypes.data, WIDTH, address + 4 * e, 1, size, weights_BW.ctypes.data, WIDTH,
            count, _FLOATS,
        )  # fmt: skip
    for e in range(whole, size):
        add_row(
            sums_EW[e].ctypes.data, WIDTH, address + 4 * e, 1, size, weights_BW.ctypes.data, WIDTH,
            count, _FLOATS,
        )  # fmt: skip


@compiled
def weigh(scores_BW, count, largest_W, total_W, factor_W):
    """Turn scores into weights relative to the largest so far; note what older ones shrink by."""
    for w in range(WIDTH):
        factor_W[w] = largest_W[w]
    for n in range(count):
        for w in range(WIDTH):
            largest_W[w] = max(largest_W[w], scores_BW[n, w])
    for w in range(WIDTH):
        factor_W[w] = exponential(factor_W[w] - largest_W[w])
        total_W[w] *= factor_W[w]
    for n in range(count):
        for w in range(WIDTH):
            scores_BW[n, w] = exponential(scores_BW[n, w] - largest_W[w])
            total_W[w] += scores_BW[n, w]


@compiled
def attend_strip(
    query_EW, keys_LE, values_LE, position, length, group_size, floats_BE, scores_BW, sums_EW
):
    """Leave the answers in ``sums_EW``; lane w is token w // group_size, from ``position`` on."""
    largest_W = np.full(WIDTH, -np.inf, dtype=np.float32)
    total_W = np.zeros(WIDTH, dtype=np.float32)
    factor_W = np.empty(WIDTH, dtype=np.float32)
    sums_EW[:] = np.float32(0.0)
    for first in range(0, length, BLOCK_KEYS):
        count = min(BLOCK_KEYS, length - first)
        keys = as_floats(keys_LE[first : first + count], floats_BE)
        multiply_keys(query_EW, keys, scores_BW)
        for n in range(max(0, position + 1 - first), count):
            # Tokens before this key do not see it.
            for w in range((first + n - position) * group_size):
                scores_BW[n, w] = -np.inf
        weigh(scores_BW, count, largest_W, total_W, factor_W)
        if first:
            for e in range(sums_EW.shape[0]):
                for w in range(WIDTH):
                    sums_EW[e, w] *= factor_W[w]
        add_values(scores_BW, as_floats(values_LE[first : first + count], floats_BE), sums_EW)
    for w in range(WIDTH):
        factor_W[w] = np.float32(1.0) / total_W[w]
    for e in range(sums_EW.shape[0]):
        for w in range(WIDTH):
            sums_EW[e, w] *= factor_W[w]


@compiled
def _attend_pieces(begin, end, y_TN, strip_I4, keys_SGLE, values_SGLE, scaling, out_TD):
    num_kv, size = keys_SGLE.shape[1], keys_SGLE.shape[3]
    group_size = out_TD.shape[1] // size // num_kv
    query_EW = np.zeros((size, WIDTH), dtype=np.float32)
    sums_EW = np.empty((size, WIDTH), dtype=np.float32)
    scores_BW = np.empty((BLOCK_KEYS, WIDTH), dtype=np.float32)
    floats_BE = np.empty((BLOCK_KEYS, size), dtype=np.float32)
    for item in range(begin, end):
        row, count, position, slot = strip_I4[item // num_kv]
        g = item % num_kv
        for t in range(count):
            for p in range(group_size):
                x = y_TN[row + t, (g * group_size + p) * size : (g * group_size + p + 1) * size]
                for e in range(size):
                    query_EW[e, t * group_size + p] = x[e] * scaling
        attend_strip(
            query_EW, keys_SGLE[slot, g], values_SGLE[slot, g], position, position + count,
            group_size, floats_BE, scores_BW, sums_EW,
        )  # fmt: skip
        for t in range(count):
            for p in range(group_size):
                x = out_TD[row + t, (g * group_size + p) * size : (g * group_size + p + 1) * size]
                for e in range(size):
                    x[e] = sums_EW[e, t * group_size + p]


@compiled
def attend_pieces(threads, y_TN, strip_I4, keys_SGLE, values_SGLE, scaling, out_TD):
    """Answer the queries in ``y_TN`` for all strips; their keys and values are in KV memory."""
    share = (y_TN, strip_I4, keys_SGLE, values_SGLE, scaling, out_TD)
    spread(threads, strip_I4.shape[0] * keys_SGLE.shape[1], _attend_pieces, share)
