"""Tests of how long threads wait awake."""

import pytest
from loraland_core import threads


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, {"GOMP_SPINCOUNT": "10000"}, id="nothing chosen"),
        pytest.param({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}, id="count chosen"),
        pytest.param(
            {"OMP_WAIT_POLICY": "passive"}, {"OMP_WAIT_POLICY": "passive"}, id="policy chosen"
        ),
    ],
)
def test_spinning_is_bounded_unless_chosen(given: dict[str, str], expected: dict[str, str]) -> None:
    """Whoever runs a program decides how its threads wait; only then do we."""
    environment = dict(given)
    threads.set_spinning(environment)

    assert environment == expected
