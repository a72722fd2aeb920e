"""Parameters of log requests."""

import datetime as dt

import pytest
from loraland_local.kubelet import server
from loraland_local.kubelet.logs import Query

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({}, Query(), id="nothing"),
        pytest.param(
            {"follow": "true", "timestamps": "1"}, Query(follow=True, timestamps=True), id="flags"
        ),
        pytest.param(
            {"tailLines": "5", "limitBytes": "10"},
            Query(tail_lines=5, limit_bytes=10),
            id="numbers",
        ),
        pytest.param(
            {"sinceSeconds": "60"}, Query(since=NOW - dt.timedelta(minutes=1)), id="since-seconds"
        ),
        pytest.param({"sinceTime": "2026-01-01T12:00:00Z"}, Query(since=NOW), id="since-time"),
    ],
)
def test_query_is_read(parameters: dict[str, str], expected: Query) -> None:
    """Each parameter of the Kubernetes log API has its meaning."""
    assert server.parse_query(parameters, NOW) == expected


def test_bad_number_is_named() -> None:
    """A parameter that is no number is named."""
    with pytest.raises(ValueError, match="tailLines: expected a number, found 'many'"):
        server.parse_query({"tailLines": "many"}, NOW)
