"""Attention over rows that lie end to end, registered with Transformers. No I/O.

Rows of similar length attend together in one call of the fused kernel, padded there and nowhere else.
What all rows begin with attends to itself once; its keys and values are read by every row.

Shapes: T packed tokens, P of the common beginning, H query heads, G key/value heads, D head size,
B rows of a group, S tokens of its longest row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from loraland_trainer.packing import Group, Layout

NAME = "loraland-packed"
# What some model classes ask of attention beyond the standard, and we would silently leave out.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return [1, T, H, D] for queries, keys and values of [1, heads, T, D]."""
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ValueError(f"this model's attention uses {name}, which is not supported")
    window = kwargs.get("sliding_window")
    if window is not None and window < query.shape[2]:
        raise ValueError(f"rows are longer than this model's window of {window} tokens")
    num_shared = layout.num_shared
    q_THD, k_TGD, v_TGD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    shared = (k_TGD[None, :num_shared], v_TGD[None, :num_shared])
    rows = [_Spread.apply(t[num_shared:], layout) for t in (q_THD, k_TGD, v_TGD)]  # type: ignore[no-untyped-call]
    parts = []
    first = 0
    for group in layout.groups:
        last = first + group.num_rows * group.num_tokens
        parts.append(_attend_group([t[first:last] for t in rows], shared, group, scaling))
        first = last
    joined_MHD = parts[0] if len(parts) == 1 else torch.cat(parts)
    out_THD: Tensor = _Collect.apply(joined_MHD, layout)  # type: ignore[no-untyped-call]
    if num_shared:
        begun = _attend(q_THD[None, :num_shared], *shared, None, scaling)
        out_THD = torch.cat((begun[0], out_THD))
    return out_THD.unsqueeze(0), None


def _attend_group(
    rows: list[Tensor], shared: tuple[Tensor, Tensor], group: Group, scaling: float | None
) -> Tensor:
    """Return [B * S, H, D] for the rows of a group."""
    q, k, v = (t.view(group.num_rows, group.num_tokens, *t.shape[1:]) for t in rows)
    if group.mask_SL is not None:
        k, v = (
            torch.cat((begun.expand(group.num_rows, -1, -1, -1), own), dim=1)
            for begun, own in zip(shared, (k, v), strict=True)
        )
    return _attend(q, k, v, group.mask_SL, scaling).flatten(0, 1)


class _Spread(torch.autograd.Function):
    """Own tokens to the places of the groups. Padding comes back without a gradient."""

    @staticmethod
    def forward(ctx: Any, own_NHD: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return own_NHD.index_select(0, layout.token_M)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, ctx.layout.place_N), None


class _Collect(torch.autograd.Function):
    """The places of the groups back to own tokens. Plain indexing would add up, one by one."""

    @staticmethod
    def forward(ctx: Any, places_MHD: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return places_MHD.index_select(0, layout.place_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        spread = grads[0].index_select(0, ctx.layout.token_M)
        return spread.index_fill_(0, ctx.layout.padding, 0.0), None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """Attend with [B, length, heads, D] on both sides; without a mask, causally."""
    out = functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)


@contextmanager
def installed(base_model: Any) -> Iterator[None]:
    """Let the model attend so while the block runs."""
    before = base_model.config._attn_implementation
    base_model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base_model.set_attn_implementation(before)


AttentionInterface.register(NAME, attend)
