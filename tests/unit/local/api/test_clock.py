"""Ages as kubectl writes them."""

import pytest
from loraland_local.api import clock


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (3600, "60m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 660, "3h11m"),
        (20 * 3600, "20h"),
        (3 * 86400 + 7200, "3d2h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y70d"),
        (-1, "0s"),
        (-60, "<invalid>"),
    ],
)
def test_age_has_two_units_at_most(seconds: int, expected: str) -> None:
    """The older, the coarser."""
    assert expected == clock.duration(seconds)


def test_unknown_time_has_no_age() -> None:
    """What has not happened is shown as unknown."""
    assert clock.age(None) == "<unknown>"
