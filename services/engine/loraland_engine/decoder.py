"""What a step of decoding rows needs, kept between steps: packed weights, buffers. CPU; no I/O.

``llama`` hands over to it when a step has no prompt in it and the linears are packed; ``decode_step``
is the computation.

Shapes: T rows, D in, N outs, V vocabulary, Y layers, S adapter slots, P parts.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraland_engine import (
    byte_blocks,
    decode_step,
    half_blocks,
    head_choice,
    products,
    rounding,
    turns,
)
from loraland_engine.kv_memory import as_array
from loraland_engine.linear import Projection
from loraland_engine.native import Threads

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Layer:
    """The linears, norms and KV memory of one layer."""

    qkv: Projection
    out: Projection
    gate: Projection
    down: Projection
    keys_SGLE: np.ndarray
    values_SGLE: np.ndarray
    # Norms of queries and keys (Qwen 3), or empty.
    norms_2E: np.ndarray
    norm_before_mlp_D: np.ndarray
    # The next layer's first norm, or the model's last.
    norm_after_D: np.ndarray


@dataclass(frozen=True)
class Step:
    """Where each packed row belongs; decoding rows first."""

    position_T: np.ndarray
    kv_slot_T: np.ndarray
    tile_I2: np.ndarray
    slot_I: np.ndarray
    num_decoding: int
    # Where the rows of prompts are answered (``prompt_attention``).
    strip_I4: np.ndarray
    # First packed row, first position, number of tokens and KV slot of each piece of a prompt.
    pieces: list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class _Buffers:
    """What lies between two phases, for a number of rows."""

    counters: np.ndarray
    heads: np.ndarray
    rows: Arrays
    outs: tuple[np.ndarray, np.ndarray, np.ndarray]
    one_T: np.ndarray
    # How tile registers are set up, if at all.
    described: np.ndarray
    logits_TV: np.ndarray
    best_IT2: np.ndarray


def is_supported(layers: Items[Layer], head: Projection) -> bool:
    """Whether every product can be one of packed blocks on this machine."""
    return all(p.packed is not None for p in (*_projections(layers), head))


class Decoder:
    """Runs steps in which every row is another sequence's next token."""

    def __init__(
        self,
        layers: Items[Layer],
        head: Projection,
        *,
        first_norm_D: np.ndarray,
        epsilon: np.float32,
        rope: tuple[np.ndarray, np.ndarray, np.float32],
        kv_rows: Tensor,
        like: np.ndarray,
    ) -> None:
        assert head.packed is not None
        # The kernel knows addresses only; the projections keep them good.
        self._kept = (layers, head)
        self._projections = [
            _gather([getattr(layer, name) for layer in layers])
            for name in ("qkv", "out", "gate", "down")
        ]
        self._head = (head.packed.address, head.packed.shift_N, head.packed.scale_N)
        self._norms = (
            first_norm_D,
            np.stack([layer.norm_before_mlp_D for layer in layers]),
            np.stack([layer.norm_after_D for layer in layers]),
            np.stack([layer.norms_2E for layer in layers]),
            epsilon,
        )
        self._rope = rope
        self._kv_Y2SGLE = as_array(kv_rows)
        self._sizes = (layers[0].qkv.shape, layers[0].out.shape, layers[0].gate.shape)
        self._vocabulary_size = head.shape[0]
        self._num_layers = len(layers)
        # Adapters of decoding rows are not multiplied in tiles.
        self._like = like[:0]
        self._rows_type = head.rows_type or rounding.BYTE
        self._none_N = np.empty(0, dtype=np.float32)
        self._buffers = self._build_buffers(1)
        self._num_rows = 1
        # Processor cycles by kind of phase, since the start.
        self.spent_K = np.zeros(len(decode_step.KINDS), dtype=np.int64)

    def run(self, threads: Threads, step: Step, residual_TD: Tensor) -> tuple[Tensor, list[int]]:
        """Return every row's logits, good until the next step, and its likeliest token.

        The rows come as their embeddings, and are used up.
        """
        num_rows = residual_TD.shape[0]
        if num_rows != self._num_rows:
            self._buffers, self._num_rows = self._build_buffers(num_rows), num_rows
        buffers = self._buffers
        buffers.counters.fill(0)
        buffers.heads.fill(0)
        buffers.best_IT2.fill(head_choice.LEAST)
        batch = (
            buffers.one_T, self._none_N, step.tile_I2, step.slot_I, step.position_T,
            step.kv_slot_T, self._like,
        )  # fmt: skip
        decode_step.decode(
            threads, buffers.counters, buffers.heads, buffers.described, tuple(self._projections), self._head,
            self._norms, self._rope, self._kv_Y2SGLE, batch, (residual_TD.numpy(), *buffers.rows),
            (*buffers.outs, buffers.logits_TV, buffers.best_IT2), self.spent_K,
        )  # fmt: skip
        return torch.from_numpy(buffers.logits_TV), head_choice.choose(buffers.best_IT2)

    def _build_buffers(self, num_rows: int) -> _Buffers:
        (num_qkv, hidden), (_, attended), (num_gate, _) = self._sizes
        sizes = (num_qkv, hidden, num_gate)
        num_items = -(-self._vocabulary_size // (decode_step.HEAD_BLOCKS * byte_blocks.OUTS))
        return _Buffers(
            turns.counters(self._num_layers * decode_step.PHASES_A_LAYER + 2),
            np.stack([turns.counters(num_rows) for _ in range(self._num_layers)]),
            tuple(
                _rows(num_rows, width, self._rows_type)
                for width in (hidden, attended, num_gate // 2)
            ),
            tuple(np.empty((num_rows, size), dtype=np.float32) for size in sizes),  # type: ignore[arg-type]
            np.ones(num_rows, dtype=np.float32),
            products.tiles(num_rows, self._rows_type),
            np.empty((num_rows, self._vocabulary_size), dtype=np.float32),
            head_choice.build(num_items, num_rows),
        )


def _projections(layers: Items[Layer]) -> list[Projection]:
    return [p for layer in layers for p in (layer.qkv, layer.out, layer.gate, layer.down)]


def build_rows(num_rows: int, width: int, rows_type: type) -> np.ndarray:
    """Return room for rows as products multiply them; those of halves end with zeros."""
    if rows_type is rounding.HALF:
        return np.zeros((num_rows, half_blocks.padded(width)), dtype=rows_type)
    return np.empty((num_rows, width), dtype=rows_type)


def _rows(num_rows: int, width: int, rows_type: type) -> Arrays:
    return (
        np.empty((num_rows, width), dtype=np.float32),
        build_rows(num_rows, width, rows_type),
        np.empty(num_rows, dtype=np.float32),
    )


def _gather(projections: list[Projection]) -> Arrays:
    """Return one projection of every layer as the compiled step reads it."""
    packed = [p.packed for p in projections if p.packed is not None]
    table_YSP4 = np.stack([projection.table_SP4 for projection in projections])
    for projection, table_SP4 in zip(projections, table_YSP4, strict=True):
        # From now on an adapter is noted for both ways through the model.
        projection.table_SP4 = table_SP4
    return (
        np.array([p.address for p in packed], dtype=np.int64),
        np.stack([p.shift_N for p in packed]),
        np.stack([p.scale_N for p in packed]),
        np.stack([projection.bias_N for projection in projections]),
        table_YSP4,
        projections[0].start_P,
    )
