"""Linears that share their input, as one matrix product, with room for adapters on each. CPU; no I/O.

Shapes: T rows, D in, N the joined outs, P parts, S adapter slots, R rank, O one part's outs.
"""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from loraland_models.int8 import Int8Linear, Int8Product, quantize_weight
from torch import Tensor, nn
from torch.nn import functional

from loraland_engine import byte_blocks, half_blocks, rounding
from loraland_engine.byte_blocks import Memory
from loraland_engine.byte_weights import ByteWeights
from loraland_engine.half_weights import HalfWeights
from loraland_engine.lora import LoraAdapter, LoraWeights

JOINABLE = (torch.float32, torch.bfloat16, torch.float16)
_ALIGN_BYTES = 64


class Outputs:
    """Memory for the output of one product, until the next one takes it.

    Memory that is had and given back is had page by page anew, which takes as long as the product.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def take(self, num_rows: int, num_out: int) -> Tensor:
        count = num_rows * num_out
        if count > len(self._memory):
            self._memory = torch.empty(count)
        return self._memory[:count].view(num_rows, num_out)


class _Fresh(Outputs):
    """Memory for an output that may be kept."""

    def take(self, num_rows: int, num_out: int) -> Tensor:
        return torch.empty(num_rows, num_out)


class Projection:
    """Some linears of the model, joined in memory; the model's own modules become views of it."""

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...],
        *,
        num_slots: int,
        memory: Memory,
        outputs: Outputs | None = None,
    ) -> None:
        """Pack what can be packed into ``memory``; write products to ``outputs``, if there are any."""
        self.names = names
        parts = [model.get_submodule(name) for name in names]
        sizes = [int(part.out_features) for part in parts]  # type: ignore[arg-type]
        self.num_in = int(parts[0].in_features)  # type: ignore[arg-type]
        self.start_P = np.array([0, *accumulate(sizes)], dtype=np.int64)
        self.bias_N = _join_biases(parts, sizes)
        self.table_SP4 = np.zeros((num_slots, len(parts), 4), dtype=np.int64)
        self.is_int8 = isinstance(parts[0], Int8Linear)
        weight_ND = _join(parts, "weight")
        self.packed: ByteWeights | HalfWeights | None = None
        self._outputs = outputs or _Fresh()
        self._product: Int8Product | None = None
        if self.is_int8:
            scale_N = _join(parts, "scale_N").float()
            if byte_blocks.is_supported(self.num_in):
                self.packed = ByteWeights(weight_ND, scale_N, memory)
            else:
                self._product = Int8Product(weight_ND, scale_N)
        elif packs_halves(weight_ND):
            self.packed = HalfWeights(weight_ND, memory)
        # What is packed may be freed elsewhere.
        self._weight_ND = None if self.packed is not None else weight_ND

    @property
    def rows_type(self) -> type | None:
        """What rows are to be rounded to, if to anything."""
        if isinstance(self.packed, HalfWeights):
            return rounding.HALF
        return rounding.BYTE if self.is_int8 else None

    @property
    def shape(self) -> tuple[int, int]:
        """The joined outs, and what is in."""
        return int(self.start_P[-1]), self.num_in

    def multiply(self, x_TD: Tensor, rows_TD: Tensor) -> Tensor:
        """Return float32 [T, N] of the float rows or, where they were rounded, of those, unscaled."""
        if self.packed is not None:
            y_TN = self._outputs.take(rows_TD.shape[0], self.packed.num_out)
            return self.packed.multiply(rows_TD, y_TN)
        if self._product is not None:
            return self._product.multiply(rows_TD)
        assert self._weight_ND is not None, self.names
        return functional.linear(x_TD.to(self._weight_ND.dtype), self._weight_ND).float()

    def set_adapter(self, slot: int, adapter: LoraAdapter | None) -> None:
        """Note where a slot's weights lie; the adapter must stay alive while the slot is used."""
        self.table_SP4[slot] = 0
        for part, name in enumerate(self.names):
            weights = adapter.weights.get(name) if adapter else None
            if weights is not None:
                assert weights.scale_R is not None, name
                self.table_SP4[slot, part] = (
                    weights.a_RD.data_ptr(),
                    weights.b_RO.data_ptr(),
                    weights.a_RD.shape[0],
                    weights.scale_R.data_ptr(),
                )


