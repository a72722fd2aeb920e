"""The node: registered, kept alive by its Lease, and marked as not ready at the end."""

import asyncio
import dataclasses
import datetime as dt
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping

from loraland_local.apiclient import objects, resources
from loraland_local.apiclient.cluster import STRATEGIC_PATCH, Cluster
from loraland_local.apiclient.errors import ApiError
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet.context import now_utc

URL_ANNOTATION = "loraland.dev/kubelet-url"

_log = logging.getLogger(__name__)
_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_DURATION_S = 40
_HEARTBEAT_INTERVAL_S = 10.0
_MAX_PODS = "110"
_GPU = "nvidia.com/gpu"


@dataclasses.dataclass(frozen=True)
class Node:
    """What the node says about itself."""

    name: str
    address: str
    url: str
    tls_port: int
    capacity: Mapping[str, str]
    labels: Mapping[str, str]


def find_capacity(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return what this machine has to offer."""
    memory_kib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    found = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_kib}Ki",
        "pods": _MAX_PODS,
        "ephemeral-storage": f"{shutil.disk_usage('/').total // 1024}Ki",
    }
    num_gpus = _count_gpus()
    if num_gpus:
        found[_GPU] = str(num_gpus)
    return {**found, **overrides}


def _count_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def build_object(node: Node) -> Object:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    )
    system = platform.system().lower()
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": system,
        "kubernetes.io/arch": architecture,
        **node.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": labels,
            "annotations": {URL_ANNOTATION: node.url},
        },
    }


def build_status(node: Node, now: dt.datetime, *, is_ready: bool) -> Object:
    return {
        "capacity": dict(node.capacity),
        "allocatable": dict(node.capacity),
        "addresses": [
            {"type": "InternalIP", "address": node.address},
            {"type": "Hostname", "address": node.name},
        ],
        "conditions": _build_conditions(now, is_ready=is_ready),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.tls_port}},
        "nodeInfo": _describe_machine(),
    }


def _build_conditions(now: dt.datetime, *, is_ready: bool) -> list[Object]:
    moment = objects.format_time(now)
    healthy = [
        ("MemoryPressure", "KubeletHasSufficientMemory"),
        ("DiskPressure", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "KubeletHasSufficientPID"),
    ]
    ready = (
        {"reason": "KubeletReady", "message": "kubelet is posting ready status"}
        if is_ready
        else {"reason": "KubeletNotReady", "message": "node is shutting down"}
    )
    conditions: list[Object] = [
        {"type": kind, "status": "False", "reason": reason} for kind, reason in healthy
    ]
    conditions.append({"type": "Ready", "status": "True" if is_ready else "False", **ready})
    for found in conditions:
        found["lastHeartbeatTime"] = moment
        found["lastTransitionTime"] = moment
    return conditions


def _describe_machine() -> Object:
    return {
        "architecture": platform.machine(),
        "bootID": "",
        "containerRuntimeVersion": "loraland://processes",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.36.0",
        "machineID": "",
        "operatingSystem": platform.system().lower(),
        "osImage": platform.platform(terse=True),
        "systemUUID": "",
    }


async def register(cluster: Cluster, node: Node) -> None:
    """Create the node or bring an earlier one up to date."""
    body = build_object(node)
    try:
        await cluster.create(resources.NODES, "", body)
    except ApiError as error:
        if not error.is_already_there:
            raise
        meta = {
            "labels": body["metadata"]["labels"],
            "annotations": body["metadata"]["annotations"],
        }
        await cluster.patch(resources.NODES, "", node.name, {"metadata": meta})
    await set_ready(cluster, node, is_ready=True)


async def set_ready(cluster: Cluster, node: Node, *, is_ready: bool) -> None:
    status = build_status(node, now_utc(), is_ready=is_ready)
    await cluster.patch(
        resources.NODES,
        "",
        node.name,
        {"status": status},
        patch_type=STRATEGIC_PATCH,
        subresource="status",
    )


async def keep_alive(cluster: Cluster, node: Node) -> None:
    """Renew the node's Lease until cancelled, and register again if somebody removed the node."""
    while True:
        try:
            await _renew(cluster, node)
            found = await cluster.get_or_none(resources.NODES, "", node.name)
            if found is None:
                await register(cluster, node)
            elif not objects.is_condition_true(found, "Ready"):
                # After a long sleep of the machine, the node was taken for dead.
                await set_ready(cluster, node, is_ready=True)
        except ApiError as error:
            _log.warning("lease of node %s: %s", node.name, error)
        await asyncio.sleep(_HEARTBEAT_INTERVAL_S)


async def _renew(cluster: Cluster, node: Node) -> None:
    renewed = {"renewTime": objects.format_micro_time(now_utc())}
    try:
        await cluster.patch(resources.LEASES, _LEASE_NAMESPACE, node.name, {"spec": renewed})
        return
    except ApiError as error:
        if not error.is_not_found:
            raise
    spec = {"holderIdentity": node.name, "leaseDurationSeconds": _LEASE_DURATION_S, **renewed}
    meta = {"name": node.name, "namespace": _LEASE_NAMESPACE}
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": meta,
        "spec": spec,
    }
    try:
        await cluster.create(resources.LEASES, _LEASE_NAMESPACE, body)
    except ApiError as error:
        if not error.is_not_found:
            raise
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": _LEASE_NAMESPACE},
        }
        await cluster.create(resources.NAMESPACES, "", namespace)
        await cluster.create(resources.LEASES, _LEASE_NAMESPACE, body)
