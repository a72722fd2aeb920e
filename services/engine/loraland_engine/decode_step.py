"""A whole step of decoding rows in one compiled call: every layer, and the output head. CPU only.

What ``llama`` does product by product, for steps in which each row is a sequence of its own and the
linears are packed, int8 or bfloat16. The threads meet once a phase, nine phases a layer, and share its items out while
they do them (``turns``).

Shapes: T rows, I tiles, D in, N outs, P parts, S adapter slots, Y layers, L context tokens, E head
size, G key/value heads, K kinds of phases.
"""

# Numba reads these functions, not mypy: their arguments are NumPy arrays and plain numbers.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

import numpy as np

from loraland_engine import (
    byte_blocks,
    byte_products,
    head_choice,
    products,
    rounding,
    row_kernels,
    turns,
)
from loraland_engine.native import compiled, cycles, fetch, spread

KINDS = (
    "norm", "multiply_qkv", "finish_qkv", "attend", "multiply_out", "finish_out", "multiply_gate",
    "finish_gate", "multiply_down", "finish_down", "multiply_head",
)  # fmt: skip
PHASES_A_LAYER = 9
# Enough for one thread to take more than another, few enough for taking to cost little.
_ITEMS_A_THREAD = 4
_OUTS = byte_blocks.OUTS
# Few enough for their logits to stay in the nearest cache.
HEAD_BLOCKS = 32


@compiled
def multiply(counters, phase, num_threads, described, given, weights, y_TN):
    """Multiply all rows with one projection's weights."""
    _, rows_TD, scale_T = given
    address, shift_N, scale_N, bias_N = weights
    num_blocks = (y_TN.shape[1] + _OUTS - 1) // _OUTS
    num_shares = num_threads * _ITEMS_A_THREAD
    share = (num_blocks + num_shares - 1) // num_shares
    num_items = (num_blocks + share - 1) // share
    sums = byte_products.build_sums(rows_TD.shape[0])
    item = turns.take(counters, phase)
    while item < num_items:
        first, last = item * share, min(num_blocks, (item + 1) * share)
        products.multiply_blocks(
            rows_TD, scale_T, described, address, (first, last), (shift_N, scale_N, bias_N), y_TN,
            sums,
        )  # fmt: skip
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def multiply_head(counters, phase, described, given, weights, logits_TV, best_IT2):
    """Multiply with the output head's, and note the likeliest tokens of each item."""
    _, rows_TD, scale_T = given
    address, shift_N, scale_N, bias_N = weights
    num_out = logits_TV.shape[1]
    sums = byte_products.build_sums(rows_TD.shape[0])
    item = turns.take(counters, phase)
    while item < best_IT2.shape[0]:
        first = item * HEAD_BLOCKS
        last = min((num_out + _OUTS - 1) // _OUTS, first + HEAD_BLOCKS)
        products.multiply_blocks(
            rows_TD, scale_T, described, address, (first, last), (shift_N, scale_N, bias_N),
            logits_TV, sums,
        )  # fmt: skip
        head_choice.note(logits_TV, first * _OUTS, min(num_out, last * _OUTS), best_IT2[item])
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, best_IT2.shape[0])


@compiled
def of_layer(projection, y):
    """Return one layer's weights of a projection."""
    return projection[0][y], projection[1][y], projection[2][y], projection[3][y]


