"""What lies between the matrix products of a Llama layer, row by row, compiled. CPU only; no I/O.

The rows of a step come in tiles: a few neighbours with the same adapter. One call takes a tile from
the raw product of one linear to the input of the next: scale, LoRA, bias, and then rotation and KV
memory, or residual and norm, or the gate. Nothing of this mixes rows.

Shapes: T rows, I tiles, D in, O out, N the joined outs of a projection, P its parts (q, k, v, say),
S adapter slots, R rank, H query heads, G key/value heads, E head size, L context tokens.

``table_SP4`` holds for each slot and part the addresses of A [R, D] and B [R, O], the rank, and the
address of the scale [R] that both share. ``like`` is an array of the weights' type: empty, or of one
number where rows of prompts are to be multiplied in tile registers.

Longer than a module should be: Numba compiles anew what has changed in a function's own file, so all
of it stays in one.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import prompt_lora, tile_lora
from loraland_engine.native import (
    carray,
    compiled,
    fetch,
    float_from_bits,
    pointer_like,
    spread,
)
from loraland_engine.rounding import as_float, put, round_row

TILE_ROWS = prompt_lora.DECODING_ROWS
_HALF_BYTES = 2
_LIKE_SCALE = np.empty(0, dtype=np.float32)


@compiled
def exponential(x):
    """Return e to the x within 2 ulp. libm's has no vector form."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    series = np.float32(1.9875691500e-4)
    series = series * rest + np.float32(1.3981999507e-3)
    series = series * rest + np.float32(8.3334519073e-3)
    series = series * rest + np.float32(4.1665795894e-2)
    series = series * rest + np.float32(1.6666665459e-1)
    series = series * rest + np.float32(5.0000001201e-1)
    series = series * rest * rest + rest + np.float32(1.0)
    return series * float_from_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@compiled
def dot(a, x):
    total = np.float32(0.0)
    for d in range(x.shape[0]):
        total += as_float(a[d]) * x[d]
    return total


@compiled
def dot_four(a, x, first, out, r):
    """Multiply one row of A with four rows, so that it is read and converted once."""
    x0, x1, x2, x3 = x[first], x[first + 1], x[first + 2], x[first + 3]
    t0 = t1 = t2 = t3 = np.float32(0.0)
    for d in range(x0.shape[0]):
        weight = as_float(a[d])
        t0 += weight * x0[d]
        t1 += weight * x1[d]
        t2 += weight * x2[d]
        t3 += weight * x3[d]
    out[0, r], out[1, r], out[2, r], out[3, r] = t0, t1, t2, t3


@compiled
def dot_keys(query, keys_LE, first, scores):
    """Multiply four keys with one query."""
    k0, k1, k2, k3 = keys_LE[first], keys_LE[first + 1], keys_LE[first + 2], keys_LE[first + 3]
    t0 = t1 = t2 = t3 = np.float32(0.0)
    for e in range(query.shape[0]):
        t0 += as_float(k0[e]) * query[e]
        t1 += as_float(k1[e]) * query[e]
        t2 += as_float(k2[e]) * query[e]
        t3 += as_float(k3[e]) * query[e]
    scores[first], scores[first + 1], scores[first + 2], scores[first + 3] = t0, t1, t2, t3


@compiled
def expand(y, b, h):
    """Add h [R] times B [R, O] to y [O], four ranks at a time."""
    rank, num_out = b.shape
    whole = rank - rank % 4
    for r in range(0, whole, 4):
        h0, h1, h2, h3 = h[r], h[r + 1], h[r + 2], h[r + 3]
        b0, b1, b2, b3 = b[r], b[r + 1], b[r + 2], b[r + 3]
        for o in range(num_out):
            y[o] += (
                h0 * as_float(b0[o])
                + h1 * as_float(b1[o])
                + h2 * as_float(b2[o])
                + h3 * as_float(b3[o])
            )
    for r in range(whole, rank):
        for o in range(num_out):
            y[o] += h[r] * as_float(b[r, o])


@compiled
def add_lora(y_TN, x_TD, first, count, table_P4, start_P, like):
    """Add the tile's low-rank update. Source: Hu et al. 2021, arXiv:2106.09685."""
    for p in range(table_P4.shape[0]):
        rank = table_P4[p, 2]
        if rank == 0:
            continue
        start, end = start_P[p], start_P[p + 1]
        a = carray(pointer_like(table_P4[p, 0], like), (rank, x_TD.shape[1]))
        b = carray(pointer_like(table_P4[p, 1], like), (rank, end - start))
        scale = carray(pointer_like(table_P4[p, 3], _LIKE_SCALE), (rank,))
        h = np.empty((TILE_ROWS, rank), dtype=np.float32)
        row_bytes, a_bytes = (end - start) * like.itemsize, x_TD.shape[1] * like.itemsize
        for r in range(rank):
            # Adapters come from memory, each once a step: B comes while A is multiplied.
            fetch(table_P4[p, 1] + r * row_bytes, row_bytes)
            fetch(table_P4[p, 0] + (r + 2) * a_bytes, a_bytes)
            if count == TILE_ROWS:
                dot_four(a[r], x_TD, first, h, r)
            else:
                for i in range(count):
                    h[i, r] = dot(a[r], x_TD[first + i])
            for i in range(count):
                h[i, r] *= scale[r]
        if p + 1 < table_P4.shape[0]:
            fetch(table_P4[p + 1, 0], table_P4[p + 1, 2] * a_bytes)
        for i in range(count):
            expand(y_TN[first + i, start:end], b, h[i])


