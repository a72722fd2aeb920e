"""Status patches and events, as they are written."""

from typing import Any

import pytest
from loraland_operator import report
from loraland_operator.plan.steps import Note
from operator_objects import NOW, build_job_object


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        pytest.param({"a": 1}, {"a": 1}, {}, id="nothing"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 2}, id="changed"),
        pytest.param({}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="added"),
        pytest.param({"a": 1, "b": 2}, {"b": 2}, {"a": None}, id="removed"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}, id="inner"),
        pytest.param({"a": [1, 2]}, {"a": [2]}, {"a": [2]}, id="list-whole"),
    ],
)
def test_merge_patch(before: dict[str, Any], after: dict[str, Any], patch: dict[str, Any]) -> None:
    """Only what differs is sent; nothing is sent if nothing does."""
    assert patch == report.build_merge_patch(before, after)


def test_event_is_named_by_what_it_says() -> None:
    """The same event has the same name, whoever posts it again; another has another."""
    obj = build_job_object()
    note = Note("Warning", "GateFailed", "0.5 is below 0.9")

    first = report.build_event(obj, note, NOW)
    other = report.build_event(obj, Note("Warning", "GateFailed", "0.6 is below 0.9"), NOW)

    assert first == report.build_event(obj, note, NOW)
    assert first["metadata"]["name"] != other["metadata"]["name"]
    assert first["involvedObject"]["uid"] == obj["metadata"]["uid"]
    assert (first["type"], first["reason"], first["count"]) == ("Warning", "GateFailed", 1)
