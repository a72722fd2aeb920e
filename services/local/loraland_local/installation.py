"""Applies the platform to the cluster and tells how its deployments fare. An API client."""

import asyncio
import dataclasses
import datetime as dt
import math
import time
from typing import Any

from loraland_core import names
from loraland_core.errors import Unavailable

from loraland_local import platform
from loraland_local.apiclient import resources
from loraland_local.apiclient.cluster import ApiError, Cluster
from loraland_local.apiclient.resources import Resource

FIELD_MANAGER = "loraland-up"
APPLY_PATCH = "application/apply-patch+yaml"
_POLL_S = 0.2
_RBAC = "rbac.authorization.k8s.io"
_KINDS = {
    resource.kind: resource
    for resource in (
        resources.NAMESPACES,
        resources.CUSTOM_RESOURCE_DEFINITIONS,
        resources.SERVICE_ACCOUNTS,
        resources.CONFIG_MAPS,
        resources.SECRETS,
        resources.DEPLOYMENTS,
        Resource(_RBAC, "v1", "roles", "Role"),
        Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
        Resource(_RBAC, "v1", "clusterroles", "ClusterRole", is_namespaced=False),
        Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", is_namespaced=False),
    )
}


@dataclasses.dataclass(frozen=True)
class PodState:
    """One pod of a deployment, as far as people want to know."""

    name: str
    ip: str
    is_ready: bool
    summary: str


async def apply(cluster: Cluster, objects: list[dict[str, Any]], *, timeout_s: float) -> None:
    """Apply all objects in order, each until the API takes it."""
    deadline = time.monotonic() + timeout_s
    for obj in objects:
        while True:
            try:
                await _apply_one(cluster, obj)
                break
            except ApiError as error:
                # A namespace or a definition just made may need a moment to be served.
                is_early = error.status in {0, 404, 503} or error.is_conflict
                if not is_early or time.monotonic() > deadline:
                    meta = obj["metadata"]
                    raise Unavailable(f"{obj['kind']} {meta['name']}: {error}") from error
            await asyncio.sleep(_POLL_S)


async def _apply_one(cluster: Cluster, obj: dict[str, Any]) -> None:
    meta = obj["metadata"]
    path = _KINDS[obj["kind"]].path(meta.get("namespace", ""), meta["name"])
    query = {"fieldManager": FIELD_MANAGER, "force": "true"}
    await cluster.call("PATCH", path, query=query, body=obj, content_type=APPLY_PATCH)


async def wait_node(cluster: Cluster, name: str, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        node = await cluster.get_or_none(resources.NODES, "", name)
        if node is not None and _condition(node, "Ready") == "True":
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"node {name} is not Ready after {timeout_s:.0f} s")
        await asyncio.sleep(_POLL_S)


async def is_available(cluster: Cluster, deployment: str) -> bool:
    """Say whether the deployment's newest pods serve."""
    found = await cluster.get_or_none(resources.DEPLOYMENTS, platform.SYSTEM_NAMESPACE, deployment)
    if found is None:
        return False
    status = found.get("status") or {}
    wanted = found["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
    )


async def pods(cluster: Cluster, component: str, *, since_s: float) -> list[PodState]:
    """Return the pods of one component of the platform, the newest first.

    A pod whose processes began before ``since_s`` (Unix time) is not ready, whatever its status
    says: an earlier stack wrote that, and its processes are gone.
    """
    found, _ = await cluster.list(
        resources.PODS, labelSelector=selector(component), fieldSelector="status.phase!=Failed"
    )
    found.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)
    return [
        _pod_state(pod, since_s) for pod in found if not pod["metadata"].get("deletionTimestamp")
    ]


def selector(component: str) -> str:
    return f"{names.LABEL_PART_OF}=loraland,{names.LABEL_COMPONENT}={component}"


def _pod_state(pod: dict[str, Any], since_s: float) -> PodState:
    status = pod.get("status") or {}
    return PodState(
        name=str(pod["metadata"]["name"]),
        ip=str(status.get("podIP", "")),
        is_ready=_condition(pod, "Ready") == "True" and _runs_since(status, since_s),
        summary=_summary(status),
    )


def _runs_since(status: dict[str, Any], since_s: float) -> bool:
    """Whether each container began at or after that time; statuses tell whole seconds."""
    begun = [
        container.get("state", {}).get("running", {}).get("startedAt")
        for container in status.get("containerStatuses") or []
    ]
    return all(text and _unix_s(text) >= math.floor(since_s) for text in begun)


def _unix_s(timestamp: str) -> float:
    return dt.datetime.fromisoformat(timestamp).timestamp()


def _summary(status: dict[str, Any]) -> str:
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        waiting = state.get("waiting") or state.get("terminated")
        if waiting:
            message = f": {waiting['message']}" if waiting.get("message") else ""
            return f"{waiting.get('reason', '')}{message}"
    return str(status.get("phase", "Pending"))


def _condition(obj: dict[str, Any], kind: str) -> str:
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind:
            return str(condition.get("status"))
    return "Unknown"
