"""Resource quantities."""

from decimal import Decimal

import pytest
from loraland_local.apiclient import quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2", Decimal(2), id="plain"),
        pytest.param("250m", Decimal("0.25"), id="milli"),
        pytest.param("1.5Gi", Decimal(1610612736), id="binary"),
        pytest.param("1G", Decimal(10) ** 9, id="decimal"),
        pytest.param("1e3", Decimal(1000), id="exponent"),
    ],
)
def test_parse_reads_quantities(text: str, expected: Decimal) -> None:
    """Each notation stands for its amount."""
    assert quantities.parse(text) == expected


def test_parse_names_what_is_wrong() -> None:
    """A text that is no quantity is quoted in the error."""
    with pytest.raises(ValueError, match="'12 apples' is no quantity"):
        quantities.parse("12 apples")
