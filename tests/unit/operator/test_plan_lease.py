"""Who may lead."""

from datetime import UTC, datetime
from typing import Any

import pytest
from loraland_operator.plan import lease

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def held_by(holder: str, **more: Any) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 10, "leaseTransitions": 4, **more}
    return {"metadata": {"resourceVersion": "7"}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "unchanged_for_s", "expected"),
    [
        pytest.param(None, 0, True, id="there-is-none"),
        pytest.param(held_by(""), 0, True, id="released"),
        pytest.param(held_by("me"), 0, True, id="mine"),
        pytest.param(held_by("other"), 9.9, False, id="anothers"),
        pytest.param(held_by("other"), 10.0, True, id="anothers-not-renewed"),
        pytest.param(held_by("other", leaseDurationSeconds=30), 29, False, id="by-its-duration"),
    ],
)
def test_lease_may_be_taken(found: Any, unchanged_for_s: float, expected: bool) -> None:
    """Free, mine, or not renewed for as long as it says."""
    assert lease.may_take(found, "me", unchanged_for_s=unchanged_for_s) is expected


def test_taking_over_counts_a_transition() -> None:
    """A new holder starts its own time."""
    expected = {
        "holderIdentity": "me",
        "leaseDurationSeconds": 10,
        "acquireTime": "2026-11-24T12:00:00.000000Z",
        "renewTime": "2026-11-24T12:00:00.000000Z",
        "leaseTransitions": 5,
    }

    assert lease.next_spec(held_by("other"), "me", NOON) == expected


def test_renewing_keeps_the_time_of_acquisition() -> None:
    """Only the renewal is news."""
    before = held_by("me", acquireTime="then", renewTime="then")

    found = lease.next_spec(before, "me", NOON)

    assert found == {**before["spec"], "renewTime": "2026-11-24T12:00:00.000000Z"}


def test_released_lease_may_be_taken_by_anyone() -> None:
    """The next one need not wait for expiry."""
    released = {"spec": lease.released_spec(held_by("me"))}

    assert lease.may_take(released, "other", unchanged_for_s=0)
