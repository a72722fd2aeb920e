"""The GPU's ways to add adapters, on a CPU, against one adapter at a time in plain products.

Triton's kernels run in its interpreter: the same code, one program after the other.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from loraland_engine import lora_segments
from loraland_engine.lora import AdapterSlots, LoraAdapter, LoraWeights
from loraland_engine.lora_grouped import GroupedSlots
from loraland_engine.sequence import NO_ADAPTER
from torch import Tensor

lora_triton = pytest.importorskip("loraland_engine.lora_triton", reason="Triton is for Linux")

NUM_IN, NUM_OUT = 96, 80
CPU = torch.device("cpu")
# Mixed ranks; one adapter leaves the linear alone.
RANKS = {0: 16, 1: 8, 2: 40, 3: 16, 4: 0}
BATCHES = {
    "decode, all different": [0, 1, 2, 3],
    "one adapter": [2] * 5,
    "with base rows and a stranger": [NO_ADAPTER, 3, 4, 0, NO_ADAPTER, 0],
    "base only": [NO_ADAPTER] * 3,
    "prompts beside decodes": [1, 0, 2, *[3] * 37, *[1] * 20],
    "unsorted": [3, 0, 3, 1, 0, 2, 1, 3],
}


def build_weights(rank: int, seed: int, dtype: torch.dtype) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, NUM_IN, generator=generator) / NUM_IN**0.5
    b = torch.randn(rank, NUM_OUT, generator=generator)
    return LoraWeights(a.to(dtype), b.to(dtype))


def fill(slots: AdapterSlots, dtype: torch.dtype) -> dict[int, LoraWeights]:
    made = {s: build_weights(rank, s, dtype) for s, rank in RANKS.items() if rank}
    for slot, rank in RANKS.items():
        weights = {"linear": made[slot]} if rank else {"other": build_weights(4, 9, dtype)}
        slots.insert(slot, LoraAdapter(weights, rank or 4))
    return made


def expected_update(x: Tensor, owners: list[int], made: dict[int, LoraWeights]) -> Tensor:
    rows = [
        (row.double() @ made[s].a_RD.double().t()) @ made[s].b_RO.double()
        if s in made
        else torch.zeros(NUM_OUT, dtype=torch.double)
        for row, s in zip(x, owners, strict=True)
    ]
    return torch.stack(rows)


def build_slots(kind: str) -> AdapterSlots:
    if kind == "grouped":
        return GroupedSlots(num_slots=6)
    slots: AdapterSlots = lora_triton.TritonSlots(num_slots=6, max_tokens=64, device=CPU)
    return slots


@pytest.mark.parametrize("kind", ["triton", "grouped"])
@pytest.mark.parametrize("owners", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 6e-3)], ids=["fp32", "fp16"]
)
def test_update_is_each_tokens_own(
    kind: str, owners: list[int], dtype: torch.dtype, tolerance: float
) -> None:
    """Every row gets its adapter's update at its true rank, base rows none."""
    slots = build_slots(kind)
    made = fill(slots, dtype)
    x = torch.randn(len(owners), NUM_IN, generator=torch.Generator().manual_seed(7)).to(dtype)
    y = torch.randn(len(owners), NUM_OUT, generator=torch.Generator().manual_seed(8)).to(dtype)
    before = y.clone()

    slots.prepare(owners, CPU)
    slots.apply("linear", x[None], y[None])

    expected = before.double() + expected_update(x, owners, made)
    torch.testing.assert_close(y.double(), expected, atol=tolerance * 4, rtol=tolerance)


def test_row_is_the_same_whoever_shares_its_batch() -> None:
    """Alone or among others, a row's update by Triton agrees to the last bit."""
    slots = build_slots("triton")
    fill(slots, torch.float32)
    x = torch.randn(8, NUM_IN)
    found = []
    for owners, rows in (([3, 0, 3, 1, 0, 2, 1, 3], x), ([2], x[5:6])):
        found.append(torch.zeros(len(owners), NUM_OUT))
        slots.prepare(owners, CPU)
        slots.apply("linear", rows, found[-1])

    assert torch.equal(found[0][5], found[1][0])


@pytest.mark.parametrize("kind", ["triton", "grouped"])
def test_slot_taken_again_has_the_new_weights(kind: str) -> None:
    """Nothing of an adapter stays behind in its slot."""
    slots = build_slots(kind)
    fill(slots, torch.float32)
    x = torch.randn(3, NUM_IN)
    slots.prepare([0, 0, 1], CPU)
    slots.apply("linear", x, torch.zeros(3, NUM_OUT))
    slots.remove(0)
    new = build_weights(24, 99, torch.float32)
    slots.insert(0, LoraAdapter({"linear": new}, 24))

    y = torch.zeros(3, NUM_OUT)
    slots.prepare([0, 0, NO_ADAPTER], CPU)
    slots.apply("linear", x, y)

    expected = expected_update(x, [0, 0, NO_ADAPTER], {0: new})
    torch.testing.assert_close(y, expected.float(), atol=1e-5, rtol=1e-4)


def test_chunks_cover_each_adapters_rows_once() -> None:
    """Chunks are short, of one adapter each, and together its rows; the base's are in none."""
    owners = [1, 0, NO_ADAPTER, *[3] * 37, *[1] * 20]
    segments = lora_segments.Segments(max_tokens=64, device=CPU)

    segments.update(owners)

    order = segments.order_T.tolist()
    chunks = segments.chunks_C3[: segments.num_chunks].tolist()
    found = sorted((order[i], slot) for slot, first, last in chunks for i in range(first, last))
    assert found == [(t, slot) for t, slot in enumerate(owners) if slot != NO_ADAPTER]
    assert all(0 < last - first <= lora_segments.CHUNK_ROWS for _, first, last in chunks)
    assert {c[0] for c in segments.chunks_C3[segments.num_chunks :].tolist()} == {NO_ADAPTER}