@compiled
def normalize(counters, phase, residual_TD, weight_D, epsilon, hidden):
    x_TD, rows_TD, scale_T = hidden
    num_items = residual_TD.shape[0]
    item = turns.take(counters, phase)
    while item < num_items:
        row_kernels._norm_rows(
            item, item + 1, residual_TD, weight_D, epsilon, x_TD, rows_TD, scale_T, True
        )
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def finish_qkv(
    counters, phase, y_TN, given, table_SP4, start_P, batch, norms_2E, epsilon, cos_LE, sin_LE,
    keys_SGLE, values_SGLE,
):  # fmt: skip
    one_T, none_N, tile_I2, slot_I, position_T, kv_slot_T, like = batch
    num_items = tile_I2.shape[0]
    item = turns.take(counters, phase)
    while item < num_items:
        row_kernels._finish_qkv(
            item, item + 1,
            y_TN, given[0], one_T, none_N, tile_I2, slot_I, table_SP4, start_P, like, norms_2E,
            epsilon, cos_LE, sin_LE, position_T, kv_slot_T, keys_SGLE, values_SGLE,
        )  # fmt: skip
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def attend(
    counters, phase, num_threads, heads, y_TN, batch, keys_SGLE, values_SGLE, scaling, attended
):
    """Answer each row head by head; who answers a row's last head quantizes it.

    ``heads`` counts the heads of each row, one line a row.
    """
    out_TD, rows_TD, scale_T = attended
    _, _, _, _, position_T, kv_slot_T, _ = batch
    num_kv, head_size = keys_SGLE.shape[1], keys_SGLE.shape[3]
    group = out_TD.shape[1] // head_size // num_kv
    num_rows = y_TN.shape[0]
    # Few rows are shared out by heads, many as they are.
    parts = num_kv if num_rows < num_threads * _ITEMS_A_THREAD else 1
    num_items = num_rows * parts
    scores = np.empty(position_T.max() + 1, dtype=np.float32)
    item = turns.take(counters, phase)
    while item < num_items:
        t, part = item // parts, item % parts
        for g in range(part * num_kv // parts, (part + 1) * num_kv // parts):
            keys, values = keys_SGLE[kv_slot_T[t], g], values_SGLE[kv_slot_T[t], g]
            # Values come from memory while the scores are computed, and the next head's keys.
            num_bytes = (position_T[t] + 1) * head_size * keys.itemsize
            fetch(values.ctypes.data, num_bytes)
            if g + 1 < num_kv:
                fetch(keys_SGLE[kv_slot_T[t], g + 1].ctypes.data, num_bytes)
            for head in range(g * group, (g + 1) * group):
                columns = slice(head * head_size, (head + 1) * head_size)
                row_kernels.attend_head(
                    y_TN[t, columns], keys, values, scaling, scores[: position_T[t] + 1],
                    out_TD[t, columns],
                )  # fmt: skip
        if turns.done(heads, t) == parts - 1:
            rounding.round_row(out_TD[t], rows_TD, scale_T, t)
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def finish_residual(
    counters, phase, y_TN, given, table_SP4, start_P, batch, residual_TN, norm_N, epsilon, hidden
):
    one_T, none_N, tile_I2, slot_I, _, _, like = batch
    out_TN, rows_TN, scale_T = hidden
    num_items = tile_I2.shape[0]
    item = turns.take(counters, phase)
    while item < num_items:
        row_kernels._finish_residual(
            item, item + 1,
            y_TN, given[0], one_T, none_N, tile_I2, slot_I, table_SP4, start_P, like,
            residual_TN, norm_N, epsilon, out_TN, rows_TN, scale_T, True,
        )  # fmt: skip
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def finish_gate(counters, phase, y_TN, given, table_SP4, start_P, batch, gated):
    one_T, none_N, tile_I2, slot_I, _, _, like = batch
    out_TD, rows_TD, scale_T = gated
    num_items = tile_I2.shape[0]
    item = turns.take(counters, phase)
    while item < num_items:
        row_kernels._finish_gate(
            item, item + 1,
            y_TN, given[0], one_T, none_N, tile_I2, slot_I, table_SP4, start_P, like, out_TD,
            rows_TD, scale_T, True,
        )  # fmt: skip
        turns.done(counters, phase)
        item = turns.take(counters, phase)
    turns.wait(counters, phase, num_items)


@compiled
def note(spent_K, kind, thread, before):
    """Add what the first thread has spent since ``before``; return the time."""
    now = cycles()
    if thread == 0:
        spent_K[kind] += now - before
    return now


@compiled
def _decode(
    thread, _, num_threads, counters, heads, described, projections, head, norms, rope, kv_Y2SGLE,
    batch, rows, outs, spent_K,
):  # fmt: skip
    qkv, out, gate, down = projections
    first_D, before_mlp_YD, after_YD, attention_Y2E, epsilon = norms
    cos_LE, sin_LE, scaling = rope
    residual_TD, hidden, attended, gated = rows
    qkv_TN, sum_TN, gate_TN, logits_TV, best_IT2 = outs
    none_N = batch[1]
    at = cycles()
    byte_products.begin(described)
    normalize(counters, 0, residual_TD, first_D, epsilon, hidden)
    at = note(spent_K, 0, thread, at)
    phase = 1
    for y in range(qkv[0].shape[0]):
        keys, values = kv_Y2SGLE[y, 0], kv_Y2SGLE[y, 1]
        multiply(counters, phase, num_threads, described, hidden, of_layer(qkv, y), qkv_TN)
        at = note(spent_K, 1, thread, at)
        finish_qkv(
            counters, phase + 1, qkv_TN, hidden, qkv[4][y], qkv[5], batch, attention_Y2E[y],
            epsilon, cos_LE, sin_LE, keys, values,
        )  # fmt: skip
        at = note(spent_K, 2, thread, at)
        attend(
            counters, phase + 2, num_threads, heads[y], qkv_TN, batch, keys, values, scaling, attended,
        )  # fmt: skip
        at = note(spent_K, 3, thread, at)
        multiply(counters, phase + 3, num_threads, described, attended, of_layer(out, y), sum_TN)
        at = note(spent_K, 4, thread, at)
        finish_residual(
            counters, phase + 4, sum_TN, attended, out[4][y], out[5], batch, residual_TD,
            before_mlp_YD[y], epsilon, hidden,
        )  # fmt: skip
        at = note(spent_K, 5, thread, at)
        multiply(counters, phase + 5, num_threads, described, hidden, of_layer(gate, y), gate_TN)
        at = note(spent_K, 6, thread, at)
        finish_gate(counters, phase + 6, gate_TN, hidden, gate[4][y], gate[5], batch, gated)
        at = note(spent_K, 7, thread, at)
        multiply(counters, phase + 7, num_threads, described, gated, of_layer(down, y), sum_TN)
        at = note(spent_K, 8, thread, at)
        finish_residual(
            counters, phase + 8, sum_TN, gated, down[4][y], down[5], batch, residual_TD,
            after_YD[y], epsilon, hidden,
        )  # fmt: skip
        at = note(spent_K, 9, thread, at)
        phase += PHASES_A_LAYER
    head_weights = (head[0], head[1], head[2], none_N)
    multiply_head(counters, phase, described, hidden, head_weights, logits_TV, best_IT2)
    note(spent_K, 10, thread, at)
    byte_products.end(described)


@compiled
def decode(
    threads, counters, heads, described, projections, head, norms, rope, kv_Y2SGLE, batch, rows,
    outs, spent_K,
):  # fmt: skip
    """Take the rows from their embeddings in ``rows`` to the logits in ``outs``."""
    share = (
        threads[2], counters, heads, described, projections, head, norms, rope, kv_Y2SGLE, batch,
        rows, outs, spent_K,
    )  # fmt: skip
    # Whoever comes takes turns; a thread's "share" is no more than its number.
    spread(threads, threads[2], _decode, share)
