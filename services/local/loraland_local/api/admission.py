"""What must hold, and what is added, before an object is stored.

No I/O of its own; it reads the store, because other objects decide.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from . import errors, kinds
from .kinds import ResourceType
from .metadata import generated_name
from .storage import Store

Json = dict[str, Any]

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
_NO_EXECUTE = ("not-ready", "unreachable")
_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_SYSTEM_PRIORITIES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}


def admit_create(store: Store, obj: Json, resource: ResourceType) -> Json:
    """Return the object as it may be created; raises what forbids it."""
    if resource.namespaced:
        _check_namespace(store, obj, resource)
    if resource is kinds.PODS:
        return _admit_pod(store, obj)
    if resource.kind == "Service":
        return with_addresses(store, obj)
    return obj


def _check_namespace(store: Store, obj: Json, resource: ResourceType) -> None:
    name = obj["metadata"]["namespace"]
    namespace = store.get(kinds.NAMESPACES.storage_key, ("", name))
    if namespace is None:
        raise errors.not_found(kinds.NAMESPACES, name)
    if namespace["metadata"].get("deletionTimestamp"):
        error = errors.forbidden(
            resource,
            obj["metadata"].get("name", ""),
            f"unable to create new content in namespace {name} because it is being terminated",
        )
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {name} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = {**(error.details or {}), "causes": [cause]}
        raise error


def _admit_pod(store: Store, obj: Json) -> Json:
    metadata, spec = obj["metadata"], dict(obj["spec"])
    namespace = metadata["namespace"]
    account_name = spec.get("serviceAccountName") or "default"
    account = store.get(kinds.SERVICE_ACCOUNTS.storage_key, (namespace, account_name))
    if account is None:
        raise errors.forbidden(
            kinds.PODS,
            metadata["name"],
            f"error looking up service account {namespace}/{account_name}:"
            f' serviceaccount "{account_name}" not found',
        )
    spec["serviceAccountName"] = spec["serviceAccount"] = account_name
    mounts = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken"))
    if mounts is not False:
        _mount_token(spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]
    _set_priority(store, metadata, spec)
    tolerations = list(spec.get("tolerations") or [])
    for condition in _NO_EXECUTE:
        key = f"node.kubernetes.io/{condition}"
        if not any(item.get("key") in {key, None} for item in tolerations):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
            )
    spec["tolerations"] = tolerations
    return {**obj, "spec": spec}


def _mount_token(spec: Json) -> None:
    """Add the volume with the service account's token, as every pod gets one."""
    kind = ("containers", "initContainers")
    unmounted = [
        (name, index)
        for name in kind
        for index, container in enumerate(spec.get(name) or [])
        if not any(m["mountPath"] == _TOKEN_PATH for m in container.get("volumeMounts") or [])
    ]
    if not unmounted:
        return
    volume = generated_name("kube-api-access-")
    items = [{"path": "namespace", "fieldRef": _field("metadata.namespace")}]
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {"downwardAPI": {"items": items}},
    ]
    projected = {"sources": sources, "defaultMode": 420}
    spec["volumes"] = [*(spec.get("volumes") or []), {"name": volume, "projected": projected}]
    mount = {"name": volume, "readOnly": True, "mountPath": _TOKEN_PATH}
    for name in kind:
        if spec.get(name):
            spec[name] = list(spec[name])
    for name, index in unmounted:
        container = spec[name][index]
        mounts = [*(container.get("volumeMounts") or []), mount]
        spec[name][index] = {**container, "volumeMounts": mounts}


def _field(path: str) -> Json:
    return {"apiVersion": "v1", "fieldPath": path}


def _set_priority(store: Store, metadata: Json, spec: Json) -> None:
    name = spec.get("priorityClassName")
    found: Json | None = None
    if name in _SYSTEM_PRIORITIES:
        found = {"value": _SYSTEM_PRIORITIES[name]}
    elif name:
        found = store.get(kinds.PRIORITY_CLASSES.storage_key, ("", name))
        if found is None:
            why = f"no PriorityClass with name {name} was found"
            raise errors.forbidden(kinds.PODS, metadata["name"], why)
    else:
        classes = store.objects(kinds.PRIORITY_CLASSES.storage_key)
        found = next((entry for entry in classes if entry.get("globalDefault")), None)
        if found is not None:
            spec["priorityClassName"] = found["metadata"]["name"]
    spec["priority"] = found["value"] if found else 0
    spec.setdefault(
        "preemptionPolicy", (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"
    )


def with_addresses(store: Store, obj: Json) -> Json:
    """Give a Service its cluster address; headless ones say ``None``."""
    spec = dict(obj["spec"])
    if spec["type"] == "ExternalName":
        return obj
    if not spec.get("clusterIP"):
        key = kinds.builtin("services").storage_key
        used = {other["spec"].get("clusterIP") for other in store.objects(key)}
        free = (str(address) for address in SERVICE_NETWORK.hosts() if str(address) not in used)
        spec["clusterIP"] = next(free)
    spec["clusterIPs"] = spec.get("clusterIPs") or [spec["clusterIP"]]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    return {**obj, "spec": spec}
