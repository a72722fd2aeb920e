"""ReplicaSets: as many pods as asked for."""

import datetime as dt

import pytest
from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import replicaset

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def replica_set(replicas: int, **spec: object) -> Object:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}}
    return {
        "metadata": {"name": "r", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {"replicas": replicas, "template": template, **spec},
    }


def pod(name: str, phase: str = "Running", *, ready_for_s: float | None = 60) -> Object:
    conditions = []
    if ready_for_s is not None:
        since = objects.format_time(NOW - dt.timedelta(seconds=ready_for_s))
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    return {
        "metadata": {"name": name, "namespace": "n", "labels": {"app": "a"}},
        "spec": {"nodeName": "x"},
        "status": {"phase": phase, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("replicas", "pods", "expected"),
    [
        pytest.param(2, [], (2, []), id="creates-all"),
        pytest.param(2, [pod("a"), pod("b")], (0, []), id="enough"),
        pytest.param(2, [pod("a"), pod("b", "Failed")], (1, []), id="replaces-a-failed-one"),
        pytest.param(1, [pod("a"), pod("b", ready_for_s=None)], (0, ["b"]), id="unready-goes"),
        pytest.param(1, [pod("a", "Pending"), pod("b")], (0, ["a"]), id="pending-goes"),
        pytest.param(0, [pod("a"), pod("b")], (0, ["a", "b"]), id="none-wanted"),
    ],
)
def test_pods_follow_replicas(
    replicas: int, pods: list[Object], expected: tuple[int, list[str]]
) -> None:
    """Missing pods are created, and of too many the least useful are deleted."""
    plan = replicaset.plan(replica_set(replicas), pods, [objects.name(p) for p in pods], NOW)

    assert (len(plan.create), [objects.name(p) for p in plan.delete]) == expected


def test_pods_have_owner_labels_and_distinct_names() -> None:
    """New pods belong to the set and do not take each other's names."""
    plan = replicaset.plan(replica_set(3), [], [], NOW)

    owners = {(objects.controller_of(created) or {}).get("uid") for created in plan.create}
    assert len({objects.name(created) for created in plan.create}) == 3
    assert owners == {"u"}
    assert objects.labels(plan.create[0]) == {"app": "a"}


def test_status_counts_available_pods_after_min_ready_seconds() -> None:
    """A pod that is ready for less than ``minReadySeconds`` is not available yet."""
    pods = [pod("a", ready_for_s=60), pod("b", ready_for_s=4)]
    plan = replicaset.plan(replica_set(2, minReadySeconds=10), pods, [], NOW)

    expected = {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "observedGeneration": 2,
    }
    assert (plan.status, plan.requeue_after_s) == (expected, 6.0)
