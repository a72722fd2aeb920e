"""Attention of a whole step in one call, over KV memory in pages: for GPUs. No I/O.

Decoding tokens and pieces of prompts are sequences of different lengths to one varlen kernel of
torch, which finds each one's keys by a table of pages. So a step needs neither a mask nor a copy of
keys, and its launches do not grow with the number of sequences. Elsewhere than on a GPU a plain
reference computes the same.

Shapes: T packed tokens, H query heads, G key/value heads, N sequences, P pages in memory, B tokens of
a page, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

# FlashAttention 2 takes pages of multiples of this.
PAGE_TOKENS = 256
_DTYPES = (torch.bfloat16, torch.float16)
_OLDEST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class PagedRows:
    """Where the step's sequences lie: in the packed row, and in memory."""

    first_query_N1: Tensor
    pages_NP: Tensor
    num_keys_N: Tensor
    max_queries: int
    max_keys: int


def is_supported(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs there; KV memory is then laid out in pages."""
    if device.type != "cuda" or dtype not in _DTYPES:
        return False
    return torch.cuda.get_device_capability(device) >= _OLDEST_CAPABILITY


def build_rows(
    pieces: Sequence[tuple[int, int, int]], *, context_tokens: int, device: torch.device
) -> PagedRows:
    """Return the tables of pieces (KV slot, start, end) of sequences, in packed order.

    A slot's pages follow each other: page i of slot s is page ``s * context_tokens / B + i``.
    """
    per_slot = context_tokens // PAGE_TOKENS
    firsts = [0]
    for _, start, end in pieces:
        firsts.append(firsts[-1] + end - start)
    slots = torch.tensor([slot for slot, _, _ in pieces], dtype=torch.int32)
    pages = slots[:, None] * per_slot + torch.arange(per_slot, dtype=torch.int32)[None]
    return PagedRows(
        first_query_N1=torch.tensor(firsts, dtype=torch.int32, device=device),
        pages_NP=pages.to(device),
        num_keys_N=torch.tensor([end for *_, end in pieces], dtype=torch.int32, device=device),
        max_queries=max(end - start for _, start, end in pieces),
        max_keys=max(end for *_, end in pieces),
    )


def attend(
    q_THD: Tensor, k_PBGD: Tensor, v_PBGD: Tensor, rows: PagedRows, *, scaling: float
) -> Tensor:
    """Return [T, H, D]; a query sees the keys up to its own position."""
    if not q_THD.is_cuda:
        return attend_plainly(q_THD, k_PBGD, v_PBGD, rows, scaling=scaling)
    out = varlen_attn(
        q_THD,
        k_PBGD,
        v_PBGD,
        rows.first_query_N1,
        None,
        rows.max_queries,
        rows.max_keys,
        scale=scaling,
        # Causal: the last query of a sequence sees all of its keys.
        window_size=(-1, 0),
        enable_gqa=True,
        seqused_k=rows.num_keys_N,
        block_table=rows.pages_NP,
    )
    assert isinstance(out, Tensor)
    return out


def attend_plainly(
    q_THD: Tensor, k_PBGD: Tensor, v_PBGD: Tensor, rows: PagedRows, *, scaling: float
) -> Tensor:
    """Compute the same, one sequence after the other."""
    parts = []
    firsts = rows.first_query_N1.tolist()
    for index, num_keys in enumerate(rows.num_keys_N.tolist()):
        q = q_THD[firsts[index] : firsts[index + 1]]
        k, v = (
            t[rows.pages_NP[index].long()].flatten(0, 1)[:num_keys].transpose(0, 1)
            for t in (k_PBGD, v_PBGD)
        )
        positions = torch.arange(num_keys - len(q), num_keys, device=q.device)
        mask = torch.arange(num_keys, device=q.device)[None, :] <= positions[:, None]
        out = functional.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k[None], v[None], mask, scale=scaling, enable_gqa=True
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)
