"""Products of a bfloat16 base over packed blocks: in tiles and in lanes, for any number of rows."""

import numpy as np
import pytest
import torch
from loraland_engine import byte_blocks, half_blocks, half_products, tile_registers
from loraland_engine.native import compiled

TILES = pytest.param(
    True,
    id="tiles",
    marks=pytest.mark.skipif(
        not tile_registers.is_supported(tile_registers.HALVES), reason="no AMX bf16 here"
    ),
)
LANES = pytest.param(
    False,
    id="lanes",
    marks=pytest.mark.skipif(not half_blocks.has_lanes(), reason="no AVX512_BF16 here"),
)


@compiled
def multiply(given, address, num_blocks, bias, y):  # type: ignore[no-untyped-def]
    """Write all outputs, in two parts."""
    rows, described = given
    scratch = np.empty((rows.shape[0], 16), dtype=np.float32)
    if described.shape[0]:
        tile_registers.configure(described.ctypes.data)
    half = num_blocks // 2
    for first, last in ((0, half), (half, num_blocks)):
        half_products.multiply_blocks(
            rows, described, address, first, last, bias, y, scratch.ctypes.data
        )
    if described.shape[0]:
        tile_registers.release()


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, in_tiles: bool
) -> np.ndarray:
    """Return what the kernels compute, with NaN beyond what they should write."""
    num_out, num_in = weight.shape
    memory = byte_blocks.huge_memory(half_blocks.packed_bytes(num_out, num_in))
    packed = half_blocks.pack(weight, memory)
    rows = np.zeros((len(x), half_blocks.padded(num_in)), dtype=np.uint16)
    rows[:, :num_in] = x.view(torch.int16).numpy().view(np.uint16)
    y = np.full((len(x) + 1, num_out), np.nan, dtype=np.float32)
    described = half_products.tiles(len(x), is_allowed=in_tiles)
    multiply((rows, described), packed.ctypes.data, len(packed), bias.numpy(), y[:-1])
    assert np.isnan(y[-1]).all()
    return y[:-1]


@pytest.mark.parametrize("in_tiles", [TILES, LANES])
@pytest.mark.parametrize("num_rows", [1, 3, 16, 17, 33, 70])
@pytest.mark.parametrize(("num_out", "num_in"), [(160, 64), (24, 112), (16, 32)])
def test_product_of_halves_sums_in_float32(
    num_rows: int, num_out: int, num_in: int, in_tiles: bool
) -> None:
    """Products of halves are exact in float32, and their sum is off by its rounding alone."""
    generator = torch.Generator().manual_seed(num_rows)
    x, weight = (
        torch.randn(n, num_in, generator=generator).bfloat16() for n in (num_rows, num_out)
    )
    bias = torch.randn(num_out, generator=generator)

    found = product(x, weight, bias, in_tiles=in_tiles)

    expected = x.double() @ weight.double().T + bias.double()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("in_tiles", [TILES, LANES])
def test_row_does_not_depend_on_how_many_there_are(in_tiles: bool) -> None:
    """Bit by bit the same alone, among a few, and among those of a prompt."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 96, generator=generator).bfloat16() for n in (50, 48))
    none = torch.empty(0)

    together = product(x, weight, none, in_tiles=in_tiles)

    for count in (1, 2, 7, 16, 31):
        alone = product(x[:count], weight, none, in_tiles=in_tiles)
        np.testing.assert_array_equal(alone, together[:count])


def test_blocks_are_filled_up_with_zeros() -> None:
    """Two inputs of sixteen outputs side by side; what is beyond the weight adds nothing."""
    weight = torch.arange(18 * 3, dtype=torch.float32).view(18, 3).bfloat16()
    memory = byte_blocks.huge_memory(half_blocks.packed_bytes(18, 3))

    packed = torch.from_numpy(half_blocks.pack(weight, memory).view(np.int16)).view(torch.bfloat16)

    assert packed.shape == (2, 16, 16, 2)
    assert packed[1, 0, 1].tolist() == weight[17, :2].tolist()
    assert packed[1, 1, 1].tolist() == [weight[17, 2], 0]
    assert float(packed.float().sum()) == float(weight.float().sum())
