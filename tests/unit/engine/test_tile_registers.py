"""Products in tile registers: bytes and halves, whatever the number of rows."""

import numpy as np
import pytest
import torch
from loraland_engine import tile_registers
from loraland_engine.native import compiled

needs_byte_tiles = pytest.mark.skipif(
    not tile_registers.is_supported(tile_registers.BYTES), reason="the processor has no AMX int8"
)
needs_half_tiles = pytest.mark.skipif(
    not tile_registers.is_supported(tile_registers.HALVES), reason="the processor has no AMX bf16"
)
bytes_1x4 = tile_registers.build_product(tile_registers.BYTES, 1, 4, ahead_bytes=1024)
bytes_2x2 = tile_registers.build_product(tile_registers.BYTES, 2, 2)
halves_2x2 = tile_registers.build_product(tile_registers.HALVES, 2, 2)


@compiled
def multiply_bytes(described, rows, blocks, sums):  # type: ignore[no-untyped-def]
    """Write the sums of one tile of rows and four of outs."""
    width = rows.shape[1]
    tile_registers.configure(described.ctypes.data)
    bytes_1x4(
        rows.ctypes.data, width, blocks.ctypes.data, 64, width * 16, width // 64,
        sums.ctypes.data, sums.shape[1] * 4,
    )  # fmt: skip
    tile_registers.release()


@compiled
def multiply_square(described, rows, blocks, sums, are_bytes):  # type: ignore[no-untyped-def]
    """Write the sums of two tiles of rows and two of outs."""
    width = rows.shape[1] * rows.itemsize
    given = (
        rows.ctypes.data, width, blocks.ctypes.data, 64, width * 16, width // 64,
        sums.ctypes.data, sums.shape[1] * 4,
    )  # fmt: skip
    tile_registers.configure(described.ctypes.data)
    if are_bytes:
        bytes_2x2(*given)
    else:
        halves_2x2(*given)
    tile_registers.release()


def pack(weight: np.ndarray, ins: int) -> np.ndarray:
    """Return [N / 16, D / ins, 16, ins]."""
    num_out, num_in = weight.shape
    blocks = weight.reshape(num_out // 16, 16, num_in // ins, ins)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


@needs_byte_tiles
@pytest.mark.parametrize("num_rows", [1, 5, 16])
def test_tile_of_bytes_is_exact(num_rows: int) -> None:
    """Unsigned rows times signed weights, and not a row more than was asked for."""
    random = np.random.default_rng(num_rows)
    rows = random.integers(0, 256, (num_rows, 192), dtype=np.uint8)
    weight = random.integers(-128, 128, (64, 192), dtype=np.int8)
    sums = np.full((num_rows + 1, 64), 7, dtype=np.int32)

    multiply_bytes(tile_registers.setup(num_rows), rows, pack(weight, 4), sums)

    expected = rows.astype(np.int32) @ weight.T.astype(np.int32)
    np.testing.assert_array_equal(sums[:num_rows], expected)
    assert sums[num_rows].tolist() == [7] * 64


@needs_byte_tiles
def test_square_of_bytes_is_exact() -> None:
    """Two tiles of rows and two of outs at once."""
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (32, 128), dtype=np.uint8)
    weight = random.integers(-128, 128, (32, 128), dtype=np.int8)
    sums = np.zeros((32, 32), dtype=np.int32)

    multiply_square(tile_registers.setup(16), rows, pack(weight, 4), sums, True)

    np.testing.assert_array_equal(sums, rows.astype(np.int32) @ weight.T.astype(np.int32))


@needs_half_tiles
def test_square_of_halves_sums_in_float32() -> None:
    """Products of bfloat16 are exact in float32; what differs is the order of the sum."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(32, 96, generator=generator).bfloat16() for _ in range(2))
    sums = np.zeros((32, 32), dtype=np.float32)
    bits = [tensor.view(torch.int16).numpy() for tensor in (rows, weight)]

    multiply_square(tile_registers.setup(16), bits[0], pack(bits[1], 2), sums, False)

    expected = rows.double() @ weight.double().T
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-5)