@compiled
def scale_and_add(y_TN, x_TD, scale_T, bias_N, tile, slot, table_SP4, start_P, like):
    """Finish a linear for one tile: the rows' scales, the bias, the adapter."""
    first, count = tile[0], tile[1]
    is_of_prompt = slot >= 0 and prompt_lora.is_worthwhile(x_TD, count)
    if is_of_prompt and like.shape[0] and tile_lora.is_worthwhile(x_TD):
        tile_lora.finish_tile(
            y_TN, x_TD, scale_T, bias_N, first, count, table_SP4[slot], start_P, like
        )
        return
    # Blocks of float32 products read no halves.
    is_of_prompt = is_of_prompt and like.itemsize != _HALF_BYTES
    if is_of_prompt:
        prompt_lora.add_tile(y_TN, x_TD, scale_T, first, count, table_SP4[slot], start_P, like)
    for t in range(first, first + count):
        y, scale = y_TN[t], scale_T[t]
        if bias_N.shape[0]:
            for n in range(y.shape[0]):
                y[n] = y[n] * scale + bias_N[n]
        elif scale != np.float32(1.0):
            for n in range(y.shape[0]):
                y[n] *= scale
    if slot >= 0 and not is_of_prompt:
        for start in range(0, count, TILE_ROWS):
            num = min(TILE_ROWS, count - start)
            add_lora(y_TN, x_TD, first + start, num, table_SP4[slot], start_P, like)


@compiled
def normalize(x, weight, epsilon, out):
    total = np.float32(0.0)
    for d in range(x.shape[0]):
        total += x[d] * x[d]
    factor = np.float32(1.0) / np.sqrt(total / np.float32(x.shape[0]) + epsilon)
    for d in range(x.shape[0]):
        out[d] = x[d] * factor * weight[d]


@compiled
def rotate(x, cos, sin):
    """Turn each of the first half's numbers with its partner; both halves turn by the same angles."""
    half = x.shape[0] // 2
    # Views of their own, and few of them: the loop is vectorized only if all are known to be apart.
    low, high = x[:half], x[half:]
    for e in range(half):
        left, right = low[e], high[e]
        low[e] = left * cos[e] - right * sin[e]
        high[e] = right * cos[e] + left * sin[e]


@compiled
def _norm_rows(
    begin, end,
    x_TD, weight_D, epsilon, out_TD, rows_TD, scale_T, is_int8,
):  # fmt: skip
    for t in range(begin, end):
        normalize(x_TD[t], weight_D, epsilon, out_TD[t])
        if is_int8:
            round_row(out_TD[t], rows_TD, scale_T, t)


@compiled
def norm_rows(
    threads,
    x_TD, weight_D, epsilon, out_TD, rows_TD, scale_T, is_int8,
):  # fmt: skip
    share = (
        x_TD, weight_D, epsilon, out_TD, rows_TD, scale_T, is_int8,
    )  # fmt: skip
    spread(threads, x_TD.shape[0], _norm_rows, share)


