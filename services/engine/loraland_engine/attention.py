"""Attention over a packed batch, registered with Transformers as ``loraland``. No I/O.

A model class hands us queries, keys and values of all sequences in one row of T tokens. Decoding
tokens are answered by one call over a view of KV memory; each piece of a prompt by a call of its own.

Shapes: T packed tokens, R decoding rows, S slots in view, H query heads, G key/value heads,
P = H / G heads to a group, L context tokens in view, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from loraland_engine import paged_attention
from loraland_engine.kv_memory import KvMemory
from loraland_engine.paged_attention import PagedRows

NAME = "loraland"
# What some model classes ask of attention beyond the standard, and we would silently leave out.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


@dataclass(frozen=True)
class PromptPiece:
    """Tokens [first, last) of the packed row are positions [start, end) of one sequence."""

    first: int
    last: int
    kv_slot: int
    start: int
    end: int


@dataclass(frozen=True)
class AttentionBatch:
    """Where each packed token belongs. Decoding tokens come first in the row."""

    kv: KvMemory
    slot_T: Tensor
    position_T: Tensor
    num_decoding: int
    # Slots of the decoding rows, or None where row i is slot i.
    decode_slot_R: Tensor | None
    # [S, 1, 1, L]: True where a slot's position may be read.
    decode_mask: Tensor | None
    pieces: tuple[PromptPiece, ...]
    # Where KV memory is in pages; nothing else is then needed.
    paged: PagedRows | None = None


def build_decode_mask(lengths_S: Tensor) -> Tensor:
    """Return [S, 1, 1, L] for slots that hold ``lengths_S`` tokens, the new one included.

    A slot without a decoding row has length 1: its result is thrown away, and a row without any
    visible position would be NaN.
    """
    num_positions = int(lengths_S.max())
    positions_L = torch.arange(num_positions, device=lengths_S.device)
    return (positions_L[None, :] < lengths_S[:, None])[:, None, None, :]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    scaling: float,
    batch: AttentionBatch,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Store the new keys and values, then attend. Tensors come as [1, heads, T, D]."""
    for name in _UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise ValueError(f"this model's attention uses {name}, which is not supported")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    batch.kv.write(
        layer, key[0].transpose(0, 1), value[0].transpose(0, 1), batch.slot_T, batch.position_T
    )
    if batch.paged is not None:
        pages = batch.kv.pages(layer)
        q_THD = query[0].transpose(0, 1)
        out = paged_attention.attend(q_THD, *pages, batch.paged, scaling=scaling)
        return out.unsqueeze(0), None
    parts = []
    if batch.num_decoding:
        parts.append(_decode(query[0, :, : batch.num_decoding], layer, batch, scaling))
    parts += [
        attend_piece(query, (key, value), layer, batch.kv, p, scaling=scaling) for p in batch.pieces
    ]
    # Transformers wants [1, T, H, D].
    out_THD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out_THD.unsqueeze(0), None


def _decode(q_HRD: Tensor, layer: int, batch: AttentionBatch, scaling: float) -> Tensor:
    num_heads, num_rows, head_size = q_HRD.shape
    mask = batch.decode_mask
    assert mask is not None
    num_slots, num_positions = mask.shape[0], mask.shape[-1]
    keys = batch.kv.keys[layer][:num_slots, :, :num_positions]
    values = batch.kv.values[layer][:num_slots, :, :num_positions]
    num_groups = keys.shape[1]
    # The heads of a group share keys: they become rows of one small matrix product.
    q_RGPD = q_HRD.transpose(0, 1).reshape(num_rows, num_groups, num_heads // num_groups, head_size)
    if batch.decode_slot_R is not None:
        q_SGPD = q_RGPD.new_zeros((num_slots, *q_RGPD.shape[1:]))
        q_SGPD[batch.decode_slot_R] = q_RGPD
    else:
        q_SGPD = q_RGPD
    out = functional.scaled_dot_product_attention(
        q_SGPD, keys, values, attn_mask=mask.expand(-1, 1, q_SGPD.shape[2], -1), scale=scaling
    )
    if batch.decode_slot_R is not None:
        out = out[batch.decode_slot_R]
    return out.reshape(num_rows, num_heads, head_size)


def attend_piece(
    query: Tensor,
    new: tuple[Tensor, Tensor],
    layer: int,
    kv: KvMemory,
    piece: PromptPiece,
    *,
    scaling: float,
) -> Tensor:
    """Return [T, H, D] for one piece of a prompt; its keys and values are in KV memory."""
    q = query[:, :, piece.first : piece.last]
    if piece.start == 0:
        k, v = (t[:, :, piece.first : piece.last] for t in new)
        mask = None
    else:
        k = kv.keys[layer][piece.kv_slot, None, :, : piece.end]
        v = kv.values[layer][piece.kv_slot, None, :, : piece.end]
        rows = torch.arange(piece.start, piece.end, device=q.device)
        mask = torch.arange(piece.end, device=q.device)[None, :] <= rows[:, None]
    group_size = q.shape[1] // k.shape[1]
    if group_size > 1:
        k = k.repeat_interleave(group_size, dim=1)
        v = v.repeat_interleave(group_size, dim=1)
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    return out[0].transpose(0, 1)


# No mask function is registered under this name, so that Transformers builds no mask.
AttentionInterface.register(NAME, attend)
