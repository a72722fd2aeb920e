"""An int8 linear's weights as compiled kernels multiply them, packed once. CPU; no I/O.

A decoding step reads the parts as they lie here; everything else multiplies through ``multiply``. So
the weights lie in memory once.

Shapes: T rows, D in, N outs.
"""

import numpy as np
import torch
from loraland_models.int8 import ZERO_POINT
from torch import Tensor

from loraland_engine import byte_blocks, byte_products, native


class ByteWeights:
    """Blocks in memory that is given, and what turns their sums into floats."""

    def __init__(self, weight_ND: Tensor, scale_N: Tensor, memory: byte_blocks.Memory) -> None:
        self.num_out, num_in = weight_ND.shape
        room = memory.take(byte_blocks.packed_bytes(self.num_out, num_in))
        self.address: int = byte_blocks.pack(weight_ND, room).ctypes.data
        # The memory lives as long as anything that was taken of it.
        self._room = room
        # What the rows' zero point adds to each sum.
        self.shift_N: np.ndarray = weight_ND.sum(dim=1, dtype=torch.int32).numpy() * ZERO_POINT
        self.scale_N: np.ndarray = scale_N.float().numpy()

    def multiply(self, rows_TD: Tensor, y_TN: Tensor) -> Tensor:
        """Write and return float32 [T, N] for quantized rows, still without the rows' scales."""
        num_rows = rows_TD.shape[0]
        if num_rows:
            byte_products.multiply(
                native.torch_threads(), rows_TD.numpy(), np.ones(num_rows, dtype=np.float32),
                byte_products.tiles(num_rows), (self.address, self.shift_N, self.scale_N),
                _NONE_N, y_TN.numpy(),
            )  # fmt: skip
        return y_TN


_NONE_N = np.empty(0, dtype=np.float32)
