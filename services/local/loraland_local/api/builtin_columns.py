"""Printer columns of built-in kinds. No I/O; a cell reads one object."""

from __future__ import annotations

import dataclasses

from . import cells, pod_status
from .cells import Cell
from .kinds import ResourceType


@dataclasses.dataclass(frozen=True)
class Column:
    """One column; ``priority`` 1 shows only with ``-o wide``."""

    name: str
    cell: Cell
    kind: str = "string"
    priority: int = 0
    form: str = ""
    description: str = ""


AGE = Column("Age", cells.age, description="Time since the object was created.")
CREATED = Column("Created At", cells.field("metadata.creationTimestamp"), "date")


WORKLOAD = (
    Column("Containers", cells.containers, priority=1),
    Column("Images", cells.images, priority=1),
)
SELECTOR = Column("Selector", cells.selector, priority=1)


_REPLICAS = (
    Column("Desired", cells.field("spec.replicas", 0), "integer"),
    Column("Current", cells.field("status.replicas", 0), "integer"),
    Column("Ready", cells.field("status.readyReplicas", 0), "integer"),
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
        Column("IP", cells.field("status.podIP", "<none>"), priority=1),
        Column("Node", cells.field("spec.nodeName", "<none>"), priority=1),
        Column("Nominated Node", cells.field("status.nominatedNodeName", "<none>"), priority=1),
        Column("Readiness Gates", pod_status.readiness_gates, priority=1),
    ),
    "ReplicationController": _REPLICAS,
    "ReplicaSet": _REPLICAS,
    "Service": (
        Column("Type", cells.field("spec.type")),
        Column("Cluster-IP", cells.field("spec.clusterIP", "<none>")),
        Column("External-IP", cells.external_address),
        Column("Port(s)", cells.ports),
        AGE,
        SELECTOR,
    ),
    "DaemonSet": (
        Column("Desired", cells.field("status.desiredNumberScheduled", 0), "integer"),
        Column("Current", cells.field("status.currentNumberScheduled", 0), "integer"),
        Column("Ready", cells.field("status.numberReady", 0), "integer"),
        Column("Up-to-date", cells.field("status.updatedNumberScheduled", 0), "integer"),
        Column("Available", cells.field("status.numberAvailable", 0), "integer"),
        Column(
            "Node Selector",
            lambda obj: cells.selector_text(cells.template(obj).get("nodeSelector")),
        ),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "Deployment": (
        Column("Ready", cells.ratio("status.readyReplicas", "spec.replicas")),
        Column("Up-to-date", cells.field("status.updatedReplicas", 0)),
        Column("Available", cells.field("status.availableReplicas", 0)),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "StatefulSet": (
        Column("Ready", cells.ratio("status.readyReplicas", "spec.replicas")),
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
        Column("MaxPods", cells.field("spec.maxReplicas", 0)),
        Column("Replicas", cells.field("status.currentReplicas", 0)),
        AGE,
    ),
    "CronJob": (
        Column("Schedule", cells.field("spec.schedule")),
        Column("Timezone", cells.field("spec.timeZone", "<none>")),
        Column("Suspend", cells.flag("spec.suspend"), "boolean"),
        Column("Active", lambda obj: len((obj.get("status") or {}).get("active") or []), "integer"),
        Column("Last Schedule", cells.last_schedule),
        AGE,
        *WORKLOAD,
        Column("Selector", lambda _: "<none>", priority=1),
    ),
    "Job": (
        Column("Status", cells.job_status),
        Column("Completions", cells.completions),
        Column("Duration", cells.job_duration),
        AGE,
        *WORKLOAD,
        SELECTOR,
    ),
    "Namespace": (Column("Status", cells.field("status.phase")), AGE),
    "Node": (
        Column("Status", cells.node_status),
        Column("Roles", cells.roles),
        AGE,
        Column("Version", cells.field("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", cells.node_address("InternalIP"), priority=1),
        Column("External-IP", cells.node_address("ExternalIP"), priority=1),
        Column("OS-Image", cells.field("status.nodeInfo.osImage", "<unknown>"), priority=1),
        Column(
            "Kernel-Version", cells.field("status.nodeInfo.kernelVersion", "<unknown>"), priority=1
        ),
        Column(
            "Container-Runtime",
            cells.field("status.nodeInfo.containerRuntimeVersion", "<unknown>"),
            priority=1,
        ),
    ),
    "Event": (
        Column("Last Seen", cells.event_age(first=False)),
        Column("Type", cells.field("type")),
        Column("Reason", cells.field("reason")),
        Column("Object", cells.event_object),
        Column("Subobject", cells.field("involvedObject.fieldPath"), priority=1),
        Column("Source", cells.event_source, priority=1),
        Column("Message", lambda obj: str(obj.get("message") or "").strip()),
        Column("First Seen", cells.event_age(first=True), priority=1),
        Column("Count", lambda obj: obj.get("count") or 1, priority=1),
        Column("Name", cells.field("metadata.name"), priority=1, form="name"),
    ),
    "ConfigMap": (Column("Data", cells.data_size), AGE),
    "Secret": (
        Column("Type", cells.field("type")),
        Column("Data", cells.size("data"), "integer"),
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
        Column("Status", cells.field("status.phase")),
        Column("Volume", cells.field("spec.volumeName")),
        Column("Capacity", cells.field("status.capacity.storage")),
        Column("Access Modes", lambda obj: cells.access_modes(obj["spec"].get("accessModes"))),
        Column("StorageClass", cells.field("spec.storageClassName")),
        AGE,
    ),
    "Lease": (Column("Holder", cells.field("spec.holderIdentity")), AGE),
    "RoleBinding": (Column("Role", cells.role_reference), AGE),
    "ClusterRoleBinding": (Column("Role", cells.role_reference), AGE),
    "PriorityClass": (
        Column("Value", cells.field("value", 0), "integer"),
        Column("Global-Default", lambda obj: bool(obj.get("globalDefault")), "boolean"),
        AGE,
        Column("PreemptionPolicy", cells.field("preemptionPolicy")),
    ),
    "PodDisruptionBudget": (
        Column("Min Available", lambda obj: str(obj["spec"].get("minAvailable", "N/A"))),
        Column("Max Unavailable", lambda obj: str(obj["spec"].get("maxUnavailable", "N/A"))),
        Column("Allowed Disruptions", cells.field("status.disruptionsAllowed", 0), "integer"),
        AGE,
    ),
    "PersistentVolume": (
        Column("Capacity", cells.field("spec.capacity.storage")),
        Column("Access Modes", lambda obj: cells.access_modes(obj["spec"].get("accessModes"))),
        Column("Reclaim Policy", cells.field("spec.persistentVolumeReclaimPolicy")),
        Column("Status", cells.field("status.phase")),
        Column("Claim", cells.claim),
        Column("StorageClass", cells.field("spec.storageClassName")),
        AGE,
    ),
    "StorageClass": (
        Column("Provisioner", cells.field("provisioner")),
        Column("ReclaimPolicy", cells.field("reclaimPolicy")),
        Column("VolumeBindingMode", cells.field("volumeBindingMode")),
        Column("AllowVolumeExpansion", cells.flag("allowVolumeExpansion")),
        AGE,
    ),
    "ResourceQuota": (
        Column("Request", cells.quota(limits=False)),
        Column("Limit", cells.quota(limits=True)),
        AGE,
    ),
    "Ingress": (
        Column("Class", cells.field("spec.ingressClassName", "<none>")),
        Column("Hosts", cells.hosts),
        Column("Address", lambda _: ""),
        Column("Ports", lambda obj: "80, 443" if obj["spec"].get("tls") else "80"),
        AGE,
    ),
    "RuntimeClass": (Column("Handler", cells.field("handler")), AGE),
    "IngressClass": (
        Column("Controller", cells.field("spec.controller")),
        Column("Parameters", lambda _: "<none>"),
        AGE,
    ),
    "NetworkPolicy": (
        Column("Pod-Selector", lambda obj: cells.selector_text(obj["spec"].get("podSelector"))),
        AGE,
    ),
}
_CREATED_AT = {"Role", "ClusterRole", "CustomResourceDefinition", "LimitRange"}


def of(resource: ResourceType) -> tuple[Column, ...]:
    if resource.kind in _CREATED_AT:
        return (CREATED,)
    return COLUMNS.get(resource.kind, (AGE,))
