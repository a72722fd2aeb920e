"""Printer columns of built-in kinds. No I/O; a cell reads one object."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

from . import clock, pod_status
from .kinds import ResourceType

Json = dict[str, Any]
Cell = Callable[[Json], Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """One column; ``priority`` 1 shows only with ``-o wide``."""

    name: str
    cell: Cell
    kind: str = "string"
    priority: int = 0
    form: str = ""
    description: str = ""


def _spec(path: str, default: Any = "") -> Cell:
    parts = path.split(".")

    def cell(obj: Json) -> Any:
        value: Any = obj
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def _age(obj: Json) -> str:
    return clock.age(obj["metadata"].get("creationTimestamp"))


AGE = Column("Age", _age, description="Time since the object was created.")
CREATED = Column("Created At", _spec("metadata.creationTimestamp"), "date")


def _template(obj: Json) -> Json:
    spec: Json = obj["spec"]
    owner: Json = (spec.get("jobTemplate") or {}).get("spec") or spec
    template: Json = (owner.get("template") or {}).get("spec") or {}
    return template


def _names(obj: Json) -> str:
    return ",".join(entry["name"] for entry in _template(obj).get("containers") or [])


def _images(obj: Json) -> str:
    return ",".join(entry.get("image", "") for entry in _template(obj).get("containers") or [])


def selector_text(selector: Json | None) -> str:
    if not selector:
        return "<none>"
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    parts = [f"{key}={value}" for key, value in sorted(labels.items())]
    for entry in selector.get("matchExpressions") or []:
        values = ",".join(sorted(entry.get("values") or []))
        operator = entry["operator"]
        if operator in {"In", "NotIn"}:
            parts.append(f"{entry['key']} {operator.lower()} ({values})")
        else:
            parts.append(("!" if operator == "DoesNotExist" else "") + entry["key"])
    return ",".join(parts) or "<none>"


def _selector(obj: Json) -> str:
    return selector_text(obj["spec"].get("selector"))


def _ratio(ready: str, wanted: str) -> Cell:
    have, want = _spec(ready, 0), _spec(wanted, 0)
    return lambda obj: f"{have(obj)}/{want(obj)}"


WORKLOAD = (
    Column("Containers", _names, priority=1),
    Column("Images", _images, priority=1),
)
SELECTOR = Column("Selector", _selector, priority=1)


def _job_status(obj: Json) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    true = {entry["type"] for entry in conditions if entry.get("status") == "True"}
    if obj["metadata"].get("deletionTimestamp"):
        true.add("Terminating")
    order = (
        *("Complete", "Failed", "Terminating", "Suspended"),
        *("FailureTarget", "SuccessCriteriaMet"),
    )
    return next((name for name in order if name in true), "Running")


def _completions(obj: Json) -> str:
    succeeded = (obj.get("status") or {}).get("succeeded", 0)
    wanted, parallelism = obj["spec"].get("completions"), obj["spec"].get("parallelism", 0)
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _job_duration(obj: Json) -> str:
    status = obj.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime") or next(
        (
            c.get("lastTransitionTime")
            for c in status.get("conditions") or []
            if c["type"] == "Failed" and c["status"] == "True"
        ),
        None,
    )
    if end is None:
        return clock.age(status["startTime"])
    moment = dt.datetime.fromisoformat(end.replace("Z", "+00:00"))
    return clock.age(status["startTime"], moment)


def _ports(obj: Json) -> str:
    parts = []
    for port in obj["spec"].get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        parts.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(parts) or "<none>"


def _external(obj: Json) -> str:
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    if spec.get("type") == "LoadBalancer":
        found = (obj.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
        return ",".join(one.get("ip") or one.get("hostname", "") for one in found) or "<pending>"
    return ",".join(spec.get("externalIPs") or []) or "<none>"


def _node_status(obj: Json) -> str:
    ready = [
        "Ready" if condition["status"] == "True" else "NotReady"
        for condition in (obj.get("status") or {}).get("conditions") or []
        if condition["type"] == "Ready"
    ] or ["Unknown"]
    if obj["spec"].get("unschedulable"):
        ready.append("SchedulingDisabled")
    return ",".join(ready)


def _roles(obj: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    found = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    return ",".join(found) or "<none>"


def _address(kind: str) -> Cell:
    def cell(obj: Json) -> str:
        for address in (obj.get("status") or {}).get("addresses") or []:
            if address["type"] == kind:
                return str(address["address"])
        return "<none>"

    return cell


def _event_age(first: bool) -> Cell:
    def cell(obj: Json) -> str:
        names = ("firstTimestamp",) if first else ("lastTimestamp", "firstTimestamp")
        times = [obj.get(name) for name in names] + [obj.get("eventTime")]
        series = (obj.get("series") or {}).get("lastObservedTime")
        times = times if first else [series, *times]
        return clock.age(next((time for time in times if time), None))

    return cell


def _event_object(obj: Json) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_source(obj: Json) -> str:
    source = obj.get("source") or {}
    host = f", {source['host']}" if source.get("host") else ""
    return f"{source.get('component') or obj.get('reportingComponent') or ''}{host}"


def _size(name: str) -> Cell:
    return lambda obj: len(obj.get(name) or {})


def _data_size(obj: Json) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _role_ref(obj: Json) -> str:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def _flag(path: str) -> Cell:
    value = _spec(path)
    return lambda obj: str(value(obj)).lower()


_REPLICAS = (
    Column("Desired", _spec("spec.replicas", 0), "integer"),
    Column("Current", _spec("status.replicas", 0), "integer"),
    Column("Ready", _spec("status.readyReplicas", 0), "integer"),
    AGE,
    *WORKLOAD,
    SELECTOR,
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        Column("Ready", pod_status.ready_text),
        Column("Status", pod_status.reason),
        Column("Restarts", pod_status.restarts),
        AGE,
        Column("IP", _spec("status.podIP", "<none>"), priority=1),
        Column("Node", _spec("spec.nodeName", "<none>"), priority=1),
        Column("Nominated Node", _spec("status.nominatedNodeName", "<none>"), priority=1),
        Column("Readiness Gates", pod_status.readiness_gates, priority=1),
    ),
    "ReplicationController": _REPLICAS,
    "ReplicaSet": _REPLICAS,
    "Service": (
        Column("Type", _spec("spec.type")),
        Column("Cluster-IP", _spec("spec.clusterIP", "<none>")),
        Column("External-IP", _external),
        Column("Port(s)", _ports),
        AGE,
        SELECTOR,
    ),
    "DaemonSet": (
        Column("Desired", _spec("status.desiredNumberScheduled", 0), "integer"),
        Column("Current", _spec("status.currentNumberScheduled", 0), "integer"),
        Column("Ready", _spec("status.numberReady", 0), "integer"),
        Column("Up-to-date", _spec("status.updatedNumberScheduled", 0), "integer"),
        Column("Available", _spec("status.numberAvailable", 0), "integer"),
        Column("Node Selector", lambda obj: selector_text(_template(obj).get("nodeSelector"))),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "Deployment": (
        Column("Ready", _ratio("status.readyReplicas", "spec.replicas")),
        Column("Up-to-date", _spec("status.updatedReplicas", 0)),
        Column("Available", _spec("status.availableReplicas", 0)),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "StatefulSet": (
        Column("Ready", _ratio("status.readyReplicas", "spec.replicas")),
        AGE,
        *WORKLOAD,
    ),
    "HorizontalPodAutoscaler": (
        Column(
            "Reference",
            lambda obj: "{kind}/{name}".format(**obj["spec"]["scaleTargetRef"]),
        ),
        Column("Targets", lambda _: "<unknown>"),
        Column("MinPods", lambda obj: str(obj["spec"].get("minReplicas", "<unset>"))),
        Column("MaxPods", _spec("spec.maxReplicas", 0)),
        Column("Replicas", _spec("status.currentReplicas", 0)),
        AGE,
    ),
    "CronJob": (
        Column("Schedule", _spec("spec.schedule")),
        Column("Timezone", _spec("spec.timeZone", "<none>")),
        Column("Suspend", _flag("spec.suspend"), "boolean"),
        Column("Active", lambda obj: len((obj.get("status") or {}).get("active") or []), "integer"),
        Column(
            "Last Schedule",
            lambda obj: (
                clock.age(obj["status"]["lastScheduleTime"])
                if (obj.get("status") or {}).get("lastScheduleTime")
                else "<none>"
            ),
        ),
        AGE,
        *WORKLOAD,
        Column("Selector", lambda _: "<none>", priority=1),
    ),
    "Job": (
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", _job_duration),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "Namespace": (Column("Status", _spec("status.phase")), AGE),
    "Node": (
        Column("Status", _node_status),
        Column("Roles", _roles),
        AGE,
        Column("Version", _spec("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", _spec("status.nodeInfo.osImage", "<unknown>"), priority=1),
        Column("Kernel-Version", _spec("status.nodeInfo.kernelVersion", "<unknown>"), priority=1),
        Column(
            "Container-Runtime",
            _spec("status.nodeInfo.containerRuntimeVersion", "<unknown>"),
            priority=1,
        ),
    ),
    "Event": (
        Column("Last Seen", _event_age(first=False)),
        Column("Type", _spec("type")),
        Column("Reason", _spec("reason")),
        Column("Object", _event_object),
        Column("Subobject", _spec("involvedObject.fieldPath"), priority=1),
        Column("Source", _event_source, priority=1),
        Column("Message", lambda obj: str(obj.get("message") or "").strip()),
        Column("First Seen", _event_age(first=True), priority=1),
        Column("Count", lambda obj: obj.get("count") or 1, priority=1),
        Column("Name", _spec("metadata.name"), priority=1, form="name"),
    ),
    "ConfigMap": (Column("Data", _data_size), AGE),
    "Secret": (
        Column("Type", _spec("type")),
        Column("Data", _size("data"), "integer"),
        AGE,
    ),
    "ServiceAccount": (Column("Secrets", lambda obj: len(obj.get("secrets") or [])), AGE),
    "Endpoints": (
        Column(
            "Endpoints",
            lambda obj: (
                ",".join(
                    f"{address['ip']}:{port['port']}"
                    for subset in obj.get("subsets") or []
                    for address in subset.get("addresses") or []
                    for port in subset.get("ports") or []
                )
                or "<none>"
            ),
        ),
        AGE,
    ),
    "PersistentVolumeClaim": (
        Column("Status", _spec("status.phase")),
        Column("Volume", _spec("spec.volumeName")),
        Column("Capacity", _spec("status.capacity.storage")),
        Column("Access Modes", lambda obj: _modes(obj["spec"].get("accessModes"))),
        Column("StorageClass", _spec("spec.storageClassName")),
        AGE,
    ),
    "Lease": (Column("Holder", _spec("spec.holderIdentity")), AGE),
    "RoleBinding": (Column("Role", _role_ref), AGE),
    "ClusterRoleBinding": (Column("Role", _role_ref), AGE),
    "PriorityClass": (
        Column("Value", _spec("value", 0), "integer"),
        Column("Global-Default", lambda obj: bool(obj.get("globalDefault")), "boolean"),
        AGE,
        Column("PreemptionPolicy", _spec("preemptionPolicy")),
    ),
    "PodDisruptionBudget": (
        Column("Min Available", lambda obj: str(obj["spec"].get("minAvailable", "N/A"))),
        Column("Max Unavailable", lambda obj: str(obj["spec"].get("maxUnavailable", "N/A"))),
        Column("Allowed Disruptions", _spec("status.disruptionsAllowed", 0), "integer"),
        AGE,
    ),
    "NetworkPolicy": (
        Column("Pod-Selector", lambda obj: selector_text(obj["spec"].get("podSelector"))),
        AGE,
    ),
}
_CREATED_AT = {"Role", "ClusterRole", "CustomResourceDefinition"}


def _modes(modes: list[str] | None) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX"}
    return ",".join(short.get(mode, mode) for mode in modes or [])


def of(resource: ResourceType) -> tuple[Column, ...]:
    if resource.kind in _CREATED_AT:
        return (CREATED,)
    return COLUMNS.get(resource.kind, (AGE,))
