"""LoRA over a mixed batch as segmented grouped GEMM, with what torch itself brings. No I/O.

Tokens are sorted by adapter; ``grouped_mm`` multiplies each run of rows with its own adapter's A, and
the result with its B: two calls for each rank that occurs, whatever the number of adapters. On a GPU
this is the reference that ``lora_triton`` is measured against, and what runs where there is no
Triton; it computes on CPUs too.

Shapes: T tokens, N sorted rows, D in, O out, G adapters of one rank R.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from loraland_engine.lora import AdapterSlots, LoraWeights
from loraland_engine.lora_segments import find_runs
from loraland_engine.sequence import NO_ADAPTER


@dataclass(frozen=True)
class _Group:
    """Adapters of one rank in one linear, and the rows of each."""

    a_GDR: Tensor
    b_GRO: Tensor
    rows_N: Tensor
    ends_G: Tensor


class GroupedSlots(AdapterSlots):
    """Adapter slots whose updates are computed by grouped GEMM."""

    def __init__(self, *, num_slots: int) -> None:
        super().__init__(num_slots=num_slots)
        self._owners: list[int] = []
        self._groups: dict[str, list[_Group]] = {}

    def remove(self, slot: int) -> None:
        super().remove(slot)
        self._groups = {}

    def prepare(self, slots: list[int], device: torch.device) -> None:
        self._owners = slots
        self._device = device
        # By linear, on first use: linears that no adapter targets cost nothing.
        self._groups = {}

    def apply(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        if name not in self._groups:
            self._groups[name] = self._build(name)
        flat_y, flat_x = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        for group in self._groups[name]:
            add_group(flat_y, flat_x, group)
        return y

    def _build(self, name: str) -> list[_Group]:
        by_rank: dict[int, dict[int, LoraWeights]] = {}
        for slot in sorted(set(self._owners) - {NO_ADAPTER}):
            adapter = self.adapter(slot)
            if adapter is not None and name in adapter.weights:
                weights = adapter.weights[name]
                by_rank.setdefault(len(weights.a_RD), {})[slot] = weights
        return [build_group(self._owners, members, self._device) for members in by_rank.values()]


def build_group(owners: list[int], members: dict[int, LoraWeights], device: torch.device) -> _Group:
    """Return the rows of ``owners`` that belong to ``members``, which share a rank, by slot."""
    rows = sorted((t for t, slot in enumerate(owners) if slot in members), key=owners.__getitem__)
    runs = find_runs([owners[t] for t in rows])
    weights = [members[slot] for slot, _, _ in runs]
    return _Group(
        a_GDR=torch.stack([w.a_RD for w in weights]).transpose(1, 2),
        b_GRO=torch.stack([w.b_RO for w in weights]),
        rows_N=torch.tensor(rows, device=device),
        ends_G=torch.tensor([last for _, _, last in runs], dtype=torch.int32, device=device),
    )


def add_group(y_TO: Tensor, x_TD: Tensor, group: _Group) -> None:
    """Add the group's updates to its rows of ``y_TO`` in place."""
    x_ND = x_TD[group.rows_N].to(group.a_GDR.dtype)
    h_NR = functional.grouped_mm(x_ND, group.a_GDR, offs=group.ends_G)
    y_NO = functional.grouped_mm(h_NR, group.b_GRO, offs=group.ends_G)
    y_TO.index_add_(0, group.rows_N, y_NO.to(y_TO.dtype))
