"""LoRA over a mixed batch as two Triton kernels: shrink to the rank, expand into the output. GPU.

::

    x [T, D]  --shrink-->  h [T, R]  --expand-->  y [T, O] += h · B
              A of the               B of the
              token's slot           token's slot

Weights stay where they were loaded: a table for each linear has the address of every slot's A and B
and its true rank, so that an insertion copies nothing and no rank is padded to another's. A program
works on one chunk of one adapter's rows; what is past the last chunk or past the rank ends at once,
and costs a launch's share only. Sums run over D in one order, never by atomics: a row's result does
not depend on who shares its batch.

Importing this needs ``triton``. On a CPU its interpreter runs the same code (TRITON_INTERPRET=1).

Shapes: T tokens, D in, O out, R the largest rank in a linear, S slots, C chunks.
Sources: Hu et al. 2021, arXiv:2106.09685; Punica, arXiv:2310.18547; S-LoRA, arXiv:2311.03285.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from loraland_engine.lora import AdapterSlots, LoraAdapter
from loraland_engine.lora_segments import CHUNK_ROWS, Segments

# A matrix unit multiplies no fewer columns than this.
RANK_BLOCK = 16
IN_BLOCK = 64
OUT_BLOCK = 64


@triton.jit  # type: ignore[untyped-decorator]
def _shrink(  # type: ignore[no-untyped-def]  # noqa: PLR0917 (what a kernel reads)
    x_TD, h_TR, order_T, chunks_C3, a_S, rank_S, num_in, x_stride, h_stride,
    ROWS: tl.constexpr, RANKS: tl.constexpr, INS: tl.constexpr,
):  # fmt: skip
    chunk = chunks_C3 + tl.program_id(0) * 3
    slot = tl.load(chunk)
    if slot < 0:
        return
    rank = tl.load(rank_S + slot).to(tl.int32)
    r = tl.program_id(1) * RANKS + tl.arange(0, RANKS)
    if tl.program_id(1) * RANKS >= rank:
        return
    first, last = tl.load(chunk + 1), tl.load(chunk + 2)
    row = first + tl.arange(0, ROWS)
    is_row = row < last
    token = tl.load(order_T + row, mask=is_row, other=0).to(tl.int64)
    a_RD = tl.load(a_S + slot).to(tl.pointer_type(x_TD.dtype.element_ty))
    acc = tl.zeros((ROWS, RANKS), dtype=tl.float32)
    for start in range(0, num_in, INS):
        d = start + tl.arange(0, INS)
        is_in = d < num_in
        x = tl.load(
            x_TD + token[:, None] * x_stride + d[None, :],
            mask=is_row[:, None] & is_in[None, :],
            other=0.0,
        )
        a = tl.load(
            a_RD + r[None, :] * num_in + d[:, None],
            mask=(r < rank)[None, :] & is_in[:, None],
            other=0.0,
        )
        acc = tl.dot(x, a, acc, input_precision="ieee")
    tl.store(
        h_TR + row[:, None] * h_stride + r[None, :],
        acc.to(h_TR.dtype.element_ty),
        mask=is_row[:, None] & (r < rank)[None, :],
    )


@triton.jit  # type: ignore[untyped-decorator]
def _expand(  # type: ignore[no-untyped-def]  # noqa: PLR0917 (the same)
    y_TO, h_TR, order_T, chunks_C3, b_S, rank_S, num_out, y_stride, h_stride,
    ROWS: tl.constexpr, RANKS: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    chunk = chunks_C3 + tl.program_id(0) * 3
    slot = tl.load(chunk)
    if slot < 0:
        return
    rank = tl.load(rank_S + slot).to(tl.int32)
    if rank == 0:
        return
    first, last = tl.load(chunk + 1), tl.load(chunk + 2)
    row = first + tl.arange(0, ROWS)
    is_row = row < last
    token = tl.load(order_T + row, mask=is_row, other=0).to(tl.int64)
    o = tl.program_id(1) * OUTS + tl.arange(0, OUTS)
    is_out = o < num_out
    b_RO = tl.load(b_S + slot).to(tl.pointer_type(y_TO.dtype.element_ty))
    acc = tl.zeros((ROWS, OUTS), dtype=tl.float32)
    for start in range(0, rank, RANKS):
        r = start + tl.arange(0, RANKS)
        is_rank = r < rank
        h = tl.load(
            h_TR + row[:, None] * h_stride + r[None, :],
            mask=is_row[:, None] & is_rank[None, :],
            other=0.0,
        )
        b = tl.load(
            b_RO + r[:, None] * num_out + o[None, :],
            mask=is_rank[:, None] & is_out[None, :],
            other=0.0,
        )
        acc = tl.dot(h, b, acc, input_precision="ieee")
    where = y_TO + token[:, None] * y_stride + o[None, :]
    is_ours = is_row[:, None] & is_out[None, :]
    y = tl.load(where, mask=is_ours, other=0.0)
    tl.store(where, (y.to(tl.float32) + acc).to(y_TO.dtype.element_ty), mask=is_ours)


@dataclass
class _Table:
    """Where the weights of one linear lie, by slot: address of A, address of B, rank."""

    rows_3S: Tensor
    max_rank: int = 0


class TritonSlots(AdapterSlots):
    """Adapter slots of a GPU; the weights are in the dtype of the activations."""

    def __init__(self, *, num_slots: int, max_tokens: int, device: torch.device) -> None:
        super().__init__(num_slots=num_slots)
        self._device = device
        self._segments = Segments(max_tokens=max_tokens, device=device)
        self._tables: dict[str, _Table] = {}

    def insert(self, slot: int, adapter: LoraAdapter) -> None:
        super().insert(slot, adapter)
        for name, weights in adapter.weights.items():
            assert weights.a_RD.is_contiguous(), name
            assert weights.b_RO.is_contiguous(), name
            addresses = [weights.a_RD.data_ptr(), weights.b_RO.data_ptr(), len(weights.a_RD)]
            table = self._tables.get(name)
            if table is None:
                rows = torch.zeros((3, self.num_slots), dtype=torch.int64, device=self._device)
                table = self._tables[name] = _Table(rows)
            table.rows_3S[:, slot] = torch.tensor(addresses)
            table.max_rank = max(table.max_rank, len(weights.a_RD))

    def remove(self, slot: int) -> None:
        super().remove(slot)
        for table in self._tables.values():
            table.rows_3S[:, slot] = 0

    def prepare(self, slots: list[int], device: torch.device) -> None:
        assert device == self._device, device
        self._segments.update(slots)

    def apply(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        table = self._tables.get(name)
        if table is not None and self._segments.num_chunks:
            add_lora(
                y.view(-1, y.shape[-1]),
                x.reshape(-1, x.shape[-1]),
                table.rows_3S,
                self._segments,
                max_rank=table.max_rank,
            )
        return y


def add_lora(
    y_TO: Tensor, x_TD: Tensor, table_3S: Tensor, segments: Segments, *, max_rank: int
) -> None:
    """Add each token's low-rank update to ``y_TO`` in place; x, y and all weights share a dtype.

    ``table_3S`` has the addresses of A [rank, D] and B [rank, O] and the rank by slot; rank 0 is a
    slot that leaves this linear as it is. The scaling is folded into B.
    """
    assert x_TD.dtype == y_TO.dtype, (x_TD.dtype, y_TO.dtype)
    num_tokens, num_in = x_TD.shape
    num_out = y_TO.shape[1]
    a_S, b_S, rank_S = table_3S
    h_TR = torch.empty((num_tokens, max_rank), dtype=x_TD.dtype, device=x_TD.device)
    rows = {"ROWS": CHUNK_ROWS, "RANKS": RANK_BLOCK}
    order_T, chunks_C3 = segments.order_T, segments.chunks_C3
    _shrink[(num_tokens, triton.cdiv(max_rank, RANK_BLOCK))](
        x_TD, h_TR, order_T, chunks_C3, a_S, rank_S, num_in, x_TD.stride(0), h_TR.stride(0),
        INS=IN_BLOCK, **rows,
    )  # fmt: skip
    _expand[(num_tokens, triton.cdiv(num_out, OUT_BLOCK))](
        y_TO, h_TR, order_T, chunks_C3, b_S, rank_S, num_out, y_TO.stride(0), h_TR.stride(0),
        OUTS=OUT_BLOCK, **rows,
    )  # fmt: skip
