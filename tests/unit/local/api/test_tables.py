"""Tables: columns and cells."""

from typing import Any

import pytest
from loraland_local.api import kinds, pod_status, tables
from loraland_local.api.kinds import CustomVersion, ResourceType

Json = dict[str, Any]


def _pod(status: Json, **metadata: Any) -> Json:
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}
    return {"metadata": {"name": "p", **metadata}, "spec": spec, "status": status}


def _container(state: Json, **more: Any) -> Json:
    return {"containerStatuses": [{"name": "c", "state": state, **more}]}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(_pod({"phase": "Pending"}), "Pending", id="pending"),
        pytest.param(
            _pod({"phase": "Running", **_container({"running": {}}, ready=True)}),
            "Running",
            id="running",
        ),
        pytest.param(
            _pod({"phase": "Running", **_container({"waiting": {"reason": "CrashLoopBackOff"}})}),
            "CrashLoopBackOff",
            id="waiting",
        ),
        pytest.param(
            _pod({"phase": "Failed", **_container({"terminated": {"exitCode": 3}})}),
            "ExitCode:3",
            id="exit code",
        ),
        pytest.param(
            _pod({"phase": "Succeeded", **_container({"terminated": {"reason": "Completed"}})}),
            "Completed",
            id="completed",
        ),
        pytest.param(
            _pod({"phase": "Running"}, deletionTimestamp="2026-01-01T00:00:00Z"),
            "Terminating",
            id="terminating",
        ),
        pytest.param(
            _pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [{"name": "i", "state": {"running": {}}}],
                }
            ),
            "Init:0/1",
            id="initializing",
        ),
    ],
)
def test_pod_status_is_one_word(pod: Json, expected: str) -> None:
    """The most telling of phase, containers and deletion."""
    assert expected == pod_status.reason(pod)


def test_custom_columns_read_by_path() -> None:
    """What a path does not lead to stays empty."""
    columns = (
        {"name": "Size", "type": "string", "jsonPath": ".spec.size"},
        {"name": "Rank", "type": "integer", "jsonPath": ".spec.rank", "priority": 1},
        {"name": "Gone", "type": "string", "jsonPath": ".status.gone"},
    )
    custom = CustomVersion({}, columns, None, (), "v1")
    widget = ResourceType("x.dev", "v1", "widgets", "Widget", "widget", True, custom=custom)
    obj = {"metadata": {"name": "w"}, "spec": {"size": "s", "rank": 8}}

    table = tables.table([obj], tables.layout(widget), {}, "Metadata")

    assert [entry["name"] for entry in table["columnDefinitions"]] == [
        "Name",
        "Size",
        "Rank",
        "Gone",
    ]
    assert table["rows"][0]["cells"] == ["w", "s", 8, None]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    "resource",
    [entry for entry in kinds.BUILTIN if "list" in entry.verbs],
    ids=lambda resource: f"{resource.api_version} {resource.plural}",
)
def test_every_kind_has_a_table(resource: ResourceType) -> None:
    """`kubectl get` prints any kind, however little an object says."""
    obj: Json = {
        "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}},
        "status": {},
        "roleRef": {"kind": "Role", "name": "r"},
    }

    [row] = tables.table([obj], tables.layout(resource), {}, "None")["rows"]

    assert "x" in row["cells"]
