"""Keys and values of the running sequences. One slot holds one sequence up to the whole context.

Shapes: S slots, H key/value heads, L context tokens, D head size, T packed tokens.

On a CPU the memory comes from the system page by page: pages that no sequence reached are never
touched, so a generous context costs address space only.
"""

import math
import mmap

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
        page_tokens: int = 0,
    ) -> None:
        self.num_slots = num_slots
        self.context_tokens = context_tokens
        self.page_tokens = page_tokens
        # All of it, as [layers, 2, S, H, L, D].
        if page_tokens:
            self.context_tokens += -context_tokens % page_tokens
            shape = (num_layers, 2, num_slots, self.context_tokens, num_heads, head_size)
            # A page has all heads of its tokens; everybody else sees the same shape as ever.
            self.rows = zeros(shape, dtype, device).transpose(3, 4)
        else:
            shape = (num_layers, 2, num_slots, num_heads, context_tokens, head_size)
            self.rows = zeros(shape, dtype, device)
        self.keys = [layer[0] for layer in self.rows]
        self.values = [layer[1] for layer in self.rows]

    @property
    def token_bytes(self) -> int:
        """What one token takes in all layers."""
        return self.rows.nbytes // (self.num_slots * self.context_tokens)

    def pages(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values as [pages, page tokens, H, D], not copied."""
        assert self.page_tokens, "memory is not in pages"
        k, v = (t[layer].transpose(1, 2).flatten(0, 1) for t in (self.keys, self.values))
        return k.unflatten(0, (-1, self.page_tokens)), v.unflatten(0, (-1, self.page_tokens))

    def write(
        self, layer: int, k_THD: Tensor, v_THD: Tensor, slot_T: Tensor, position_T: Tensor
    ) -> None:
        self.keys[layer][slot_T, :, position_T] = k_THD
        self.values[layer][slot_T, :, position_T] = v_THD


def as_array(numbers: Tensor) -> np.ndarray:
    """Return the same memory to NumPy, which knows no bfloat16: as uint16."""
    if numbers.dtype != torch.bfloat16:
        return numbers.numpy()
    array: np.ndarray = numbers.view(torch.int16).numpy()
    return array.view(np.uint16)


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros whose pages, on a CPU, are had when they are written."""
    if device.type != "cpu" or 0 in shape:
        return torch.zeros(shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    # Huge pages would have 2 MiB filled with zeros for each new sequence, head and layer.
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(shape)
