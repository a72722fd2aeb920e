"""Placement of pods on nodes."""

import pytest
from loraland_local.apiclient.objects import Object
from loraland_local.controllers import scheduler


def node(name: str = "laptop", *, ready: bool = True, **fields: object) -> Object:
    return {
        "metadata": {"name": name, "labels": {"disk": "ssd", "size": "4"}},
        "spec": dict(fields),
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def pod(**fields: object) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], **fields}}


def asking(**amounts: str) -> Object:
    named = {name.replace("_", "/"): amount for name, amount in amounts.items()}
    return pod(containers=[{"name": "c", "resources": {"requests": named}}])


def running(cpu: str) -> Object:
    placed = asking(cpu=cpu)
    placed["spec"]["nodeName"] = "laptop"
    placed["status"] = {"phase": "Running"}
    return placed


def affinity(operator: str, *values: str) -> Object:
    expression = {"key": "size", "operator": operator, "values": list(values)}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    return pod(affinity={"nodeAffinity": {key: term}})


TAINT = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
GPU = {"requests": {"nvidia.com/gpu": "1"}}
SELECTOR = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


@pytest.mark.parametrize(
    ("asked", "nodes", "pods", "expected"),
    [
        pytest.param(pod(), [node()], [], "laptop", id="fits"),
        pytest.param(pod(), [], [], "no nodes available to schedule pods", id="no-node"),
        pytest.param(
            pod(containers=[{"name": "c", "resources": GPU}]),
            [node()],
            [],
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            id="no-gpu",
        ),
        pytest.param(asking(cpu="1500m"), [node()], [running("500m")], "laptop", id="just-fits"),
        pytest.param(
            asking(cpu="1600m", memory="5Gi"),
            [node()],
            [running("500m")],
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.",
            id="too-much",
        ),
        pytest.param(
            pod(),
            [node()],
            [running("0")] * 3,
            "0/1 nodes are available: 1 Too many pods.",
            id="full",
        ),
        pytest.param(pod(nodeSelector={"disk": "ssd"}), [node()], [], "laptop", id="selected"),
        pytest.param(pod(nodeSelector={"disk": "hdd"}), [node()], [], SELECTOR, id="unselected"),
        pytest.param(affinity("In", "4", "8"), [node()], [], "laptop", id="affinity-in"),
        pytest.param(affinity("Gt", "4"), [node()], [], SELECTOR, id="affinity-gt"),
        pytest.param(
            pod(),
            [node(taints=[TAINT])],
            [],
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.",
            id="tainted",
        ),
        pytest.param(
            pod(tolerations=[{"key": "gpu", "operator": "Exists"}]),
            [node(taints=[TAINT])],
            [],
            "laptop",
            id="tolerated",
        ),
        pytest.param(
            pod(),
            [node(unschedulable=True)],
            [],
            "0/1 nodes are available: 1 node(s) were unschedulable.",
            id="cordoned",
        ),
        pytest.param(
            pod(),
            [node(ready=False)],
            [],
            "0/1 nodes are available: 1 node(s) had untolerated taint "
            "{node.kubernetes.io/not-ready: }.",
            id="not-ready",
        ),
        pytest.param(
            asking(cpu="1"), [node(), node("other")], [running("1")], "other", id="least-loaded"
        ),
    ],
)
def test_plan_places_pods(
    asked: Object, nodes: list[Object], pods: list[Object], expected: str
) -> None:
    """A pod gets a node that can have it, or a message that says why none can."""
    placement = scheduler.plan(asked, nodes, pods)

    assert placement.node_name + placement.message == expected
