"""Scale, binding, eviction and finalize: writes to a part of an object. No I/O of their own."""

from __future__ import annotations

from typing import Any

from . import clock, errors, kinds, patches
from .deletion import Deletions
from .intake import Options
from .kinds import ResourceType
from .operations import Operations

Json = dict[str, Any]

_BUILTIN_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": "",
}


def _read(obj: Json, path: str) -> Any:
    value: Any = obj
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _written(obj: Json, path: str, value: Any) -> Json:
    first, _, rest = path.strip(".").partition(".")
    inner = _written(obj.get(first) or {}, rest, value) if rest else value
    return {**obj, first: inner}


def _paths(resource: ResourceType) -> Json:
    return (resource.custom and resource.custom.scale) or _BUILTIN_SCALE


def scale_of(obj: Json, resource: ResourceType) -> Json:
    """Return an object's Scale."""
    paths = _paths(resource)
    meta = obj["metadata"]
    keys = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": _read(obj, paths["statusReplicasPath"]) or 0}
    if resource.custom is None:
        labels = (_read(obj, ".spec.selector.matchLabels") or {}).items()
        text = ",".join(f"{key}={value}" for key, value in sorted(labels))
        if text:
            status["selector"] = text
    elif paths.get("labelSelectorPath"):
        selector = _read(obj, paths["labelSelectorPath"])
        if selector:
            status["selector"] = selector
    replicas = _read(obj, paths["specReplicasPath"])
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in keys if key in meta},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def write_scale(
    objects: Operations, resource: ResourceType, obj: Json, scale: Json, options: Options
) -> Json:
    """Set an object's replicas from a Scale."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    name = obj["metadata"]["name"]
    if not isinstance(replicas, int) or replicas < 0:
        cause = errors.invalid_value(
            "spec.replicas", str(replicas), "must be greater than or equal to 0"
        )
        raise errors.invalid("Scale", "autoscaling", name, [cause])
    new = _written(obj, _paths(resource)["specReplicasPath"], replicas)
    given = (scale.get("metadata") or {}).get("resourceVersion")
    if given:
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": given}}
    options.subresource = "scale"
    namespace = obj["metadata"].get("namespace", "")
    stored, _ = objects.update(resource, namespace, name, new, options)
    return scale_of(stored, resource)


def patch_scale(
    objects: Operations,
    resource: ResourceType,
    obj: Json,
    options: Options,
    *,
    media_type: str,
    patch: Any,
) -> Json:
    scale = scale_of(obj, resource)
    if media_type == patches.JSON_PATCH:
        scale = patches.json_patch(scale, patch)
    else:
        scale = patches.merge_patch(scale, patch)
    return write_scale(objects, resource, obj, scale, options)


def _done(code: int) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": code,
    }


def bind(objects: Operations, namespace: str, name: str, binding: Json) -> Json:
    """Put a pod on a node."""
    pod = objects.get(kinds.PODS, namespace, name)
    node = (binding.get("target") or {}).get("name", "")
    if not node:
        cause = errors.required_value("target.name")
        raise errors.invalid("Binding", "", name, [cause])
    if pod["metadata"].get("deletionTimestamp"):
        why = f"pod {name} is being deleted, cannot be assigned to a host"
        raise errors.conflict(kinds.PODS, name, why)
    current = pod["spec"].get("nodeName")
    if current:
        error = errors.conflict(
            kinds.PODS, name, f'pod {name} is already assigned to node "{current}"'
        )
        error.message = error.message.replace("on pods ", "on pods/binding ", 1)
        raise error
    condition = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": clock.now(),
    }
    conditions = (pod.get("status") or {}).get("conditions") or []
    others = [entry for entry in conditions if entry["type"] != "PodScheduled"]
    status = {**(pod.get("status") or {}), "conditions": [*others, condition]}
    annotations = (binding.get("metadata") or {}).get("annotations")
    metadata = pod["metadata"]
    if annotations:
        kept = {**(metadata.get("annotations") or {}), **annotations}
        metadata = {**metadata, "annotations": kept}
    spec = {**pod["spec"], "nodeName": node}
    objects.settle(kinds.PODS, {**pod, "metadata": metadata, "spec": spec, "status": status})
    return _done(201)


def evict(
    deletions: Deletions, namespace: str, name: str, eviction: Json, *, dry_run: bool
) -> Json:
    options = eviction.get("deleteOptions") or {}
    deletions.delete(kinds.PODS, namespace, name, options, dry_run=dry_run)
    return _done(201)


def finalize(objects: Operations, name: str, namespace: Json) -> Json:
    """Replace a namespace's own finalizers; an empty list lets it go."""
    old = objects.get(kinds.NAMESPACES, "", name)
    given = (namespace.get("metadata") or {}).get("resourceVersion")
    if given and given != old["metadata"]["resourceVersion"]:
        raise errors.conflict(kinds.NAMESPACES, name)
    finalizers = (namespace.get("spec") or {}).get("finalizers") or []
    spec = {"finalizers": finalizers} if finalizers else {}
    return objects.settle(kinds.NAMESPACES, {**old, "spec": spec})
