"""Rows as products multiply them: bytes with a scale, and halves."""

import numpy as np
import torch
from loraland_engine import rounding
from loraland_engine.native import compiled
from loraland_models import int8


@compiled
def round_rows(x, rows, scales):  # type: ignore[no-untyped-def]
    """Round every row to the type of ``rows``."""
    for t in range(x.shape[0]):
        rounding.round_row(x[t], rows, scales, t)


@compiled
def widen(halves, found):  # type: ignore[no-untyped-def]
    """Write what the halves mean."""
    for i in range(halves.shape[0]):
        found[i] = rounding.widened(halves[i])


def test_bytes_are_those_of_quantized_rows() -> None:
    """What torch computes, but for numbers that are halfway, within one; the same scales."""
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    rows, scales = np.zeros((5, 48), dtype=rounding.BYTE), np.zeros(5, dtype=np.float32)

    round_rows(x.numpy(), rows, scales)

    expected_rows, expected_scales = int8.quantize_rows(x)
    assert np.abs(rows.astype(int) - expected_rows.numpy().astype(int)).max() <= 1
    np.testing.assert_allclose(scales, expected_scales[:, 0].numpy(), rtol=1e-6)


def test_halves_are_the_nearest_bfloat16() -> None:
    """Bit by bit what torch rounds to, ties among them; room beyond a row is left alone."""
    x = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))
    # Exactly between two halves: the one with an even last bit.
    x[0, :3] = torch.tensor([1.00390625, 1.01171875, -1.00390625])
    rows, scales = np.zeros((4, 64), dtype=rounding.HALF), np.zeros(4, dtype=np.float32)

    round_rows(x.numpy(), rows, scales)

    expected = x.bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(rows[:, :40], expected)
    assert (rows[:, 40:].any(), scales.tolist()) == (False, [1.0] * 4)


def test_widened_halves_are_the_same_numbers() -> None:
    """Each half is a float32 as well."""
    halves = torch.randn(64, generator=torch.Generator().manual_seed(2)).bfloat16()
    found = np.zeros(64, dtype=np.float32)

    widen(halves.view(torch.int16).numpy().view(np.uint16), found)

    np.testing.assert_array_equal(found, halves.float().numpy())
