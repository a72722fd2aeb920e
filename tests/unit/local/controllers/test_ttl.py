"""How long finished jobs and events stay."""

import datetime as dt

import pytest
from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import ttl

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def ago(seconds: float) -> str:
    return objects.format_time(NOW - dt.timedelta(seconds=seconds))


def job(ttl_s: int | None, finished_ago_s: float | None) -> Object:
    spec = {} if ttl_s is None else {"ttlSecondsAfterFinished": ttl_s}
    found: Object = {"metadata": {}, "spec": spec, "status": {}}
    if finished_ago_s is not None:
        condition = {"type": "Failed", "status": "True", "lastTransitionTime": ago(finished_ago_s)}
        found["status"]["conditions"] = [condition]
    return found


@pytest.mark.parametrize(
    ("ttl_s", "finished_ago_s", "expected"),
    [
        pytest.param(None, 5, None, id="no-ttl"),
        pytest.param(10, None, None, id="still-running"),
        pytest.param(10, 4, 6.0, id="not-yet"),
        pytest.param(0, 0, 0.0, id="at-once"),
    ],
)
def test_finished_jobs_stay_for_their_ttl(
    ttl_s: int | None, finished_ago_s: float | None, expected: float | None
) -> None:
    """Only a finished job with a time to live has an end to wait for."""
    assert ttl.job_left_s(job(ttl_s, finished_ago_s), NOW) == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param({"lastTimestamp": ago(3601)}, True, id="old"),
        pytest.param({"lastTimestamp": ago(3599)}, False, id="recent"),
        pytest.param(
            {"eventTime": ago(9999), "series": {"lastObservedTime": ago(5)}}, False, id="repeated"
        ),
        pytest.param(
            {"metadata": {"creationTimestamp": ago(7200)}}, True, id="no-times-of-its-own"
        ),
    ],
)
def test_events_go_after_an_hour_of_silence(event: Object, expected: bool) -> None:
    """The last time that an event happened counts."""
    assert ttl.is_event_outdated(event, NOW) is expected
