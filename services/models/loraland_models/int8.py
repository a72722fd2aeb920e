"""Eight-bit linears for CPUs: weights by output channel, activations by row. No I/O.

Each row of the input is scaled by its own largest magnitude, never by one scale for a whole batch, so
that a request's numbers do not depend on who shares its batch. The product is exact in 32-bit
integers; what is lost is lost by rounding to eight bits.

Shapes: T rows, D in, N out.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loraland_models.balancing import Factors

# Unsigned activations: the instructions that multiply bytes want one unsigned side (VNNI, AMX).
ZERO_POINT = 128
_LIMIT = 127.0


class Int8Product:
    """A weight matrix reordered for the processor, and the product with quantized rows."""

    def __init__(self, weight_ND: Tensor, scale_N: Tensor) -> None:
        self.num_out, self.num_in = weight_ND.shape
        self._scale_N = scale_N.float()
        self._is_reordered = has_byte_products()
        if self._is_reordered:
            self._weight = torch.ops.onednn.qlinear_prepack(weight_ND.contiguous(), None)
            self._zero_N = torch.zeros(self.num_out, dtype=torch.long)
        else:
            self._weight = weight_ND.t()

    def multiply(self, rows_TD: Tensor) -> Tensor:
        """Return float32 [T, N] for rows from ``quantize_rows``, still without the rows' scales."""
        if not self._is_reordered:
            signed = (rows_TD.to(torch.int16) - ZERO_POINT).to(torch.int8)
            return torch._int_mm(signed, self._weight).float() * self._scale_N
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows_TD, 1.0, ZERO_POINT, self._weight, self._scale_N, self._zero_N,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return product


class Int8Linear(nn.Module):
    """Stands in for ``nn.Linear``; keeps the integers, so that linears can be joined."""

    weight: Tensor
    scale_N: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, factors: Factors | None = None) -> None:
        super().__init__()
        # What its inputs and outputs were divided by, for adapters.
        self.factors = factors
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        weight, scale = quantize_weight(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale_N", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self._product: Int8Product | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._product is None:
            self._product = Int8Product(self.weight, self.scale_N)
        rows_TD, scale_T1 = quantize_rows(x.reshape(-1, self.in_features))
        y = self._product.multiply(rows_TD) * scale_T1
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)


def has_byte_products() -> bool:
    """Whether the processor multiplies bytes into 32 bits; older ones saturate at 16 on the way."""
    return bool(torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported())


def quantize_weight(weight_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 [N, D] and the scale of each output channel."""
    scale_N = weight_ND.float().abs().amax(dim=1).clamp_min(1e-12) / _LIMIT
    return (weight_ND.float() / scale_N[:, None]).round_().to(torch.int8), scale_N


def quantize_rows(x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """Return uint8 [T, D] around ``ZERO_POINT`` and the scale [T, 1] of each row."""
    scale_T1 = x_TD.float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LIMIT
    return (x_TD.float() / scale_T1).round_().add_(ZERO_POINT).to(torch.uint8), scale_T1


def quantize_linears(model: nn.Module, factors: Mapping[str, Factors]) -> None:
    """Put an ``Int8Linear`` in the place of every linear, the output head among them.

    ``factors`` are those of ``balancing``, by name.

    An embedding that shares its weight with the head keeps it: looking rows up costs nothing.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, Int8Linear(module, factors.get(name)))
