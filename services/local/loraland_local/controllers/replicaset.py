"""What a ReplicaSet needs next. Pure: ``plan(replica_set, pods, taken, now) -> Plan``, no I/O."""

import copy
import dataclasses
import datetime as dt
from collections.abc import Iterable

from loraland_local.apiclient import objects, pod_state
from loraland_local.apiclient.objects import Object

_MAX_CREATIONS = 50


@dataclasses.dataclass(frozen=True)
class Plan:
    create: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    status: Object | None = None
    requeue_after_s: float | None = None


def plan(
    replica_set: Object, pods: list[Object], taken_names: Iterable[str], now: dt.datetime
) -> Plan:
    """Decide from the pods that the set owns."""
    active = [pod for pod in pods if pod_state.is_active(pod)]
    status, wait_s = _build_status(replica_set, active, now)
    changed = None if status == replica_set.get("status") else status
    if objects.is_deleting(replica_set):
        return Plan(status=changed)
    missing = int(replica_set["spec"].get("replicas", 1)) - len(active)
    create = tuple(_build_pods(replica_set, missing, set(taken_names), now))
    delete = tuple(sorted(active, key=_deletion_rank)[: max(-missing, 0)])
    return Plan(create=create, delete=delete, status=changed, requeue_after_s=wait_s)


def _build_pods(
    replica_set: Object, missing: int, taken: set[str], now: dt.datetime
) -> Iterable[Object]:
    for position in range(min(missing, _MAX_CREATIONS)):
        name = _free_name(replica_set, f"{now.timestamp()}/{position}", taken)
        taken.add(name)
        template = copy.deepcopy(replica_set["spec"]["template"])
        meta = template.get("metadata") or {}
        reference = objects.controller_reference(
            replica_set, api_version="apps/v1", kind="ReplicaSet"
        )
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "generateName": f"{objects.name(replica_set)}-",
                "namespace": objects.namespace(replica_set),
                "labels": dict(meta.get("labels") or {}),
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [reference],
            },
            "spec": template["spec"],
        }


def _free_name(replica_set: Object, seed: str, taken: set[str]) -> str:
    ordinal = 0
    while True:
        suffix = objects.random_suffix(f"{objects.uid(replica_set)}/{seed}/{ordinal}")
        name = f"{objects.name(replica_set)[:57]}-{suffix}"
        if name not in taken:
            return name
        ordinal += 1


def _deletion_rank(pod: Object) -> tuple[bool, bool, bool, float]:
    """Order pods so that those whose loss costs the least come first, of equal ones the newest."""
    created = objects.parse_time(objects.metadata(pod).get("creationTimestamp"))
    return (
        bool((pod.get("spec") or {}).get("nodeName")),
        pod_state.phase(pod) == "Running",
        objects.is_condition_true(pod, "Ready"),
        -created.timestamp() if created else 0.0,
    )


def _build_status(
    replica_set: Object, active: list[Object], now: dt.datetime
) -> tuple[Object, float | None]:
    template = replica_set["spec"]["template"].get("metadata") or {}
    wanted_labels = (template.get("labels") or {}).items()
    ready = [pod for pod in active if objects.is_condition_true(pod, "Ready")]
    waits_s = [wait_s for pod in ready if (wait_s := _available_in_s(replica_set, pod, now)) > 0]
    numbers = {
        "fullyLabeledReplicas": sum(wanted_labels <= objects.labels(p).items() for p in active),
        "readyReplicas": len(ready),
        "availableReplicas": len(ready) - len(waits_s),
    }
    status: Object = {
        **{field: number for field, number in numbers.items() if number},
        "replicas": len(active),
        "observedGeneration": objects.metadata(replica_set).get("generation", 1),
    }
    if (replica_set.get("status") or {}).get("conditions"):
        status["conditions"] = replica_set["status"]["conditions"]
    return status, min(waits_s, default=None)


def _available_in_s(replica_set: Object, pod: Object, now: dt.datetime) -> float:
    minimum_s = float(replica_set["spec"].get("minReadySeconds", 0))
    since = objects.parse_time((objects.condition(pod, "Ready") or {}).get("lastTransitionTime"))
    if minimum_s == 0 or since is None:
        return 0.0
    return minimum_s - (now - since).total_seconds()
