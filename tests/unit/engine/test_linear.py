"""How an adapter is packed for the compiled kernels."""

from itertools import pairwise

import pytest
import torch
from loraland_engine.linear import pack_adapter
from loraland_engine.lora import LoraAdapter, LoraWeights


def build_adapter() -> LoraAdapter:
    """Return an adapter whose tensors end anywhere within a cache line."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"linear-{rank}": LoraWeights(
            torch.randn(rank, 21, generator=generator), torch.randn(rank, 35, generator=generator)
        )
        for rank in (1, 3, 8)
    }
    return LoraAdapter(weights, rank=8)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32], ids=str)
def test_packed_adapter_lies_in_one_piece(dtype: torch.dtype) -> None:
    """All tensors share their memory, each on cache lines of its own, and none lies in another."""
    packed = pack_adapter(build_adapter(), dtype)
    tensors = [
        tensor
        for weights in packed.weights.values()
        for tensor in (weights.a_RD, weights.b_RO, weights.scale_R)
        if tensor is not None
    ]
    places = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in tensors)

    assert len(tensors) == 9
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    assert {address % 64 for address, _ in places} == {0}
    assert all(a + size <= b for (a, size), (b, _) in pairwise(places))


def test_packed_adapter_has_the_numbers_that_it_was_given() -> None:
    """Nothing is rounded over float linears."""
    adapter = build_adapter()
    packed = pack_adapter(adapter, torch.float32)

    for name, weights in packed.weights.items():
        assert torch.equal(adapter.weights[name].a_RD, weights.a_RD)
        assert torch.equal(adapter.weights[name].b_RO, weights.b_RO)
        assert torch.equal(torch.ones(weights.a_RD.shape[0]), weights.scale_R)
