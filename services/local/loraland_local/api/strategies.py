"""What each kind does to an object on its way in: server-set fields, status, generation. No I/O."""

from __future__ import annotations

import copy
from typing import Any

from . import crds, kinds, validity
from .errors import Cause
from .kinds import ResourceType

Json = dict[str, Any]

# These are created with the status that their creator gives them.
_KEEPS_STATUS = {"Node", "APIService", "VolumeAttachment"}
_FIRST_STATUS: dict[str, Json] = {
    "Namespace": {"phase": "Active"},
    "PersistentVolume": {"phase": "Pending"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "Service": {"loadBalancer": {}},
    "Ingress": {"loadBalancer": {}},
    "DaemonSet": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "ReplicaSet": {"replicas": 0},
    "ReplicationController": {"replicas": 0},
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "PodDisruptionBudget": {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
    "HorizontalPodAutoscaler": {"desiredReplicas": 0, "currentMetrics": None},
}


def prepare_create(obj: Json, resource: ResourceType) -> Json:
    """Return the object as its kind stores a new one; metadata is complete already."""
    obj = dict(obj)
    if resource.has_status and resource.kind not in _KEEPS_STATUS:
        obj.pop("status", None)
        if resource.custom is None:
            obj["status"] = copy.deepcopy(_FIRST_STATUS.get(resource.kind, {}))
    if resource.kind == "Pod":
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj["spec"])}
    elif resource.kind == "Namespace":
        obj["spec"] = {"finalizers": ["kubernetes"]}
    elif resource.kind == "Job":
        obj = _with_job_labels(obj)
    elif resource.kind == "CustomResourceDefinition":
        stored = [v["name"] for v in obj["spec"].get("versions", []) if v.get("storage")]
        obj["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": stored,
        }
        obj["metadata"] = {
            **obj["metadata"],
            "finalizers": obj["metadata"].get("finalizers") or [],
        }
        if not obj["metadata"]["finalizers"]:
            del obj["metadata"]["finalizers"]
    return obj


def qos_class(spec: Json) -> str:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    guaranteed, best_effort = True, True
    for container in containers:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            if name in limits or name in requests:
                best_effort = False
            if name not in limits or requests.get(name, limits[name]) != limits[name]:
                guaranteed = False
    if best_effort:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _with_job_labels(obj: Json) -> Json:
    if obj["spec"].get("manualSelector"):
        return obj
    uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
    added = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template = obj["spec"]["template"]
    labels = {**(template.get("metadata", {}).get("labels") or {}), **added}
    template = {**template, "metadata": {**template.get("metadata", {}), "labels": labels}}
    selector = obj["spec"].get("selector") or {}
    own = {"batch.kubernetes.io/controller-uid": uid}
    selector = {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **own}}
    own_labels = obj["metadata"].get("labels") or {
        **(template["metadata"]["labels"]),
    }
    metadata = {**obj["metadata"], "labels": own_labels}
    return {
        **obj,
        "metadata": metadata,
        "spec": {**obj["spec"], "selector": selector, "template": template},
    }


def prepare_update(new: Json, old: Json, resource: ResourceType, subresource: str) -> Json:
    """Return the object as its kind stores an update of ``old``."""
    new = dict(new)
    if subresource == "status":
        keep = {key: value for key, value in old.items() if key != "status"}
        metadata = {**old["metadata"]}
        for key in ("managedFields", "ownerReferences", "annotations", "labels", "finalizers"):
            owned_by_status = key == "managedFields" or resource.custom is None
            if key in new["metadata"] and owned_by_status:
                metadata[key] = new["metadata"][key]
        return {**keep, "metadata": metadata}
    if resource.has_status:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    if resource.kind == "Namespace":
        new["spec"] = old["spec"]
    if resource.kind == "Pod":
        new["spec"] = _kept_pod_fields(new["spec"], old["spec"])
    if resource.kind == "Job" and "selector" not in new["spec"] and "selector" in old["spec"]:
        new["spec"] = {**new["spec"], "selector": old["spec"]["selector"]}
    if resource.kind == "Service":
        _keep_addresses(new, old)
    return new


def with_status(new: Json, old: Json, resource: ResourceType) -> Json:
    """Return ``old`` with the status and those metadata that a status update may change."""
    status = new.get("status")
    updated = prepare_update(new, old, resource, "status")
    if status is not None:
        updated["status"] = status
    return updated


def _kept_pod_fields(new: Json, old: Json) -> Json:
    kept = dict(new)
    for key in ("nodeName", "serviceAccountName", "serviceAccount", "priority"):
        if not kept.get(key) and old.get(key) is not None:
            kept[key] = old[key]
    return kept


def _keep_addresses(new: Json, old: Json) -> None:
    spec = dict(new["spec"])
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if key not in spec and key in old["spec"]:
            spec[key] = old["spec"][key]
    new["spec"] = spec


def next_generation(new: Json, old: Json, resource: ResourceType) -> int | None:
    """Count up when anything but metadata and status has changed."""
    generation: int | None = old["metadata"].get("generation")
    if not resource.generation:
        return generation
    ignored = (
        {"metadata", "status"} if resource.has_status or resource.custom is None else {"metadata"}
    )
    changed = any(new.get(key) != old.get(key) for key in (new.keys() | old.keys()) - ignored)
    return (generation or 1) + changed


def create_faults(obj: Json, resource: ResourceType) -> list[Cause]:
    """Check a new object of a built-in kind."""
    causes = validity.faults(obj, resource)
    return causes + crds.faults(obj) if resource is kinds.DEFINITIONS else causes


def update_faults(new: Json, old: Json, resource: ResourceType, subresource: str) -> list[Cause]:
    """Check a changed object of a built-in kind."""
    causes = validity.update_faults(new, old, resource, subresource)
    return causes + crds.faults(new) if resource is kinds.DEFINITIONS else causes
