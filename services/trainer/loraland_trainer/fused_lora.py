"""A linear with its adapter as one operation, for training. No I/O; numbers as PEFT's.

PEFT adds a scaled product to the frozen layer's: five passes over the output forwards and back that
only move memory. Here the low-rank product is added in place, and what backward needs is kept once.
Layers that this cannot do (quantized, with dropout, in mixed precision) keep PEFT's own way.

Shapes: T tokens, D in, O out, R rank.

Source: Hu et al. 2021, arXiv:2106.09685.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import layer as lora_layer
from torch import Tensor, nn


class _Linear(torch.autograd.Function):
    """``x W' + bias + scaling (x A') B'`` with W frozen."""

    @staticmethod
    def forward(  # noqa: PLR0917 -- autograd passes by position
        ctx: Any,
        x_TD: Tensor,
        weight_OD: Tensor,
        bias_O: Tensor | None,
        a_RD: Tensor,
        b_OR: Tensor,
        scaling: float,
    ) -> Tensor:
        y_TO = nn.functional.linear(x_TD, weight_OD, bias_O)
        low_TR = x_TD @ a_RD.t()
        y_TO.addmm_(low_TR, b_OR.t(), alpha=scaling)
        ctx.save_for_backward(x_TD, weight_OD, a_RD, b_OR, low_TR)
        ctx.scaling = scaling
        return y_TO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy_TO,) = grads
        x_TD, weight_OD, a_RD, b_OR, low_TR = ctx.saved_tensors
        dlow_TR = (dy_TO @ b_OR).mul_(ctx.scaling)
        da_RD = dlow_TR.t() @ x_TD
        db_OR = (dy_TO.t() @ low_TR).mul_(ctx.scaling)
        dx_TD = None
        if ctx.needs_input_grad[0]:
            dx_TD = (dy_TO @ weight_OD).addmm_(dlow_TR, a_RD)
        return dx_TD, None, None, da_RD, db_OR, None


@contextmanager
def installed(model: nn.Module) -> Iterator[int]:
    """Compute the model's adapted linears so while the block runs; yield how many there are."""
    layers: list[Any] = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = _fused(layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            # The class's own method shows again.
            del layer.forward


def _is_plain(module: Any) -> bool:
    if type(module) is not lora_layer.Linear or type(module.base_layer) is not nn.Linear:
        return False
    names = list(module.lora_A)
    if len(names) != 1 or module.lora_variant:
        return False
    if not isinstance(module.lora_dropout[names[0]], nn.Identity):
        return False
    a, b, base = module.lora_A[names[0]], module.lora_B[names[0]], module.base_layer
    frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
    return frozen and b.bias is None and a.weight.dtype == b.weight.dtype == base.weight.dtype


def _fused(layer: Any) -> Any:
    [name] = layer.lora_A
    base, a, b = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    original = layer.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        is_off = layer.disable_adapters or layer.merged or args or kwargs
        if is_off or x.dtype != base.weight.dtype or torch.is_autocast_enabled(x.device.type):
            return original(x, *args, **kwargs)  # type: ignore[no-any-return]
        y: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            x.reshape(-1, x.shape[-1]),
            base.weight,
            base.bias,
            a.weight,
            b.weight,
            float(layer.scaling[name]),
        )
        return y.view(*x.shape[:-1], y.shape[-1])

    return forward
