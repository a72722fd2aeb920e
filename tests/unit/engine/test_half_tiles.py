"""Numbers become bfloat16 as torch rounds them, in the order that tile products want."""

from typing import Any

import numpy as np
import pytest
import torch
from loraland_engine import half_tiles, tile_registers
from loraland_engine.native import compiled

pytestmark = pytest.mark.skipif(
    not tile_registers.is_supported(tile_registers.HALVES), reason="the processor has no AMX bf16"
)
KINDS = [torch.float32, torch.int8, torch.bfloat16]


@compiled
def round_row(source, to):  # type: ignore[no-untyped-def]
    half_tiles.round_row(to.ctypes.data, source.ctypes.data, source.shape[0])


@compiled
def pack_square(source, last, to):  # type: ignore[no-untyped-def]
    half_tiles.pack_square(to.ctypes.data, source.ctypes.data, source.shape[1], last, source)


@compiled
def pack_pair(source, to):  # type: ignore[no-untyped-def]
    half_tiles.pack_pair(to.ctypes.data, source[0].ctypes.data, source[1].ctypes.data, source)


def numbers(rows: int, width: int, kind: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return random numbers as compiled code reads them, and the bits of their halves."""
    given = (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) * 40).to(kind)
    halves = given.bfloat16().view(torch.uint16).numpy()
    read: Any = halves if kind == torch.bfloat16 else given.numpy()
    return read, halves


def test_row_is_rounded_to_the_nearest() -> None:
    """As torch does it; float32."""
    source, expected = numbers(1, 96, torch.float32)
    found = np.zeros(96, dtype=np.uint16)

    round_row(source[0], found)

    np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("num_rows", [1, 7, 16])
def test_square_has_pairs_of_each_row_in_a_column(num_rows: int, kind: torch.dtype) -> None:
    """Line i has the pair i of every row; rows that are not there repeat the last one."""
    source, halves = numbers(num_rows, 40, kind)
    found = np.zeros((16, 16, 2), dtype=np.uint16)

    pack_square(source, num_rows - 1, found)

    pairs = halves[:, :32].reshape(num_rows, 16, 2).transpose(1, 0, 2)
    np.testing.assert_array_equal(found[:, :num_rows], pairs)
    np.testing.assert_array_equal(found[:, num_rows:], pairs[:, -1:].repeat(16 - num_rows, 1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pair_of_rows_is_interleaved(kind: torch.dtype) -> None:
    """First of the one, first of the other, and so on."""
    source, halves = numbers(2, 16, kind)
    found = np.zeros((16, 2), dtype=np.uint16)

    pack_pair(source, found)

    np.testing.assert_array_equal(found, halves.T)
