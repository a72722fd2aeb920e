"""Eight-bit linears against the float arithmetic that they stand for."""

import pytest
import torch
from loraland_models import int8
from torch import nn


@pytest.fixture(scope="module")
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 96)


def test_int8_linear_is_within_one_percent_of_the_float_one(linear: nn.Linear) -> None:
    """Relative to the largest output, for rows of very different sizes."""
    x = torch.randn(5, 64) * torch.tensor([[0.01], [1.0], [3.0], [10.0], [100.0]])

    with torch.no_grad():
        found, expected = int8.Int8Linear(linear)(x), linear(x)

    largest = expected.abs().amax(dim=1, keepdim=True)
    assert bool(((found - expected).abs() < 0.01 * largest).all())


def test_row_of_int8_linear_does_not_depend_on_the_other_rows(linear: nn.Linear) -> None:
    """The very same numbers alone and beside a row a thousand times as large."""
    quantized = int8.Int8Linear(linear)
    row = torch.randn(1, 64)

    with torch.no_grad():
        alone = quantized(row)
        together = quantized(torch.cat([1000 * torch.randn(3, 64), row]))[3:]

    assert torch.equal(alone, together)


def test_both_kinds_of_int8_product_agree(
    linear: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Integers are exact: with and without byte instructions the product is the same."""
    weight, scale = int8.quantize_weight(linear.weight.detach())
    rows, _ = int8.quantize_rows(torch.randn(4, 64))
    expected = (rows.double() - int8.ZERO_POINT) @ weight.t().double() * scale.double()

    monkeypatch.setattr(int8, "has_byte_products", lambda: False)
    plain = int8.Int8Product(weight, scale).multiply(rows)
    monkeypatch.undo()
    usual = int8.Int8Product(weight, scale).multiply(rows)

    torch.testing.assert_close(plain, expected.float())
    torch.testing.assert_close(usual, expected.float())


def test_row_of_zeros_gives_the_bias(linear: nn.Linear) -> None:
    """No division by a scale of zero."""
    with torch.no_grad():
        found = int8.Int8Linear(linear)(torch.zeros(2, 64))

    assert linear.bias is not None
    torch.testing.assert_close(found, linear.bias.expand(2, -1))
