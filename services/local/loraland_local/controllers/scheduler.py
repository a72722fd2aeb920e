"""Which node a pod may run on. Pure, no I/O.

The rules are those of Kubernetes' default scheduler for what a laptop needs: resource requests,
node selector and required node affinity, taints, cordons. The least loaded fitting node wins.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from loraland_local.apiclient import objects, pod_state, quantities
from loraland_local.apiclient.objects import Object

NOT_READY_TAINT = "node.kubernetes.io/not-ready"


@dataclasses.dataclass(frozen=True)
class Placement:
    """The node to bind to, or why there is none."""

    node_name: str = ""
    message: str = ""


def plan(pod: Object, nodes: Sequence[Object], pods: Iterable[Object]) -> Placement:
    """Choose a node for one pending pod."""
    if not nodes:
        return Placement(message="no nodes available to schedule pods")
    used = _used_by_node(pods)
    requests = requests_of(pod)
    reasons: collections.Counter[str] = collections.Counter()
    fitting: list[tuple[Decimal, str]] = []
    for node in nodes:
        found = _find_obstacles(pod, requests, node, used.get(objects.name(node), {}))
        if found:
            reasons.update(found)
        else:
            load = used.get(objects.name(node), {}).get("cpu", Decimal(0))
            fitting.append((load, objects.name(node)))
    if fitting:
        return Placement(node_name=min(fitting)[1])
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return Placement(message=f"0/{len(nodes)} nodes are available: {listed}.")


def is_waiting(pod: Object) -> bool:
    spec = pod.get("spec") or {}
    return (
        not spec.get("nodeName")
        and not pod_state.is_terminal(pod)
        and not objects.is_deleting(pod)
        and spec.get("schedulerName", "default-scheduler") == "default-scheduler"
    )


def requests_of(pod: Object) -> dict[str, Decimal]:
    """Return what the pod asks for: all containers together, or its largest init container."""
    spec = pod.get("spec") or {}
    totals: dict[str, Decimal] = {}
    for container in spec.get("containers") or []:
        quantities.add(totals, _requests(container))
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            quantities.add(totals, _requests(container))
            continue
        for name, amount in _requests(container).items():
            totals[name] = max(totals.get(name, Decimal(0)), quantities.parse(amount))
    totals["pods"] = Decimal(1)
    return totals


def _requests(container: Object) -> dict[str, str]:
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _used_by_node(pods: Iterable[Object]) -> dict[str, dict[str, Decimal]]:
    used: dict[str, dict[str, Decimal]] = {}
    for pod in pods:
        node_name = (pod.get("spec") or {}).get("nodeName")
        if node_name and not pod_state.is_terminal(pod):
            totals = used.setdefault(node_name, {})
            for name, amount in requests_of(pod).items():
                totals[name] = totals.get(name, Decimal(0)) + amount
    return used


def _find_obstacles(
    pod: Object, requests: Mapping[str, Decimal], node: Object, used: Mapping[str, Decimal]
) -> list[str]:
    if not _is_selected(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if (node.get("spec") or {}).get("unschedulable"):
        return ["node(s) were unschedulable"]
    taint = _find_untolerated(pod, node)
    if taint is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    status = node.get("status") or {}
    offered = status.get("allocatable") or status.get("capacity") or {}
    obstacles = []
    for name, amount in requests.items():
        free = quantities.parse(offered.get(name, "0")) - used.get(name, Decimal(0))
        if amount > free and amount > 0:
            obstacles.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return obstacles


def _find_untolerated(pod: Object, node: Object) -> Object | None:
    taints = list((node.get("spec") or {}).get("taints") or [])
    if not objects.is_condition_true(node, "Ready"):
        taints.append({"key": NOT_READY_TAINT, "effect": "NoSchedule"})
    tolerations = (pod.get("spec") or {}).get("tolerations") or []
    for taint in taints:
        if taint.get("effect") == "PreferNoSchedule":
            continue
        if not any(_tolerates(toleration, taint) for toleration in tolerations):
            return dict(taint)
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("value", "") == taint.get("value", ""))


def _is_selected(pod: Object, node: Object) -> bool:
    spec = pod.get("spec") or {}
    labelled = objects.labels(node)
    if not (spec.get("nodeSelector") or {}).items() <= labelled.items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    fields = {"metadata.name": objects.name(node)}
    return any(
        objects.matches_selector({"matchExpressions": term.get("matchExpressions") or []}, labelled)
        and objects.matches_selector({"matchExpressions": term.get("matchFields") or []}, fields)
        for term in required.get("nodeSelectorTerms") or []
    )
