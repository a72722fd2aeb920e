"""A bfloat16 linear's weights as compiled kernels multiply them, packed once. CPU; no I/O.

Shapes: T rows, D in, N outs.
"""

import numpy as np
from torch import Tensor

from loraland_engine import byte_blocks, half_blocks, half_products, native, rounding

_NONE_N = np.empty(0, dtype=np.float32)


class HalfWeights:
    """Blocks in memory that is given."""

    def __init__(self, weight_ND: Tensor, memory: byte_blocks.Memory) -> None:
        self.num_out, num_in = weight_ND.shape
        room = memory.take(half_blocks.packed_bytes(self.num_out, num_in))
        self.address: int = half_blocks.pack(weight_ND, room).ctypes.data
        # The memory lives as long as anything that was taken of it.
        self._room = room
        # Halves have neither a zero point nor a scale.
        self.shift_N = np.empty(0, dtype=np.int32)
        self.scale_N = _NONE_N

    def multiply(self, rows_TD: Tensor, y_TN: Tensor) -> Tensor:
        """Write float32 [T, N] for rows that ``rounding.halve`` has written, and return it."""
        num_rows = rows_TD.shape[0]
        if num_rows:
            half_products.multiply(
                native.torch_threads(), rows_TD.numpy().view(rounding.HALF),
                half_products.tiles(num_rows), self.address, _NONE_N, y_TN.numpy(),
            )  # fmt: skip
        return y_TN