@compiled
def _finish_qkv(
    begin, end,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, norms_2E, epsilon,
    cos_LE, sin_LE, position_T, kv_slot_T, keys_SGLE, values_SGLE,
):  # fmt: skip
    head_size = cos_LE.shape[1]
    num_kv = keys_SGLE.shape[1]
    num_heads = (y_TN.shape[1] // head_size) - 2 * num_kv
    row_bytes = head_size * keys_SGLE.itemsize
    for i in range(begin, end):
        tile = tile_I2[i]
        scale_and_add(y_TN, x_TD, scale_T, bias_N, tile, slot_I[i], table_SP4, start_P, like)
        for t in range(tile[0], tile[0] + tile[1]):
            position = position_T[t]
            for g in range(num_kv):
                fetch(keys_SGLE[kv_slot_T[t], g, position].ctypes.data, row_bytes)
                fetch(values_SGLE[kv_slot_T[t], g, position].ctypes.data, row_bytes)
            for head in range(num_heads + num_kv):
                x = y_TN[t, head * head_size : (head + 1) * head_size]
                if norms_2E.shape[0]:
                    normalize(x, norms_2E[0 if head < num_heads else 1], epsilon, x)
                rotate(x, cos_LE[position], sin_LE[position])
            for g in range(num_kv):
                key = (num_heads + g) * head_size
                value = key + num_kv * head_size
                put(y_TN[t, key : key + head_size], keys_SGLE[kv_slot_T[t], g, position])
                put(y_TN[t, value : value + head_size], values_SGLE[kv_slot_T[t], g, position])


@compiled
def finish_qkv(
    threads,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, norms_2E, epsilon,
    cos_LE, sin_LE, position_T, kv_slot_T, keys_SGLE, values_SGLE,
):  # fmt: skip
    """Leave queries in ``y_TN``, rotated; write keys and values to KV memory (and leave them)."""
    share = (
        y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, norms_2E,
        epsilon, cos_LE, sin_LE, position_T, kv_slot_T, keys_SGLE, values_SGLE,
    )  # fmt: skip
    spread(threads, tile_I2.shape[0], _finish_qkv, share)


@compiled
def _finish_residual(
    begin, end,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, residual_TN,
    weight_N, epsilon, out_TN, rows_TN, scale_out_T, is_int8,
):  # fmt: skip
    for i in range(begin, end):
        tile = tile_I2[i]
        scale_and_add(y_TN, x_TD, scale_T, bias_N, tile, slot_I[i], table_SP4, start_P, like)
        for t in range(tile[0], tile[0] + tile[1]):
            y, residual = y_TN[t], residual_TN[t]
            for n in range(y.shape[0]):
                residual[n] += y[n]
            normalize(residual, weight_N, epsilon, out_TN[t])
            if is_int8:
                round_row(out_TN[t], rows_TN, scale_out_T, t)


@compiled
def finish_residual(
    threads,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, residual_TN,
    weight_N, epsilon, out_TN, rows_TN, scale_out_T, is_int8,
):  # fmt: skip
    """Add to the residual; write its norm, which is the next linear's input."""
    share = (
        y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like,
        residual_TN, weight_N, epsilon, out_TN, rows_TN, scale_out_T, is_int8,
    )  # fmt: skip
    spread(threads, tile_I2.shape[0], _finish_residual, share)


@compiled
def _finish_gate(
    begin, end,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, out_TD, rows_TD,
    scale_out_T, is_int8,
):  # fmt: skip
    for i in range(begin, end):
        tile = tile_I2[i]
        scale_and_add(y_TN, x_TD, scale_T, bias_N, tile, slot_I[i], table_SP4, start_P, like)
        for t in range(tile[0], tile[0] + tile[1]):
            y, out = y_TN[t], out_TD[t]
            width = out.shape[0]
            for d in range(width):
                gate = y[d]
                out[d] = gate / (np.float32(1.0) + exponential(-gate)) * y[width + d]
            if is_int8:
                round_row(out, rows_TD, scale_out_T, t)


@compiled
def finish_gate(
    threads,
    y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, out_TD, rows_TD,
    scale_out_T, is_int8,
):  # fmt: skip
    """Write silu(gate) times up, the input of the last linear of the layer."""
    share = (
        y_TN, x_TD, scale_T, bias_N, tile_I2, slot_I, table_SP4, start_P, like, out_TD,
        rows_TD, scale_out_T, is_int8,
    )  # fmt: skip
    spread(threads, tile_I2.shape[0], _finish_gate, share)


@compiled
def _attend_rows(
    begin, end,
    y_TN, num_rows, keys_SGLE, values_SGLE, kv_slot_T, position_T, scaling, out_TD, rows_TD,
    scale_T, is_int8,
):  # fmt: skip
    num_kv, head_size = keys_SGLE.shape[1], keys_SGLE.shape[3]
    group = out_TD.shape[1] // head_size // num_kv
    for t in range(begin, end):
        if t < num_rows:
            length = position_T[t] + 1
            scores = np.empty(length, dtype=np.float32)
            for head in range(num_kv * group):
                columns = slice(head * head_size, (head + 1) * head_size)
                keys = keys_SGLE[kv_slot_T[t], head // group]
                values = values_SGLE[kv_slot_T[t], head // group]
                attend_head(y_TN[t, columns], keys, values, scaling, scores, out_TD[t, columns])
        if is_int8:
            round_row(out_TD[t], rows_TD, scale_T, t)


@compiled
def attend_rows(
    threads,
    y_TN, num_rows, keys_SGLE, values_SGLE, kv_slot_T, position_T, scaling, out_TD, rows_TD,
    scale_T, is_int8,
):  # fmt: skip
    """Answer ``num_rows`` decoding rows; quantize these and the rows already answered."""
    share = (
        y_TN, num_rows, keys_SGLE, values_SGLE, kv_slot_T, position_T, scaling, out_TD,
        rows_TD, scale_T, is_int8,
    )  # fmt: skip
    spread(threads, out_TD.shape[0], _attend_rows, share)


@compiled
def attend_head(query, keys_LE, values_LE, scaling, scores, out):
    length = scores.shape[0]
    largest = np.float32(-np.inf)
    whole = length - length % 4
    for n in range(0, whole, 4):
        dot_keys(query, keys_LE, n, scores)
    for n in range(whole, length):
        scores[n] = dot(keys_LE[n], query)
    for n in range(length):
        scores[n] *= scaling
        largest = max(largest, scores[n])
    total = np.float32(0.0)
    for n in range(length):
        scores[n] = exponential(scores[n] - largest)
        total += scores[n]
    out[:] = np.float32(0.0)
    expand(out, values_LE[:length], scores)
    for e in range(out.shape[0]):
        out[e] /= total