def packed_memory(model: nn.Module) -> Memory:
    """Return room for the packed weights of all the model's linears."""
    return Memory(sum(_blocks_bytes(module) for module in model.modules()))


def packs_halves(weight_ND: Tensor) -> bool:
    """Whether a float linear is multiplied from packed blocks."""
    return weight_ND.dtype is torch.bfloat16 and half_blocks.is_supported()


def _blocks_bytes(module: nn.Module) -> int:
    if isinstance(module, Int8Linear) and byte_blocks.is_supported(module.in_features):
        return byte_blocks.packed_bytes(module.out_features, module.in_features)
    if isinstance(module, nn.Linear) and packs_halves(module.weight):
        return half_blocks.packed_bytes(module.out_features, module.in_features)
    return 0


def pack_adapter(adapter: LoraAdapter, dtype: torch.dtype) -> LoraAdapter:
    """Return the adapter as the compiled kernels read it: contiguous, one scale a rank.

    A and B are as precise as the base: over int8 linears their rows are quantized as well; both scales
    of a rank multiply the same number.
    """
    memory = _Memory(sum(_packed_bytes(w, dtype) for w in adapter.weights.values()))
    packed = {
        name: LoraWeights(*(memory.put(tensor) for tensor in _pack(weights, dtype)))
        for name, weights in adapter.weights.items()
    }
    return replace(adapter, weights=packed)


class _Memory:
    """Tensors one after the other, each on a cache line of its own.

    Hundreds of small ones would be scattered among what is read and freed beside them, and each
    would keep the pages at its ends.
    """

    def __init__(self, num_bytes: int) -> None:
        self._bytes = torch.empty(num_bytes, dtype=torch.uint8)

    def put(self, tensor: Tensor) -> Tensor:
        """Return a copy that lies here."""
        place = self._bytes[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        self._bytes = self._bytes[_aligned(tensor.nbytes) :]
        return place.copy_(tensor)


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _packed_bytes(weights: LoraWeights, dtype: torch.dtype) -> int:
    """Return what ``_pack`` returns takes in ``_Memory``."""
    scale_bytes = weights.a_RD.shape[0] * torch.float32.itemsize
    numbers = (weights.a_RD.numel() * dtype.itemsize, weights.b_RO.numel() * dtype.itemsize)
    return sum(map(_aligned, (*numbers, scale_bytes)))


def _pack(weights: LoraWeights, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return A, B, and the scale of each rank."""
    a, b = weights.a_RD.float().contiguous(), weights.b_RO.float().contiguous()
    if dtype is not torch.int8:
        return a.to(dtype), b.to(dtype), torch.ones(a.shape[0])
    a, scale_a = quantize_weight(a)
    b, scale_b = quantize_weight(b)
    return a, b, scale_a * scale_b


def _join(parts: list[nn.Module], name: str) -> Tensor:
    """Return the tensors one below the other, and make each module's a view of that."""
    tensors = [part.get_parameter(name) if _is_parameter(part, name) else part.get_buffer(name)
               for part in parts]  # fmt: skip
    if len(tensors) == 1:
        return tensors[0].detach()
    joined = torch.cat([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, torch.split(joined, [len(t) for t in tensors]), strict=True):
        tensor.data = view
    return joined


def _is_parameter(module: nn.Module, name: str) -> bool:
    return name in dict(module.named_parameters(recurse=False))


def _join_biases(parts: list[nn.Module], sizes: list[int]) -> np.ndarray:
    """Return the joined biases [N], or nothing where no part has one."""
    if all(part.bias is None for part in parts):
        return np.empty(0, dtype=np.float32)
    found = [
        part.bias.detach().float() if isinstance(part.bias, Tensor) else torch.zeros(size)
        for part, size in zip(parts, sizes, strict=True)
    ]
    joined: np.ndarray = torch.cat(found).numpy()
    return joined
