"""What a kubelet makes of the pods of an earlier one."""

import datetime as dt
from typing import Any

import pytest
from loraland_local.kubelet import earlier

Object = dict[str, Any]

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pod(policy: str, state: Object | None) -> Object:
    containers = [{"name": "c", "image": "i"}]
    built: Object = {"spec": {"restartPolicy": policy, "containers": containers}}
    if state is not None:
        told = {"name": "c", "restartCount": 2, "containerID": "loraland://1", "state": state}
        built["status"] = {"containerStatuses": [told]}
    return built


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        pytest.param("Always", None, ("waiting", None, None, 0), id="never-started"),
        pytest.param("Always", {"running": {}}, ("waiting", None, 137, 3), id="is-restarted"),
        pytest.param("Never", {"running": {}}, ("terminated", 137, None, 2), id="is-lost"),
        pytest.param(
            "OnFailure", {"terminated": {"exitCode": 0}}, ("terminated", 0, None, 2), id="was-done"
        ),
        pytest.param(
            "OnFailure", {"terminated": {"exitCode": 5}}, ("waiting", None, 5, 3), id="is-retried"
        ),
    ],
)
def test_container_goes_on_by_its_restart_policy(
    policy: str, state: Object | None, expected: tuple[str, int | None, int | None, int]
) -> None:
    """A lost container is restarted where it may be, and counts as killed otherwise."""
    (record,) = earlier.recall(pod(policy, state), NOW)

    last = record.last_state.get("terminated", {}).get("exitCode")
    found = (next(iter(record.state)), record.exit_code, last, record.restart_count)
    assert found == expected
