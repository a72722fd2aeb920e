"""A step's tokens sorted by adapter, as GPU kernels read them. No I/O.

Runs of tokens of one slot are cut into chunks of at most ``CHUNK_ROWS``; one kernel program works on
one chunk, so that neither many adapters nor one long prompt leaves the device idle. The tensors are
written in place from step to step: a captured graph reads them where it found them, and its grid of
one chunk for each token covers every mix of adapters.

Shapes: T packed tokens, C chunks, S slots. Source: SGMV of Punica, arXiv:2310.18547; the chunks are
SGLang's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from loraland_engine.sequence import NO_ADAPTER

CHUNK_ROWS = 16
# Slot, and [first, last) in the order of ``order_T``.
_CHUNK_FIELDS = 3


class Segments:
    """Which rows belong to which slot; tokens of the base model are in no chunk."""

    def __init__(self, *, max_tokens: int, device: torch.device) -> None:
        self._order = torch.zeros(max_tokens, dtype=torch.int32, device=device)
        self._chunks = torch.zeros((max_tokens, _CHUNK_FIELDS), dtype=torch.int32, device=device)
        self.num_tokens = 0
        self.num_chunks = 0
        self.runs: list[tuple[int, int, int]] = []

    @property
    def order_T(self) -> Tensor:  # noqa: N802 (a tensor carries its shape)
        return self._order[: self.num_tokens]

    @property
    def chunks_C3(self) -> Tensor:  # noqa: N802 (the same)
        """Return one row for each token; those past ``num_chunks`` are empty."""
        return self._chunks[: self.num_tokens]

    def update(self, slots: Sequence[int]) -> None:
        """Take the slot of each packed token of the next step."""
        self.num_tokens = len(slots)
        order = sorted(range(len(slots)), key=lambda token: slots[token])
        self.runs = find_runs([slots[token] for token in order])
        chunks = [
            (slot, start, min(start + CHUNK_ROWS, last))
            for slot, first, last in self.runs
            for start in range(first, last, CHUNK_ROWS)
        ]
        self.num_chunks = len(chunks)
        empty = [(NO_ADAPTER, 0, 0)] * (len(slots) - len(chunks))
        self._order[: len(slots)] = torch.tensor(order, dtype=torch.int32)
        self._chunks[: len(slots)] = torch.tensor(chunks + empty, dtype=torch.int32)


def find_runs(slots: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return (slot, first, last) for each run of equal slots but the base model's."""
    runs: list[tuple[int, int, int]] = []
    for index, slot in enumerate(slots):
        if slot == NO_ADAPTER:
            continue
        if runs and runs[-1][0] == slot and runs[-1][2] == index:
            runs[-1] = (slot, runs[-1][1], index + 1)
        else:
            runs.append((slot, index, index + 1))
    return runs
