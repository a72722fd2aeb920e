"""Conditions follow the Kubernetes API conventions."""

from datetime import UTC, datetime, timedelta

from loraland_core import conditions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def test_new_condition_is_appended_with_its_time() -> None:
    """The first sight of a condition is its first transition."""
    (ready,) = conditions.set_condition(
        [], "Ready", "Unknown", reason="Pending", now=NOW, observed_generation=3
    )

    assert (ready.type, ready.status, ready.observed_generation) == ("Ready", "Unknown", 3)
    assert ready.last_transition_time == "2026-01-01T00:00:00Z"


def test_transition_time_stays_when_only_the_reason_changes() -> None:
    """A time that moves without the status would make every reconcile a write."""
    before = conditions.set_condition(
        [], "Ready", "False", reason="NoLiveReplica", now=NOW, observed_generation=1
    )
    after = conditions.set_condition(
        before, "Ready", "False", reason="RejectedByReplica", now=LATER, observed_generation=2
    )

    assert after[0].last_transition_time == before[0].last_transition_time
    assert (after[0].reason, after[0].observed_generation) == ("RejectedByReplica", 2)


def test_transition_time_moves_with_the_status() -> None:
    """A change of status is dated."""
    before = conditions.set_condition(
        [], "Ready", "False", reason="NoLiveReplica", now=NOW, observed_generation=1
    )
    after = conditions.set_condition(
        before, "Ready", "True", reason="Serving", now=LATER, observed_generation=1
    )

    assert after[0].last_transition_time == "2026-01-01T00:05:00Z"
    assert conditions.is_true(after, "Ready")


def test_other_conditions_keep_their_place() -> None:
    """Setting one condition leaves the others alone."""
    both = conditions.set_condition(
        conditions.set_condition(
            [], "Accepted", "True", reason="SpecAccepted", now=NOW, observed_generation=1
        ),
        "Ready",
        "False",
        reason="NoLiveReplica",
        now=NOW,
        observed_generation=1,
    )
    after = conditions.set_condition(
        both, "Accepted", "False", reason="UnknownBaseModel", now=LATER, observed_generation=2
    )

    assert [c.type for c in after] == ["Accepted", "Ready"]
    assert after[1] == both[1]


def test_timestamp_is_read_back() -> None:
    """Kubernetes times survive a round trip at whole seconds."""
    assert conditions.parse_timestamp(conditions.timestamp(LATER)) == LATER
