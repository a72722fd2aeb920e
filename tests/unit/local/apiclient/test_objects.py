"""Reading and building API objects."""

import datetime as dt
from typing import Any

import pytest
from loraland_local.apiclient import objects, resources

Object = dict[str, Any]

THEN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
NOW = THEN + dt.timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "moved"),
    [pytest.param("True", False, id="same-status"), pytest.param("False", True, id="new-status")],
)
def test_transition_time_moves_with_the_status_only(status: str, moved: bool) -> None:
    """A new message alone is no transition."""
    before = objects.with_condition([], "Ready", "True", now=THEN, message="a")
    (after,) = objects.with_condition(before, "Ready", status, now=NOW, message="b")

    expected = objects.format_time(NOW if moved else THEN)
    assert (after["message"], after["lastTransitionTime"]) == ("b", expected)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param(None, False, id="no-selector"),
        pytest.param({}, True, id="empty-selects-all"),
        pytest.param({"matchLabels": {"a": "1"}}, True, id="label"),
        pytest.param({"matchLabels": {"a": "2"}}, False, id="other-value"),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, True, id="in"
        ),
        pytest.param(
            {"matchExpressions": [{"key": "z", "operator": "NotIn", "values": ["1"]}]},
            True,
            id="not-in-holds-for-the-absent",
        ),
        pytest.param(
            {"matchExpressions": [{"key": "z", "operator": "Exists"}]}, False, id="exists"
        ),
        pytest.param(
            {"matchExpressions": [{"key": "z", "operator": "DoesNotExist"}]}, True, id="absent"
        ),
    ],
)
def test_selector_meets_labels(selector: Object | None, expected: bool) -> None:
    """Label selectors select as in Kubernetes."""
    assert objects.matches_selector(selector, {"a": "1"}) is expected


@pytest.mark.parametrize(
    ("resource", "arguments", "expected"),
    [
        pytest.param(resources.PODS, (), "/api/v1/pods", id="all"),
        pytest.param(
            resources.PODS, ("n", "p", "status"), "/api/v1/namespaces/n/pods/p/status", id="one"
        ),
        pytest.param(resources.NODES, ("", "x"), "/api/v1/nodes/x", id="cluster-scoped"),
        pytest.param(resources.JOBS, ("n",), "/apis/batch/v1/namespaces/n/jobs", id="group"),
    ],
)
def test_path_leads_to_the_resource(
    resource: resources.Resource, arguments: tuple[str, ...], expected: str
) -> None:
    """Paths are those of the Kubernetes API."""
    assert resource.path(*arguments) == expected
