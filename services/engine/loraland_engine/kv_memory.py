"""Keys and values of the running sequences. One slot holds one sequence up to the whole context.

Shapes: S slots, H key/value heads, L context tokens, D head size, T packed tokens.

On a CPU the memory comes from ``calloc``: pages that no sequence reached are never touched, so a
generous context costs address space only.
"""

import numpy as np
import torch
from torch import Tensor


class KvMemory:
    """Per layer one key and one value tensor of shape [S, H, L, D], zero at first.

    Zero rather than empty: attention multiplies masked positions by a weight of 0, and 0 times a
    stray NaN would be NaN.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_slots: int,
        num_heads: int,
        context_tokens: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_slots, num_heads, context_tokens, head_size)
        self.num_slots = num_slots
        self.context_tokens = context_tokens
        self.keys = [_zeros(shape, dtype, device) for _ in range(num_layers)]
        self.values = [_zeros(shape, dtype, device) for _ in range(num_layers)]

    @property
    def token_bytes(self) -> int:
        """What one token takes in all layers."""
        key = self.keys[0]
        return 2 * len(self.keys) * key.shape[1] * key.shape[3] * key.element_size()

    def write(
        self, layer: int, k_THD: Tensor, v_THD: Tensor, slot_T: Tensor, position_T: Tensor
    ) -> None:
        self.keys[layer][slot_T, :, position_T] = k_THD
        self.values[layer][slot_T, :, position_T] = v_THD


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, dtype=np.uint8)).view(dtype).view(shape)
