"""Kubernetes quantities."""

import pytest
from loraland_local.api import quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500m", 0.5), ("1Ki", 1024), ("2k", 2000), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000), ("7", 7)],
)
def test_quantities_are_numbers(text: str, expected: float) -> None:
    """Suffixes are powers of ten or of two."""
    assert expected == float(quantities.parse(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        ("2000", "2k"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("512Ki", "512Ki"),
        ("0", "0"),
        ("0Gi", "0"),
        ("1e3", "1k"),
        ("100", "100"),
        ("-2000m", "-2"),
    ],
)
def test_each_amount_is_written_one_way(text: str, expected: str) -> None:
    """Without a fraction, with the largest suffix that allows that."""
    assert expected == quantities.canonical(text)


def test_no_quantity_is_named() -> None:
    """The message says what was found and what is wanted."""
    with pytest.raises(ValueError, match="'lots' is not a quantity"):
        quantities.parse("lots")
