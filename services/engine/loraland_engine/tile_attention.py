"""Attention of pieces of prompts in tile registers: bfloat16 operands, float32 sums. CPU; no I/O.

What ``prompt_attention`` does in float32. Keys and values are rounded and laid out first, once for
each piece; then each strip, a few neighbouring tokens with all query heads of one key/value head, gets
its scores against all its keys, its weights, and its answers, with two products. Both phases share
their items out among threads. Many pieces take rounds, so that what is laid out stays small.

A row's result depends on no other row: a prompt may be cut anywhere.

Shapes: I strips, J blocks of keys, T packed tokens, N joined outs, M rows of a strip, S slots,
G key/value heads, L context tokens, E head size.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from loraland_engine import half_tiles, prompt_attention, score_rows, tile_registers
from loraland_engine.native import Threads, compiled, spread

STRIP_ROWS = 32
BLOCK_KEYS = 32
# More is laid out in a round only for a single piece.
ROUND_BYTES = 4 << 20
_LINES, _STEP = half_tiles.LINES, half_tiles.STEP
_TILE_BYTES, _LINE_BYTES = tile_registers.TILE_BYTES, half_tiles.LINE_BYTES
_HALF_BYTES, _FLOAT_BYTES = 2, 4
# Rows a power of two apart would fall on the same lines of the cache.
_APART = 32
_SETUP = tile_registers.setup(_LINES)
_multiply = tile_registers.build_product(tile_registers.HALVES, 2, 2)

# First packed row, first position, number of tokens, KV slot.
Piece = tuple[int, int, int, int]


class Round(NamedTuple):
    """Strips whose keys and values are laid out together, in so many halves for each head."""

    # First packed row, tokens, first position, halves before the piece's keys, its padded length.
    strip_I5: np.ndarray
    # KV slot, first key, length, halves before the piece's keys, its padded length.
    block_J5: np.ndarray
    num_halves: int


def is_suited(*, head_size: int, group_size: int) -> bool:
    """Whether heads of this size can be multiplied so, on this machine."""
    return IS_SUPPORTED and head_size % _STEP == 0 and group_size <= STRIP_ROWS


def build_rounds(pieces: list[Piece], *, group_size: int, head_size: int) -> tuple[Round, ...]:
    tokens = STRIP_ROWS // group_size
    rounds = []
    for own in _batches(pieces, head_size):
        strips, blocks, offset = [], [], 0
        for row, position, count, slot in own:
            length = position + count
            padded = _padded(length)
            table = np.empty((-(-count // tokens), 5), dtype=np.int64)
            table[:] = row, tokens, position, offset, padded
            starts = np.arange(0, count, tokens)
            table[:, 0] += starts
            table[:, 1] = np.minimum(tokens, count - starts)
            table[:, 2] += starts
            strips.append(prompt_attention.deal(table))
            blocks += [(slot, key, length, offset, padded) for key in range(0, length, BLOCK_KEYS)]
            offset += 2 * padded * head_size
        rounds.append(Round(np.concatenate(strips), np.array(blocks, dtype=np.int64), offset))
    return tuple(rounds)


def _batches(pieces: list[Piece], head_size: int) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    left = ROUND_BYTES
    for piece in pieces:
        need = 2 * _HALF_BYTES * head_size * _padded(piece[1] + piece[2])
        if batch and need > left:
            yield batch
            batch, left = [], ROUND_BYTES
        batch.append(piece)
        left -= need
    if batch:
        yield batch


def _padded(length: int) -> int:
    return -(-length // BLOCK_KEYS) * BLOCK_KEYS


@compiled
def _pack_block(keys_LE, values_LE, first, length, padded, nothing_E, to):
    """Lay out 32 keys and values; those beyond the length are as good as none."""
    size = keys_LE.shape[1]
    item, steps = keys_LE.itemsize, size // _STEP
    for n in range(first, min(first + BLOCK_KEYS, length), _LINES):
        for e in range(steps):
            half_tiles.pack_square(
                to + (n // _LINES * steps + e) * _TILE_BYTES, keys_LE[n].ctypes.data + e * _STEP * item,
                size, min(_LINES, length - n) - 1, keys_LE,
            )  # fmt: skip
    to += padded * size * _HALF_BYTES
    for n in range(first, first + BLOCK_KEYS, 2):
        upper = values_LE[n].ctypes.data if n < length else nothing_E.ctypes.data
        lower = values_LE[n + 1].ctypes.data if n + 1 < length else nothing_E.ctypes.data
        for e in range(0, size, _LINES):
            line = e // _LINES * padded // 2 + n // 2
            half_tiles.pack_pair(
                to + line * _LINE_BYTES, upper + e * item, lower + e * item, values_LE
            )


@compiled
def _pack_blocks(begin, end, block_J5, keys_SGLE, values_SGLE, packed_GH):
    num_kv = keys_SGLE.shape[1]
    nothing_E = np.zeros(keys_SGLE.shape[3], dtype=keys_SGLE.dtype)
    for item in range(begin, end):
        slot, first, length, offset, padded = block_J5[item // num_kv]
        g = item % num_kv
        _pack_block(
            keys_SGLE[slot, g], values_SGLE[slot, g], first, length, padded, nothing_E,
            packed_GH[g].ctypes.data + offset * _HALF_BYTES,
        )  # fmt: skip


@compiled
def _answer(query_ME, num_rows, position, group_size, packed, padded, sums_ME, inverse_M):
    """Leave the rows' sums of values, and what to multiply them with."""
    size = query_ME.shape[1]
    length = position + (num_rows + group_size - 1) // group_size
    seen = (length + BLOCK_KEYS - 1) // BLOCK_KEYS * BLOCK_KEYS
    scores = np.empty((STRIP_ROWS, seen + _APART // 2), dtype=np.float32)
    weights = np.empty((STRIP_ROWS, seen + _APART), dtype=np.uint16)
    steps = size // _STEP
    for n in range(0, seen, BLOCK_KEYS):
        _multiply(
            query_ME.ctypes.data, size * _HALF_BYTES, packed + n // _LINES * steps * _TILE_BYTES,
            _LINE_BYTES, steps * _TILE_BYTES, steps, scores.ctypes.data + n * _FLOAT_BYTES,
            scores.shape[1] * _FLOAT_BYTES,
        )  # fmt: skip
    for m in range(num_rows):
        inverse_M[m] = np.float32(1.0) / score_rows.weigh(
            scores.ctypes.data + m * scores.shape[1] * _FLOAT_BYTES, seen,
            position + m // group_size + 1,
            weights.ctypes.data + m * weights.shape[1] * _HALF_BYTES,
        )  # fmt: skip
    values, out_stride = packed + padded * size * _HALF_BYTES, padded // 2 * _LINE_BYTES
    for e in range(0, size, _STEP):
        _multiply(
            weights.ctypes.data, weights.shape[1] * _HALF_BYTES, values + e // _LINES * out_stride,
            _LINE_BYTES, out_stride, seen // _STEP, sums_ME.ctypes.data + e * _FLOAT_BYTES,
            size * _FLOAT_BYTES,
        )  # fmt: skip


@compiled
def _attend_strips(begin, end, y_TN, strip_I5, packed_GH, num_kv, size, scaling, out_TD):
    group_size = out_TD.shape[1] // size // num_kv
    query = np.zeros(size, dtype=np.float32)
    query_ME = np.zeros((STRIP_ROWS, size), dtype=np.uint16)
    sums_ME = np.empty((STRIP_ROWS, size), dtype=np.float32)
    inverse_M = np.empty(STRIP_ROWS, dtype=np.float32)
    tile_registers.configure(_SETUP.ctypes.data)
    for item in range(begin, end):
        first, count, position, offset, padded = strip_I5[item // num_kv]
        g = item % num_kv
        num_rows = count * group_size
        for m in range(num_rows):
            t, head = first + m // group_size, g * group_size + m % group_size
            at = y_TN.ctypes.data + (t * y_TN.shape[1] + head * size) * _FLOAT_BYTES
            score_rows.scale_row(query.ctypes.data, at, size, scaling)
            half_tiles.round_row(
                query_ME.ctypes.data + m * size * _HALF_BYTES, query.ctypes.data, size
            )
        packed = packed_GH[g].ctypes.data + offset * _HALF_BYTES
        _answer(query_ME, num_rows, position, group_size, packed, padded, sums_ME, inverse_M)
        for m in range(num_rows):
            t, head = first + m // group_size, g * group_size + m % group_size
            at = out_TD.ctypes.data + (t * out_TD.shape[1] + head * size) * _FLOAT_BYTES
            sums = sums_ME.ctypes.data + m * size * _FLOAT_BYTES
            score_rows.scale_row(at, sums, size, inverse_M[m])
    tile_registers.release()


@compiled
def _attend_round(
    threads, y_TN, strip_I5, block_J5, keys_SGLE, values_SGLE, packed_GH, scaling, out_TD
):
    num_kv, size = keys_SGLE.shape[1], keys_SGLE.shape[3]
    spread(
        threads, block_J5.shape[0] * num_kv, _pack_blocks,
        (block_J5, keys_SGLE, values_SGLE, packed_GH),
    )  # fmt: skip
    share = (y_TN, strip_I5, packed_GH, num_kv, size, scaling, out_TD)
    spread(threads, strip_I5.shape[0] * num_kv, _attend_strips, share)


@compiled
def _refuse(threads, y_TN, strip_I5, block_J5, keys_SGLE, values_SGLE, packed_GH, scaling, out_TD):
    """Stand in where there are no tiles: their instructions could not be compiled."""


IS_SUPPORTED = tile_registers.is_supported(tile_registers.HALVES)
# Within compiled code: answer a round's queries in ``y_TN``; ``scaling`` is one for powers of 2.
attend_round = _attend_round if IS_SUPPORTED else _refuse


class Attention:
    """Answers pieces of prompts, layer by layer, in memory that it keeps."""

    def __init__(self, *, num_kv: int, head_size: int, group_size: int, scaling: float) -> None:
        self._num_kv, self._head_size, self._group_size = num_kv, head_size, group_size
        self._scaling = np.float32(scaling * score_rows.LOG2_E)
        self._packed_GH = np.empty((num_kv, 0), dtype=np.uint16)

    def plan(self, pieces: list[Piece]) -> tuple[Round, ...]:
        """Return what ``attend`` does in each layer of a step with these pieces."""
        rounds = build_rounds(pieces, group_size=self._group_size, head_size=self._head_size)
        needed = max((r.num_halves for r in rounds), default=0)
        if needed > self._packed_GH.shape[1]:
            self._packed_GH = np.empty((self._num_kv, needed), dtype=np.uint16)
        return rounds

    def attend(
        self,
        threads: Threads,
        rounds: tuple[Round, ...],
        y_TN: np.ndarray,
        keys_SGLE: np.ndarray,
        values_SGLE: np.ndarray,
        out_TD: np.ndarray,
    ) -> None:
        """Answer the queries in ``y_TN``; one layer's keys and values are in KV memory."""
        for strip_I5, block_J5, _ in rounds:
            attend_round(
                threads, y_TN, strip_I5, block_J5, keys_SGLE, values_SGLE, self._packed_GH,
                self._scaling, out_TD,
            )  # fmt: skip
