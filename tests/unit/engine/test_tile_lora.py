"""Rows of prompts get their adapter's update in tiles as plain products say; bfloat16 operands."""

import itertools

import numpy as np
import pytest
import torch
from loraland_engine import tile_lora
from loraland_engine.kv_memory import as_array
from loraland_engine.linear import pack_adapter
from loraland_engine.lora import LoraAdapter, LoraWeights

pytestmark = pytest.mark.skipif(
    not tile_lora.IS_SUPPORTED, reason="the processor has no AMX for bfloat16"
)
OUTS = (64, 20, 101, 208)
START = np.array([0, *np.cumsum(OUTS)], dtype=np.int64)
WIDTH, FIRST = 96, 3
RANKS = [(16, 16, 16, 16), (3, 0, 8, 1), (0, 0, 1, 33), (64, 5, 0, 17)]


def build_adapter(ranks: tuple[int, ...], dtype: torch.dtype) -> LoraAdapter:
    generator = torch.Generator().manual_seed(1)
    weights = {
        str(part): LoraWeights(
            torch.randn(rank, WIDTH, generator=generator),
            torch.randn(rank, num_out, generator=generator),
        )
        for part, (rank, num_out) in enumerate(zip(ranks, OUTS, strict=True))
        if rank
    }
    return pack_adapter(LoraAdapter(weights, rank=max(ranks)), dtype)


def table(adapter: LoraAdapter) -> np.ndarray:
    rows = np.zeros((len(OUTS), 4), dtype=np.int64)
    for name, own in adapter.weights.items():
        assert own.scale_R is not None
        addresses = own.a_RD.data_ptr(), own.b_RO.data_ptr()
        rows[int(name)] = (*addresses, own.a_RD.shape[0], own.scale_R.data_ptr())
    return rows


def finish(
    count: int,
    adapter: LoraAdapter,
    *,
    bias: np.ndarray | None = None,
    cuts: tuple[int, ...] = (0,),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the tiles' rows and their neighbours became, and what they should be."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(FIRST + count + 2, WIDTH, generator=generator)
    y = torch.randn(len(x), sum(OUTS), generator=generator)
    scale = torch.rand(len(x), generator=generator) + 0.5
    biases = np.empty(0, dtype=np.float32) if bias is None else bias
    found = y.clone()
    like = as_array(torch.zeros(1, dtype=next(iter(adapter.weights.values())).a_RD.dtype))

    for start, end in itertools.pairwise([*cuts, count]):
        tile_lora.finish_tile(
            found.numpy(), x.numpy(), scale.numpy(), biases, FIRST + start, end - start,
            table(adapter), START, like,
        )  # fmt: skip

    rows = slice(FIRST, FIRST + count)
    expected = y.double()
    expected[rows] *= scale[rows, None]
    for name, own in adapter.weights.items():
        assert own.scale_R is not None
        h = x[rows].double() @ own.a_RD.double().t() * own.scale_R.double()
        columns = slice(int(START[int(name)]), int(START[int(name) + 1]))
        expected[rows, columns] += h @ own.b_RO.double()
    if bias is not None:
        expected[rows] += torch.from_numpy(bias)
    return found, expected.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("ranks", RANKS, ids=str)
@pytest.mark.parametrize("count", [5, 16, 33, 64])
def test_tile_is_finished(count: int, ranks: tuple[int, ...], dtype: torch.dtype) -> None:
    """Any number of rows, ranks and outs; other rows stay as they are. Within 1 % of the largest."""
    adapter = build_adapter(ranks, dtype)

    found, expected = finish(count, adapter)

    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=largest / 100)
    others = [*range(FIRST), *range(FIRST + count, len(found))]
    assert torch.equal(found[others], expected[others])


def test_tile_gets_its_bias() -> None:
    """Beside scale and update."""
    bias = np.arange(sum(OUTS), dtype=np.float32)

    found, expected = finish(17, build_adapter((4, 0, 4, 4), torch.int8), bias=bias)

    torch.testing.assert_close(found, expected, rtol=0, atol=float(expected.abs().max()) / 100)


def test_row_does_not_depend_on_its_tile() -> None:
    """One tile or several, cut anywhere: not a bit differs."""
    adapter = build_adapter(RANKS[0], torch.int8)

    whole, _ = finish(64, adapter)
    cut, _ = finish(64, adapter, cuts=(0, 17, 40))

    assert torch.equal(cut, whole)
