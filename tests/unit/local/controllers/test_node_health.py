"""Nodes that fall silent."""

import datetime as dt
from typing import Any

import pytest
from loraland_local.apiclient import objects
from loraland_local.controllers import node_health

Object = dict[str, Any]

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def ago(seconds: float) -> str:
    return objects.format_time(NOW - dt.timedelta(seconds=seconds))


def node(heartbeat_ago_s: float, status: str = "True") -> Object:
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": ago(heartbeat_ago_s)}
    return {"metadata": {"name": "n"}, "status": {"conditions": [ready]}}


@pytest.mark.parametrize(
    ("found", "lease_ago_s", "is_silent"),
    [
        pytest.param(node(900), 10, False, id="lease-is-fresh"),
        pytest.param(node(10), None, False, id="heartbeat-is-fresh"),
        pytest.param(node(900), 41, True, id="silent"),
        pytest.param(node(41), None, True, id="never-had-a-lease"),
        pytest.param(node(900, "Unknown"), 900, False, id="is-known-to-be-silent"),
        pytest.param({"metadata": {"name": "n"}}, None, False, id="is-just-registering"),
    ],
)
def test_silence_is_judged_by_lease_and_heartbeat(
    found: Object, lease_ago_s: float | None, is_silent: bool
) -> None:
    """Only a node that was heard of and then was not for forty seconds is silent."""
    lease = None if lease_ago_s is None else {"spec": {"renewTime": ago(lease_ago_s)}}
    conditions = node_health.judge(found, lease, NOW)

    expected = {"Unknown"} if is_silent else set()
    assert {condition["status"] for condition in conditions or []} == expected
